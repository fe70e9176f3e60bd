"""Joining and dividing streams: which exposures go on. What goes on is what came, so nothing below is computed again."""

import hashlib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from icestream.errors import WorkflowError
from icestream.flow import Context, Field, Params, Verdict, keep, reject, step
from icestream.flow.workflow import check_condition, parse_condition, why_not
from icestream.records import Record

_BITS = 53


def draw_lot(purpose: str, seed: int, exposure_id: str) -> float:
    """Return a number from 0 to 1 (never 1 itself), uniform over exposures; different purposes and seeds are independent.

    The same exposure draws the same number in every run, on every machine, in whatever order it comes.
    """
    drawn = hashlib.sha256(f"{purpose}\0{seed}\0{exposure_id}".encode()).digest()[:8]
    return math.ldexp(int.from_bytes(drawn, "big") >> (64 - _BITS), -_BITS)


@step.filter("union", version=1)
def unite(items: list[Record]) -> Verdict:  # noqa: ARG001 - the first of them is passed on
    """Take one item for each exposure from several streams of one type: from the first stream that has one."""
    return keep()


class SubsetParams(Params):
    """Which exposures are kept; all that is set must hold."""

    names: list[str] = Field(default_factory=list, description="Patterns of names, such as grid3_*; one must match")
    except_names: list[str] = Field(default_factory=list, description="Patterns of names; none may match")
    first: int | None = Field(None, ge=1, description="Only this many exposures of the session, the first to arrive")
    every: int = Field(1, ge=1, description="Only every Nth exposure of the session by order of arrival, from the first on")


@step.filter("subset", version=1, min_inputs=0)
def choose_subset(
    item: Record,  # noqa: ARG001 - it is passed on
    also_in: list[Record] | None,
    not_in: list[Record] | None,
    params: SubsetParams,
    ctx: Context,
) -> Verdict:
    """Keep the exposures that do or do not have an item in other streams, or that have certain names or numbers.

    Of several streams in ``also_in`` one is enough; in ``not_in`` none may have it.
    """
    if also_in is not None and not also_in:
        return reject("not in the other stream")
    if not_in:
        return reject("also in the other stream")
    reason = _wrong_name(ctx.exposure.name, params) or _wrong_number(ctx.exposure.ordinal, params)
    return reject(reason) if reason else keep()


def _wrong_name(name: str, params: SubsetParams) -> str | None:
    if params.names and not any(fnmatchcase(name, pattern) for pattern in params.names):
        return f"{name} matches none of {', '.join(params.names)}"
    unwanted = next((pattern for pattern in params.except_names if fnmatchcase(name, pattern)), None)
    return None if unwanted is None else f"{name} matches {unwanted}"


def _wrong_number(ordinal: int, params: SubsetParams) -> str | None:
    if params.first is not None and ordinal > params.first:
        return f"exposure {ordinal} is not among the first {params.first}"
    return f"exposure {ordinal} is not kept: only one in every {params.every} is" if (ordinal - 1) % params.every else None


class SampleParams(Params):
    """How large the sample is."""

    fraction: float = Field(gt=0, le=1, description="Share of the exposures that is kept, chosen at random")
    seed: int = Field(0, description="Another seed chooses other exposures")


@step.filter("sample", version=1)
def draw_sample(item: Record, params: SampleParams, ctx: Context) -> Verdict:  # noqa: ARG001 - it is passed on
    """Keep a random share of the exposures; a larger share with the same seed contains the smaller one."""
    lot = draw_lot("sample", params.seed, ctx.exposure.id)
    return keep() if lot < params.fraction else reject(f"not in the sample of {params.fraction:g}")


class SplitParams(Params):
    """Into how many parts, and which this is."""

    parts: int = Field(2, ge=2, le=1000, description="Number of parts")
    part: int = Field(1, ge=1, description="Which of them this step keeps, from 1")
    seed: int = Field(0, description="Another seed divides differently; the steps of one division have the same seed")


def _check_part(params: SplitParams, _records: Mapping[str, type[Record]]) -> None:
    if params.part > params.parts:
        raise WorkflowError(f"part {params.part} of {params.parts}: parts are numbered from 1 to {params.parts}")


@step.filter("split", version=1, check=_check_part)
def take_part(item: Record, params: SplitParams, ctx: Context) -> Verdict:  # noqa: ARG001 - it is passed on
    """Keep one of several parts of about equal size, drawn at random: each exposure is in exactly one of them."""
    part = 1 + int(draw_lot("split", params.seed, ctx.exposure.id) * params.parts)
    return keep() if part == params.part else reject(f"in part {part} of {params.parts}")


class KeepIfParams(Params):
    """What must hold."""

    where: str = Field(
        min_length=1,
        description="Condition on fields, as: defocus_u_ang < 30000 and other.count > 50; see how-to/control-the-flow",
    )


def _check_where(params: KeepIfParams, records: Mapping[str, type[Record]]) -> None:
    scope = {"" if port == "item" else port: record for port, record in records.items()}
    check_condition(parse_condition(params.where), {**scope, "item": scope[""]})


@step.filter("keep_if", version=1, check=_check_where)
def keep_where(item: Record, other: Record | None, params: KeepIfParams) -> Verdict:
    """Keep the exposures whose items meet a condition; a rejection shows the values and the condition."""
    records: dict[str, Record | None] = {"": item, "item": item}
    reason = why_not(parse_condition(params.where), records if other is None else {**records, "other": other})
    return keep() if reason is None else reject(reason)
