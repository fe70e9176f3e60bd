"""Many sessions on one facility: what watches acquisition folders, makes their sessions and keeps their runners.

It knows sessions only from outside: their folders, their views, and runners as processes. What a watch decides is pure
(`watch_decisions`) and written to a file before anything is done (`watch_state`); `watch` looks and acts.
"""
