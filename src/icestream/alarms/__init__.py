"""Monitors and alarms: rules as data, what is seen of a session and its machine, and what is told to whom.

`rules` and `document` are what people write, `observations` what is seen. `evaluate` is a pure function of state, observations
and time, with a judgement for each kind of rule in `judging`; `notify` decides, as purely, who is told when. `alarm_store` keeps
all of it in a small database of its own, `machine` samples the machine, and `delivery` sends.
"""
