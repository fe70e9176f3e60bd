"""What people asked for, as the history tells it."""

import json
from typing import Any

import pytest

from icestream.observe.people import describe_command


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("remove", {"steps": ["ctf", "picks"], "kinds": ["particles"], "reason": "full"}, "remove particles ctf picks (full)"),
        ("remove", {"kinds": [], "steps": [], "rejected": True}, "remove rejected"),
        ("change_steps", {"steps": {"ctf": None, "ctf_2": {"use": "ctf"}}}, "change steps ctf (removed) ctf_2"),
        ("set", {"step": "ctf", "params": {"box": 512}}, "set ctf box=512"),
        ("override", {"unit": "u1", "step": "ctf", "verdict": "accept"}, "accept mic_1 ctf"),
    ],
)
def test_a_command_is_told_as_short_as_it_was_typed(kind: str, arguments: dict[str, Any], said: str) -> None:
    assert describe_command(kind, json.dumps(arguments), {"u1": "mic_1"}) == said
