"""Asking a gate, a batch or an accumulator for its verdict; a rule that fails holds the stream and says why."""

from collections.abc import Callable

from icestream.flow.declaration import CallFailure, Progress, Verdict, call_step, reject, wait
from icestream.flow.workflow import Node

Judges = Callable[[Node], tuple[Callable[[Progress], Verdict], int]]
"""What gives the verdict function of a gate, batch or accumulator, and how many members it takes at once."""


def judge_for(node: Node) -> tuple[Callable[[Progress], Verdict], int]:
    """Return the verdict function of a node, and how many members an accumulator takes at once."""
    params = node.type.params.model_validate(node.params)
    portion = 1
    if node.type.accumulates:
        accumulator = node.type.call()
        portion = accumulator.portion

        def decide(progress: Progress) -> object:
            return call_step(accumulator.when, progress, params)
    else:
        names = {role: argument for argument, role in node.type.arguments.items()}

        def decide(progress: Progress) -> object:
            given = {names[role]: value for role, value in (("progress", progress), ("params", params)) if role in names}
            return call_step(node.type.call, **given)

    def judge(progress: Progress) -> Verdict:
        answer = decide(progress)
        if isinstance(answer, CallFailure):
            return wait(f"its rule failed: {answer.message}")
        return answer if isinstance(answer, Verdict) else wait(f"its rule gave {answer!r}, which is not a verdict")

    return judge, portion


def admission_for(node: Node) -> Callable[[str], Verdict] | None:
    """Return what keeps or rejects each exposure at a gate by its id, if there is such a rule; one that fails rejects."""
    admit = node.type.admit
    if admit is None:
        return None
    params = node.type.params.model_validate(node.params)

    def decide(unit: str) -> Verdict:
        answer = call_step(admit, unit, params)
        if isinstance(answer, CallFailure):
            return reject(f"its rule failed: {answer.message}")
        return answer if isinstance(answer, Verdict) else reject(f"its rule gave {answer!r}, which is not a verdict")

    return decide
