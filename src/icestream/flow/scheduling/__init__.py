"""The scheduler: ``(state, event) → instructions``, pure; no input, output or clock.

=================  ================================================================================================
`scheduler`        units on their way through the steps: joining, settling, releasing, closing; the check of all state
`transitions`      what each event means for each kind of step, as one table
`stage`            a unit, a step, what all kinds of step share, and `Core`, what a step may ask of the scheduler
`rules`            events that mean the same for most kinds
`source`           sources
`computing`        maps and filters; maps that are fed by snapshots alone
`collecting`       what gates, batches and accumulators share: units wait there until a rule says that there are enough
`gate`             gates
`batch`            batches
`accumulator`      accumulators and their logs
=================  ================================================================================================

`joins`, `deciding`, `overriding`, `retry` and `draining` are pure functions and values that the above use.
"""

from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling import instruction_types as instructions
from icestream.flow.scheduling.accumulator import TAKEN, Accumulating, Entry
from icestream.flow.scheduling.batch import Batch, batch_id, batch_unit
from icestream.flow.scheduling.collecting import Timed
from icestream.flow.scheduling.computing import VersionRuns
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.event_types import Absorbed, Decided, Event, Overridden, Retried, Tick
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.instruction_queue import InstructionQueue
from icestream.flow.scheduling.instruction_types import Consume, Dispatch, Instruction, NoticeCause, Notify, Settle
from icestream.flow.scheduling.joins import first_weight, passed_keys
from icestream.flow.scheduling.overriding import ManualVerdict, Overrides, may_override, source_outcome
from icestream.flow.scheduling.retry import retry_delay_s
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.scheduling.source import Source
from icestream.flow.scheduling.stage import Inputs, Stage, Unit

__all__ = [
    "TAKEN",
    "Absorbed",
    "Accumulating",
    "Batch",
    "Cause",
    "Consume",
    "Decided",
    "Dispatch",
    "DrainReason",
    "Entry",
    "Event",
    "Gate",
    "Inputs",
    "Instruction",
    "InstructionQueue",
    "ManualVerdict",
    "NoticeCause",
    "Notify",
    "Overridden",
    "Overrides",
    "Retried",
    "Scheduler",
    "Settle",
    "Source",
    "Stage",
    "Tick",
    "Timed",
    "Unit",
    "VersionRuns",
    "batch_id",
    "batch_unit",
    "events",
    "first_weight",
    "instructions",
    "judge_for",
    "may_override",
    "passed_keys",
    "retry_delay_s",
    "source_outcome",
]
