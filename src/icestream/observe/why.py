"""What a session, a step or an exposure is waiting for, in plain sentences."""

import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from icestream.observe import waiting
from icestream.observe.activity import read_program_notices
from icestream.observe.order import ActiveRevision, works_on_exposures
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.summary import read_not_taken
from icestream.observe.tracing import Trace, TracedStep
from icestream.observe.waiting import Facts, Lease, Trouble
from icestream.observe.wording import span

_HOLDING = ("gate", "collect", "accumulate")


@dataclass(frozen=True)
class Explanation:
    """One sentence about one step, or about the whole session."""

    step: str | None
    sentence: str


def why_session(view: SessionView, steps: Sequence[StepSummary] | None = None) -> list[Explanation]:
    """Return what holds the whole session, and a sentence for every step; ``steps`` are those of the view, if they are read."""
    facts = gather(view, steps)
    return [*_whole(facts), *(one for step in facts.steps for one in _of_step(facts, step))]


def why_step(view: SessionView, step: str) -> list[Explanation]:
    """Return what a step is waiting for, and what that is waiting for, down to the root."""
    facts = gather(view)
    return [*_whole(facts), *(one for name in _chain(facts, step) for one in _of_step(facts, name))]


def _of_step(facts: Facts, name: str) -> Iterator[Explanation]:
    """Say what a step is waiting for, and what is to be known of the programs it runs."""
    yield Explanation(name, say_step(facts, name))
    yield from (Explanation(name, told) for told in facts.programs.get(name, []))


def why_exposure(view: SessionView, name: str) -> list[Explanation]:
    """Return what an exposure is waiting for: a sentence for each step that has not decided it, and how the others ended.

    Raises
    ------
    SessionError
        Nothing, or more than one exposure, is called so.
    """
    facts, trace = gather(view), view.trace(name)
    with view.reading() as connection:
        revisions = {} if connection is None else view.revisions(connection)
        troubles = {} if connection is None else waiting.read_troubles(connection, trace.unit, revisions)
        its_own = [step for step in trace.steps if step.status is None and _decides(facts, revisions, step.step)]
        before = {
            step.step: waiting.count_before(connection, revisions[step.step], trace.ordinal)
            for step in its_own
            if connection is not None and trace.ordinal is not None
        }
    decided = {step.step: step for step in trace.steps if step.status is not None}
    said = [*_whole(facts)] if its_own else []
    for step in its_own:
        lease = next((one for one in facts.leases if (one.step, one.unit) == (step.step, trace.unit)), None)
        text = _say_open(facts, step, decided, lease, troubles.get(step.step), before.get(step.step, 0))
        said.append(Explanation(step.step, text))
    return [*said, *_say_settled(trace, waits=bool(its_own))]


def _decides(facts: Facts, revisions: dict[str, ActiveRevision], step: str) -> bool:
    """Tell whether a step decides exposures one by one, rather than batches or versions of a whole."""
    wholes = frozenset(revisions[name].id for name in facts.versions)
    return revisions[step].kind == "source" or works_on_exposures(step, revisions, wholes)


def gather(view: SessionView, read: Sequence[StepSummary] | None = None) -> Facts:
    """Return everything that the sentences are made of; ``read`` are the steps of the view, where they are known."""
    overview, steps = view.overview(), {step.name: step for step in (view.steps() if read is None else read)}
    with view.reading() as connection:
        revisions = {} if connection is None else view.revisions(connection)
        return Facts(
            runner=overview.runner,
            pause=overview.pause,
            here=socket.gethostname(),
            steps=steps,
            links={name: revision.links for name, revision in revisions.items()},
            notes={} if connection is None else waiting.read_notes(connection),
            marks={name: step.marks for name, step in steps.items()},
            leases=() if connection is None or not overview.runner.alive else waiting.read_leases(connection, revisions),
            not_taken={} if connection is None else read_not_taken(connection, revisions),
            versions=frozenset() if connection is None else waiting.read_versions(connection, revisions),
            programs={} if connection is None else read_program_notices(connection),
        )


def _whole(facts: Facts) -> Iterator[Explanation]:
    """Say what concerns everything: no runner, a pause, a runner elsewhere."""
    runner = facts.runner
    if runner.state == "not started":
        yield Explanation(None, "it has not been run yet: start it with `icestream run`")
    elif runner.state == "finished":
        yield Explanation(None, "it is finished: every stream has closed; `icestream run` takes what arrives later")
    elif runner.state == "stopped":
        yield Explanation(None, f"no runner is running ({runner.note or 'it was stopped'}): continue with `icestream run`")
    elif runner.state == "interrupted":
        age = f"; its last sign of life was {span(runner.heartbeat_age_s)} ago" if runner.heartbeat_age_s is not None else ""
        yield Explanation(
            None, f"its runner on {runner.host} (process {runner.pid}) has died{age}: continue with `icestream run`"
        )
    elif runner.silence is not None:
        yield Explanation(None, f"its runner on {runner.host} (process {runner.pid}) {runner.silence}")
    elif runner.host != facts.here:
        yield Explanation(None, f"it is being processed on {runner.host}, not here, by process {runner.pid}")
    if facts.pause is not None:
        yield Explanation(None, facts.pause.sentence)


def say_step(facts: Facts, name: str) -> str:
    """Return in one sentence what a step is waiting for."""
    step, marks, note = facts.steps[name], facts.marks[name], facts.notes.get(name, "")
    if step.revision is None:
        return "no runner has seen this step yet"
    if marks.drained is not None:
        return f"takes nothing new: {marks.drained}"
    watches = step.kind == "source" and facts.runner.alive and note
    if step.stream == "closed" and not step.counts.running and not step.counts.waiting and not watches:
        return f"has finished ({step.stream_reason}); {_ended(step)}{_say_not_taken(facts, name)}"
    if watches:
        return f"is waiting for new files: {note}"
    if step.kind == "source":
        return f"is waiting for new files{_say_not_taken(facts, name)}"
    at_work = [lease for lease in facts.leases if lease.step == name]
    parts = [_say_work(at_work)] if at_work else []
    parts += list(_say_waiting(facts, name, note))
    return "; ".join(parts) or "has decided everything that arrived"


def _say_not_taken(facts: Facts, name: str) -> str:
    """Say what a source cannot take; what it says itself while it runs names that, too."""
    reasons = facts.not_taken.get(name, {})
    first = min(reasons, default="")
    return f"; {len(reasons)} cannot be taken: {first}: {reasons[first]}{' …' if len(reasons) > 1 else ''}" if reasons else ""


def _ended(step: StepSummary) -> str:
    counts = step.counts
    parts = (
        (counts.item, "done"),
        (counts.failed, "failed"),
        (counts.rejected, "set aside"),
        (counts.skipped, "skipped"),
        (counts.absent, "left out when it closed"),
    )
    return ", ".join(f"{count} {word}" for count, word in parts if count) or "nothing arrived"


def _say_work(leases: list[Lease]) -> str:
    oldest = leases[0]
    more = f" and {len(leases) - 1} more" if len(leases) > 1 else ""
    return f"has been working for {span(max(0.0, time.time() - oldest.started_at))} on {oldest.name} in {oldest.worker}{more}"


def _say_waiting(facts: Facts, name: str, note: str) -> Iterator[str]:
    step = facts.steps[name]
    unpublished = _unpublished(facts, name)
    inputs = _inputs(facts, name)
    decided = min((facts.steps[one].counts.decided for one in inputs), default=0)
    ready = max(0, decided - step.counts.decided - (step.counts.running if step.kind not in _HOLDING else 0))
    late = max(0, step.counts.waiting - ready)
    if unpublished:
        yield f"is waiting for the first version of {' and of '.join(unpublished)}"
    elif step.kind in _HOLDING and ready:
        yield f"is holding {ready}: {note or _unsaid(step)}"
    elif ready:
        yield _say_queue(facts, name, ready)
    if late and inputs:
        slowest = min(inputs, key=lambda one: facts.steps[one].counts.decided)
        yield f"{late} {'is' if late == 1 else 'are'} waiting for {slowest}"


def _say_queue(facts: Facts, name: str, ready: int) -> str:
    queued = f"{ready} {'is' if ready == 1 else 'are'} queued"
    elsewhere = Counter(lease.step for lease in facts.leases if lease.step != name)
    if not elsewhere:
        return queued
    busy = ", ".join(f"{step} ({count})" for step, count in elsewhere.most_common(3))
    return f"{queued} for free cores, which are held by {busy}"


def _inputs(facts: Facts, name: str) -> list[str]:
    """Return the steps whose items a step takes, one for each exposure (versions of a whole are not waited for one by one)."""
    links = [link.partition(".") for group in facts.links.get(name, {}).values() for link in group]
    return list(dict.fromkeys(step for step, _, output in links if step in facts.steps and not _is_whole(facts, step, output)))


def _is_whole(facts: Facts, step: str, output: str) -> bool:
    return not output and (facts.steps[step].kind == "accumulate" or step in facts.versions)


def _unpublished(facts: Facts, name: str) -> list[str]:
    links = [link.partition(".") for group in facts.links.get(name, {}).values() for link in group]
    return [
        step
        for step, _, output in links
        if step in facts.steps and facts.steps[step].kind == "accumulate" and not output and step not in facts.versions
    ]


def _chain(facts: Facts, name: str) -> list[str]:
    """Return a step and those it waits for, one after another, to the root of the cause."""
    chain = [name]
    while True:
        above = [*_unpublished(facts, chain[-1]), *_inputs(facts, chain[-1])]
        behind = [one for one in above if one not in chain and not _is_done(facts, one)]
        if not behind or _is_done(facts, chain[-1]):
            return chain
        chain.append(min(behind, key=lambda one: facts.steps[one].counts.decided))


def _is_done(facts: Facts, name: str) -> bool:
    step = facts.steps[name]
    return step.stream == "closed" and not step.counts.waiting and not step.counts.running


def _say_open(
    facts: Facts, step: TracedStep, decided: dict[str, TracedStep], lease: Lease | None, trouble: Trouble | None, before: int
) -> str:
    """Return why one step has not decided an exposure."""
    name = step.step
    if lease is not None:
        return f"has been working on it for {span(max(0.0, time.time() - lease.started_at))} in {lease.worker}"
    missing = [one for one in _inputs(facts, name) if one not in decided]
    if missing:
        return f"is waiting for {' and '.join(missing)}"
    held = _say_held(facts, name)
    if held is not None:
        return held
    if trouble is not None and trouble.delay_s is not None:
        times = "once" if trouble.count == 1 else f"{trouble.count} times"
        return f"failed {times} ({trouble.message}) and is retried after {trouble.delay_s:g} s"
    return f"is queued behind {before} other{'s' * (before > 1)}" if before else "is queued and is next"


def _say_held(facts: Facts, name: str) -> str | None:
    """Return what keeps a step from taking an exposure whose inputs are there."""
    if facts.marks[name].drained is not None:
        return f"takes nothing new: {facts.marks[name].drained}"
    if _unpublished(facts, name):
        return f"is waiting for the first version of {' and of '.join(_unpublished(facts, name))}"
    if facts.steps[name].kind in _HOLDING:
        return f"is holding it: {facts.notes.get(name) or _unsaid(facts.steps[name])}"
    return None


def _unsaid(step: StepSummary) -> str:
    """Return what is to be said of a step that holds exposures and has told no reason."""
    return "it takes them together" if step.kind == "accumulate" else "its rule gives no reason"


def _say_settled(trace: Trace, *, waits: bool) -> Iterator[Explanation]:
    """Say how the steps that have decided ended, the good ones together."""
    done = [step.step for step in trace.steps if step.status == "item"]
    if not waits:
        result = f"with a result of {', '.join(done)}" if done else "without a result"
        yield Explanation(None, f"has been decided by every step, {result}")
    elif done:
        yield Explanation(None, f"has a result of {', '.join(done)}")
    for step in trace.steps:
        if step.own is not None:
            yield Explanation(step.step, step.own.sentence)
        if step.status in ("rejected", "failed", "absent"):
            yield Explanation(step.step, f"{step.status}: {step.reason or 'no reason was given'}")
        elif step.status == "skipped":
            yield Explanation(step.step, f"skipped because of {step.root}: {step.reason or 'no reason was given'}")
