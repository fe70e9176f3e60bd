"""The order of the protocols of a Scipion workflow: inputs before those that use them."""

from collections.abc import Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from icestream.errors import WorkflowError

if TYPE_CHECKING:
    from icestream.workflows.scipion.parse import Protocol


def put_in_order(protocols: "Mapping[str, Protocol]", name: str) -> list[str]:
    """Return the ids of protocols, each after all that it needs; prerequisites are heeded where they make no circle.

    Raises
    ------
    WorkflowError
        Protocols take their input from each other in a circle.
    """
    needs = {
        protocol.id: {pointer.protocol for group in protocol.pointers.values() for pointer in group}
        for protocol in protocols.values()
    }
    waits = {identity: wanted | (set(protocols[identity].prerequisites) & set(protocols)) for identity, wanted in needs.items()}
    order = _sorted(waits) if len(_sorted(waits)) == len(protocols) else _sorted(needs)
    if len(order) < len(protocols):
        circle = [str(protocols[identity]) for identity in protocols if identity not in order]
        raise WorkflowError(f"{name}: protocols {', '.join(circle[:20])} take their input from each other in a circle")
    return order


def _sorted(needs: dict[str, set[str]]) -> list[str]:
    """Return what can be put in order: each after all that it needs."""
    sorter = TopologicalSorter(dict.fromkeys(needs, ()))  # each in its place, whoever needs it
    for identity, wanted in needs.items():
        sorter.add(identity, *wanted)
    with suppress(CycleError):  # what lies outside of circles can be put in order still
        sorter.prepare()
    order = list(sorter.get_ready())
    for identity in order:  # grows while it is read
        sorter.done(identity)
        order += sorter.get_ready()
    return order
