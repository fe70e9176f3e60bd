"""The steps of a session in workflow order, and which revision of each is the active one."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from icestream.flow.storage import SessionDocument, schema


@dataclass(frozen=True)
class ActiveRevision:
    """The active revision of a step, as the runner stored it."""

    id: int
    step: str
    number: int
    kind: str
    type_version: int
    software: str
    params: dict[str, Any]
    links: dict[str, list[str]]
    created_at: float

    @property
    def producers(self) -> list[tuple[str, str]]:
        """The inputs as (step, output)."""
        split = [link.partition(".") for group in self.links.values() for link in group]
        return [(step, output or "out") for step, _, output in split]


def inputs_of(document: SessionDocument, step: str) -> list[tuple[str, str]]:
    """Return the inputs of a step of the document as (step, output); unknown steps are left out."""
    targets = document.steps[step].inputs.values()
    links = [link.partition(".") for target in targets for link in ([target] if isinstance(target, str) else target)]
    return [(name, output or "out") for name, _, output in links if name in document.steps]


def workflow_order(document: SessionDocument) -> list[str]:
    """Return the steps, inputs before those that use them, else as the document has them.

    The document need not be a valid workflow: a view must open what a runner would refuse.
    """
    order: list[str] = []
    left = list(document.steps)
    while left:
        ready = [name for name in left if all(step in order or step == name for step, _ in inputs_of(document, name))]
        chosen = ready[0] if ready else left[0]
        order.append(chosen)
        left.remove(chosen)
    return order


def active_revisions(connection: Connection, order: list[str]) -> dict[str, ActiveRevision]:
    """Return the active revisions of the steps in ``order``."""
    table = schema.revision
    rows = connection.execute(select(table).where(table.c.state == "active")).mappings()
    found = {
        row["step"]: ActiveRevision(
            id=row["id"],
            step=row["step"],
            number=row["number"],
            kind=row["kind"],
            type_version=row["type_version"],
            software=row["software"],
            params=json.loads(row["params"]),
            links=json.loads(row["links"]),
            created_at=row["created_at"],
        )
        for row in rows
    }
    return {name: found[name] for name in order if name in found}


def works_on_exposures(step: str, revisions: dict[str, ActiveRevision], wholes: frozenset[int]) -> bool:
    """Tell whether a step decides exposures, rather than finding them, or deciding batches or versions of a whole.

    ``wholes`` are the revisions that have published snapshots.
    """
    revision = revisions[step]
    if revision.kind == "source":
        return False
    above = [(revisions[name], output) for name, output in revision.producers if name in revisions]
    per_item = [producer for producer, output in above if not _is_whole(producer, output, wholes)]
    return bool(per_item) and all(
        producer.kind == "source" or (producer.kind != "collect" and works_on_exposures(producer.step, revisions, wholes))
        for producer in per_item
    )


def _is_whole(producer: ActiveRevision, output: str, wholes: frozenset[int]) -> bool:
    return output == "out" and (producer.kind == "accumulate" or producer.id in wholes)
