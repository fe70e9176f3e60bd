"""The order of the protocols of a Scipion workflow: inputs before those that use them."""

from collections.abc import Mapping
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
    users: dict[str, list[str]] = {identity: [] for identity in needs}
    for identity, wanted in needs.items():
        for source in wanted:
            users[source].append(identity)
    open_needs = {identity: len(wanted) for identity, wanted in needs.items()}
    order = [identity for identity, count in open_needs.items() if count == 0]
    for identity in order:  # grows while it is read
        for user in users[identity]:
            open_needs[user] -= 1
            if open_needs[user] == 0:
                order.append(user)
    return order
