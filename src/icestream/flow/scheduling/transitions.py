"""What each event means for each kind of step: the scheduler's machine, as one table.

A rule is a method of the kind, or one of `rules` where most kinds share it; its docstring says what it does. ``ignored`` stands
where an event can only be a late word about a step that has been edited into another kind since, or where a person was told that
there is nothing to do.
"""

from collections.abc import Callable, Mapping
from typing import Any

from icestream.flow.declaration import Kind
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling import rules
from icestream.flow.scheduling.accumulator import Accumulating
from icestream.flow.scheduling.batch import Batch
from icestream.flow.scheduling.computing import Computing, VersionRuns
from icestream.flow.scheduling.deciding import Judges, admission_for
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.source import Source
from icestream.flow.scheduling.stage import Core, Stage
from icestream.flow.workflow import Node

Rule = Callable[[Any, Core, Any], None]
"""``(stage, core, event)``: the stage is of the kind, the event of the type, under which the rule stands."""


def ignored(_stage: Stage, _core: Core, _event: events.StepEvent) -> None:
    """Do nothing."""


_COLUMNS = (Kind.SOURCE, Kind.MAP, Kind.FILTER, Kind.GATE, Kind.COLLECT, Kind.ACCUMULATE)

_ROWS: dict[type, tuple[Rule, ...]] = {
    # event              source             map                  filter               gate             collect          accumulate
    events.Arrived: (Source.arrived, ignored, ignored, ignored, ignored, ignored),
    events.Revised: (Source.revised, ignored, ignored, ignored, ignored, ignored),
    events.SourceClosed: (Source.ended, ignored, ignored, ignored, ignored, ignored),
    events.Troubled: (Source.troubled, ignored, ignored, ignored, ignored, ignored),
    events.Published: (Source.published, rules.published, ignored, ignored, ignored, rules.published),
    events.Decided: (ignored, Computing.answered, Computing.answered, ignored, ignored, ignored),
    events.Failed: (ignored, rules.failed, rules.failed, ignored, ignored, rules.failed),
    events.Withdrawn: (ignored, Computing.withdrawn, Computing.withdrawn, ignored, ignored, ignored),
    events.Absorbed: (ignored, ignored, ignored, ignored, ignored, Accumulating.absorbed),
    events.Retried: (ignored, rules.retried, rules.retried, rules.retried, rules.retried, rules.retried),
    events.Overridden: (Source.overridden, rules.overridden, rules.overridden, rules.overridden, ignored, ignored),
    events.Released: (ignored, ignored, ignored, Gate.released, Batch.released, ignored),
    events.Drained: (rules.drained, rules.drained, rules.drained, rules.drained, rules.drained, rules.drained),
    events.Resumed: (rules.resumed, rules.resumed, rules.resumed, rules.resumed, rules.resumed, rules.resumed),
}

TRANSITIONS: Mapping[type, Mapping[Kind, Rule]] = {
    event: dict(zip(_COLUMNS, rules, strict=True)) for event, rules in _ROWS.items()
}
"""``event → kind → rule``. `events.Tick` belongs to no step: `Scheduler.tick` tries what is due and asks by time."""


def stage_for(node: Node, judges: Judges) -> Stage:
    """Return the state of a step before anything has happened."""
    match node.type.kind:
        case Kind.SOURCE:
            return Source(node)
        case Kind.MAP | Kind.FILTER:
            return VersionRuns(node) if node.fed_by_versions else Computing(node)
        case Kind.GATE:
            return Gate(node, judge=judges(node)[0], admit=admission_for(node))
        case Kind.COLLECT:
            return Batch(node, judge=judges(node)[0])
        case Kind.ACCUMULATE:
            judge, portion = judges(node)
            return Accumulating(node, judge=judge, portion=portion)
