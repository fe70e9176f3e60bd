"""The parameters of one protocol, turned into those of a step, with an account of every one that was there."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from icestream.flow.declaration import Params, find_step
from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError
from icestream.workflows.scipion.parse import DynamicField, Protocol, Scalar
from icestream.workflows.scipion.rules import Lost, Mapping, Rule, Via
from icestream.workflows.scipion.sources import ACQUISITION, FOLDERS, HANDLED

ENGINE = frozenset(
    {
        "runName",
        "runMode",
        "hostName",
        "numberOfThreads",
        "numberOfMpi",
        "gpuList",
        "useGpu",
        "doGpu",
        "gpusToUse",
        "forceSchedule",
        "numCpus",
    }
    | {"streamingWarning", "streamingSleepOnWait", "streamingBatchSize", "acquisitionWizard", "EERtext"}
)
"""How a protocol is run; here the engine decides that."""


@dataclass
class Account:
    """The parameters of a step, what changed, what each of Scipion's parameters became, and those kept as a comment."""

    params: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def read_params(reader: Reader, mapping: Mapping) -> Account:
    """Return the parameters of the step, and an account of the others."""
    account = Account()
    untold = set()
    for rule in mapping.rules:
        try:
            account.params[rule.target] = _finite(rule.convert(reader, rule.sources), rule)
        except AbsentError:
            continue
        except UntranslatableError as error:
            required = find_step(mapping.use).params.model_fields[rule.target].is_required()
            account.notes.append(f"{error}; {rule.target} is {'to be given' if required else 'left at its default'}")
            untold |= set(rule.sources)
    refused = _drop_refused(find_step(mapping.use).params, account)
    untold |= {source for rule in mapping.rules if rule.target in refused for source in rule.sources}
    for rule in mapping.rules:
        if rule.target in account.params:
            account.targets |= {source: rule.target for source in rule.sources if source not in account.targets}
            if rule.changed:
                account.notes.append(f"{rule.target}: {rule.changed}")
    account.notes += tell_lost(reader.protocol, mapping.lost)
    _keep_rest(reader, mapping, account, untold)
    return account


def _finite(value: Any, rule: Rule) -> Any:
    members = value if isinstance(value, list) else [value]
    if any(isinstance(member, float) and not math.isfinite(member) for member in members):
        raise UntranslatableError(f"{rule.sources[0]} gives {value}, which is not a finite number")
    return value


def _drop_refused(model: type[Params], account: Account) -> set[str]:
    """Leave out values that our step does not take; return the names of its parameters."""
    dropped: set[str] = set()
    while True:
        try:
            model.model_validate(account.params)
        except ValidationError as error:
            refused = {
                str(issue["loc"][0]) if issue["loc"] else None: issue["msg"]
                for issue in error.errors()
                if issue["type"] != "missing"
            }
            if not refused:
                return dropped
            for target, message in refused.items():
                for name in _culprits(model, account.params, message) if target is None else [target]:
                    value = account.params.pop(name)
                    dropped.add(name)
                    account.notes.append(f"{name} {value} is refused and left at its default: {message}")
        else:
            return dropped


def _culprits(model: type[Params], params: dict[str, Any], message: str) -> list[str]:
    """Return the parameters that a message names, else the fewest without which those that are left fit together."""
    named = [name for name in params if re.search(rf"\b{name}\b", message)]
    if named and _fit({name: value for name, value in params.items() if name not in named}, model):
        return named
    for count in range(1, len(params)):
        for names in combinations(params, count):
            if _fit({name: value for name, value in params.items() if name not in names}, model):
                return list(names)
    return list(params)


def _fit(params: dict[str, Any], model: type[Params]) -> bool:
    try:
        model.model_validate(params)
    except ValidationError as error:
        return all(issue["type"] == "missing" for issue in error.errors())
    return True


def tell_lost(protocol: Protocol, lost: Iterable[Lost]) -> list[str]:
    """Return what a person should know about parameters without a counterpart."""
    return [f"{one.parameter} {value}: {one.reason}" for one in lost if (value := _matters(protocol, one)) is not None]


def _matters(protocol: Protocol, lost: Lost) -> Scalar:
    value = _plain(protocol.values.get(lost.parameter))
    return None if value in (None, "", *lost.neutral) else value


def _keep_rest(reader: Reader, mapping: Mapping, account: Account, untold: set[str]) -> None:
    """Keep what no rule reads, and what a rule read in vain."""
    read = {source for rule in mapping.rules for source in rule.sources} - untold | set(mapping.decided_by)
    read |= {lost.parameter for lost in mapping.lost if _matters(reader.protocol, lost) is None}
    read |= {source.parameter if isinstance(source, Via) else source for sources in mapping.ports.values() for source in sources}
    if reader.protocol.class_name in FOLDERS:
        read |= HANDLED
        account.targets |= ACQUISITION | {
            "filesPath": f"--{FOLDERS[reader.protocol.class_name]}",
            "filesPattern": "--pattern",
            "gainFile": "--gain",
        }
    account.kept = keep_unread(reader.protocol, read)


def keep_unread(protocol: Protocol, read: Iterable[str]) -> dict[str, Any]:
    """Return the parameters as they were written that are not among ``read`` and say something about the data."""
    left_out = ENGINE.union(read)
    return {
        name: protocol.raw[name]
        for name, value in protocol.values.items()
        if name not in left_out and not name.startswith("_") and value not in (None, "")
    }


def _plain(value: Any) -> Scalar:
    if isinstance(value, DynamicField):
        return value.default
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
