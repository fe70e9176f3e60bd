"""Joining the inputs of a unit: a pure decision from the outcomes that are there."""

from collections.abc import Mapping
from dataclasses import dataclass

from icestream.flow.declaration import InputNames, Keys, Outcome, Status
from icestream.flow.workflow import Link, Node


@dataclass(frozen=True)
class Joined:
    """All inputs are known: run on ``inputs``, or take ``outcome`` (skipped) as the answer."""

    inputs: dict[str, tuple[str, ...]]
    missing: tuple[str, ...] = ()
    outcome: Outcome | None = None


def join_inputs(node: Node, outcomes: Mapping[str, Outcome]) -> Joined | None:
    """Join the per-unit inputs of ``node``; None while an outcome is still to come.

    A single input that is no item makes the step skip the unit, naming the root cause. A list input takes the items that are
    there, at least ``min_inputs`` of them, and records who was missing.
    """
    inputs: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    many = node.list_ports
    item_links = node.item_links
    if not node.item_steps <= outcomes.keys():
        return None
    for port, links in item_links.items():
        offered = [_offered_keys(outcomes[link.step], link.output) for link in links]
        absent = [link for link, keys in zip(links, offered, strict=True) if not keys]
        present = tuple(key for keys in offered for key in keys)
        if absent and (port not in many or len(links) - len(absent) < node.min_inputs):
            return Joined({}, outcome=_skip(absent[0], outcomes[absent[0].step]))
        missing.extend(str(link) for link in absent)
        inputs[port] = present
    return Joined(inputs, tuple(missing))


def name_inputs(node: Node, outcomes: Mapping[str, Outcome]) -> InputNames:
    """Return which steps the items of list inputs come from; a link that offers several items is named for each."""
    given: dict[str, tuple[str, ...]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for port, links in node.item_links.items():
        if port in node.list_ports:
            offered = [(str(link), len(_offered_keys(outcomes[link.step], link.output))) for link in links]
            given[port] = tuple(name for name, n_items in offered for _ in range(n_items))
            missing[port] = tuple(name for name, n_items in offered if not n_items)
    return InputNames(given, missing)


def _offered_keys(outcome: Outcome, output: str) -> tuple[str, ...]:
    """Return the keys behind one output: one for an item, all members for a batch, none otherwise."""
    if output in outcome.keys:
        return (outcome.keys[output],)
    if output == "out":
        return tuple(key for name, key in sorted(outcome.keys.items()) if name.startswith("member"))
    return ()


def _skip(link: Link, cause: Outcome) -> Outcome:
    if cause.status is Status.ITEM:
        return Outcome(Status.SKIPPED, root=link.step, reason=f"not in {link}: {link.step} accepted it", weight=0)
    root = cause.root or link.step
    return Outcome(Status.SKIPPED, root=root, reason=cause.reason, weight=0)


def passed_keys(node: Node, inputs: Mapping[str, tuple[str, ...]], *, accepted: bool) -> dict[str, str]:
    """Return what a filter or gate passes on: the keys of its inputs, unchanged."""
    single = {port.name: inputs[port.name][0] for port in node.type.ports if not port.many and inputs.get(port.name)}
    if not node.type.is_filter:
        return {"out": single["items"]}
    first = next(iter(inputs.get(node.type.ports[0].name, ())), None)  # of several streams, the first that has an item
    own = {"out": first} if first else {}
    if accepted:
        return {**own, **single}
    return {**({"rejected": first} if first else {}), **{f"rejected.{port}": key for port, key in single.items()}}


def first_weight(node: Node, outcomes: Mapping[str, Outcome]) -> int:
    """Return the largest weight among the inputs: a set of particles counts its particles beside a micrograph.

    Of a filter only what it passes on counts: of several streams the first that has an item, and no list that is looked at only.
    """
    weights = [outcomes[link.step].weight for link in _weighed_links(node, outcomes) if link.step in outcomes]
    return max(weights, default=1)


def _weighed_links(node: Node, outcomes: Mapping[str, Outcome]) -> list[Link]:
    lists = node.list_ports if node.type.is_filter else frozenset()
    weighed = [link for port, links in node.item_links.items() if port not in lists for link in links]
    first = node.type.ports[0].name if node.type.ports else ""
    if first in lists:
        candidates = node.item_links.get(first, ())
        present = (link for link in candidates if link.step in outcomes and _offered_keys(outcomes[link.step], link.output))
        weighed += [link for link in [next(present, None)] if link is not None]
    return weighed


def member_keys(inputs: Mapping[str, tuple[str, ...]]) -> Keys:
    """Return port → key for a member of a batch or of an accumulator's log."""
    return {port: keys[0] for port, keys in inputs.items() if keys}
