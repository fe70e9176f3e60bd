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
