"""Who may hold how much of a machine: pure functions of what every runner holds and wants.

Tokens are ``{name: amount}``. ``cores``, ``memory_gb`` and ``gpu_gb`` (the memory of all GPUs together) are shared out; ``gpu0``,
``gpu1``, … are the memory of one GPU each and only have room or not. Two ideas meet here: max-min fairness decides how much
everybody may hold (what one does not want, others get), and the time served, measured by the scarcest of the resources a runner
holds (dominant resource fairness), decides whose turn it is when a task is too big for what is free.

References
----------
Ghodsi et al., Dominant Resource Fairness, NSDI 2011; Bertsekas and Gallager, Data Networks, 1992, section 6.5.2 (max-min).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Tokens = Mapping[str, float]

SHARED = ("cores", "memory_gb", "gpu_gb")
_TINY = 1e-6
_QUANTUM_S = 1.0


@dataclass(frozen=True)
class Claim:
    """What one runner holds, what it would hold if it could, and what it waits for."""

    held: Tokens = field(default_factory=dict)
    wanted: Tokens = field(default_factory=dict)
    need: Tokens = field(default_factory=dict)
    """A task that is due and has no room: those who were served more leave room for it."""
    served_s: float = 0.0
    order: int = 0

    @property
    def turn(self) -> tuple[float, int]:
        """The smaller comes first."""
        return (self.served_s, self.order)


@dataclass(frozen=True)
class Grant:
    """How much a runner may hold now; what a refused task lacks; the task that others are asked to leave room for."""

    limit: Tokens
    lacking: frozenset[str] = frozenset()
    need: Tokens = field(default_factory=dict)


def plus(first: Tokens, second: Tokens) -> dict[str, float]:
    """Return the sum of two lists of tokens."""
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in {**first, **second}}


def beyond(wanted: Tokens, limit: Tokens) -> frozenset[str]:
    """Return the names of what ``wanted`` has more of than ``limit`` allows."""
    return frozenset(name for name, amount in wanted.items() if amount > limit.get(name, 0.0) + _TINY)


def dominant_part(held: Tokens, capacity: Tokens) -> float:
    """Return the largest part of any resource of the machine that ``held`` is."""
    return max((held.get(name, 0.0) / capacity[name] for name in SHARED if capacity.get(name)), default=0.0)


def share_out(capacity: float, demands: Sequence[float]) -> list[float]:
    """Return max-min fair shares: nobody gets more than they want, and what they leave is shared out among the others."""
    shares = [0.0] * len(demands)
    left, order = capacity, sorted(range(len(demands)), key=lambda index: demands[index])
    for served, index in enumerate(order):
        shares[index] = min(demands[index], left / (len(order) - served))
        left -= shares[index]
    return shares


def share_of(name: str, capacity: float, me: Claim, others: Sequence[Claim]) -> float:
    """Return my share of one resource; cores come whole, and the remainder goes to those who were served least.

    The remainder changes hands after about a second of service, not at every task: what changes hands lies idle meanwhile.
    """
    claims = [me, *others]
    shares = share_out(capacity, [max(claim.wanted.get(name, 0.0), claim.held.get(name, 0.0)) for claim in claims])
    if name != "cores":
        return shares[0]
    whole = [int(share + _TINY) for share in shares]
    left = int(sum(shares) + _TINY) - sum(whole)
    order = sorted(range(len(claims)), key=lambda index: (claims[index].served_s // _QUANTUM_S, claims[index].order))
    unserved = [index for index in order if whole[index] < shares[index] - _TINY]
    return whole[0] + (1 if 0 in unserved[:left] else 0)


def grant(capacity: Tokens, me: Claim, others: Sequence[Claim], *, running: Tokens, ask: Tokens, bulk: bool = True) -> Grant:
    """Decide how much I may hold.

    Parameters
    ----------
    capacity
        What the machine has.
    me, others
        The claims; of mine only ``wanted``, ``served_s`` and ``order`` count.
    running
        What my running tasks hold.
    ask
        What the task holds that I would start next; empty if none waits.
    bulk
        Allow what I want, for a moment, so that not every task has to ask. Who was refused something holds only what runs.

    Returns
    -------
    Grant
        The limit may be below ``running``: then nothing more may start as tasks end. It goes beyond the fair share only for what
        nobody else wants, or for one task: a first task always starts when it has room, and up to my share of the cores also when
        others have borrowed them.
    """
    prior = [claim.need for claim in others if claim.need and claim.turn < me.turn]
    taken = {name: sum(claim.held.get(name, 0.0) for claim in others) for name in capacity}
    kept = {name: sum(need.get(name, 0.0) for need in prior) for name in capacity}
    room = {name: max(0.0, amount - taken[name] - kept[name]) for name, amount in capacity.items()}
    mine = Claim(running, plus(me.wanted, {}), {}, me.served_s, me.order)
    shares = {name: share_of(name, capacity[name], mine, others) for name in SHARED if name in capacity}
    limit = {name: min(room[name], shares.get(name, room[name]), me.wanted.get(name, 0.0)) for name in capacity}
    only_running = {name: min(amount, running.get(name, 0.0)) for name, amount in limit.items()}
    if not ask:
        return Grant(limit if bulk else only_running)
    first, total = not running.get("cores"), plus(running, ask)
    short = beyond(total, room)
    over = {
        name for name in beyond(total, shares) if name in shares and (name == "cores" or running.get(name, 0.0) >= shares[name])
    }
    borrowed = first and short <= {"cores"} and not prior and total.get("cores", 0.0) <= max(1.0, shares.get("cores", 0.0))
    if borrowed or (not short and (first or not over)):
        return Grant({name: max(limit[name], total.get(name, 0.0)) for name in limit})
    need = dict(ask) if first else {name: ask.get(name, 0.0) for name in short - over}  # the rest comes from what I hold
    return Grant(only_running, short | over, need if short else {})
