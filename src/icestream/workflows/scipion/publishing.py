"""The command by which Scipion published its report, as what `report.yaml` says of ours."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

_FOLDER = "%(REPORT_FOLDER)s"
_SHELL = frozenset("|&;<>()$`\\*?~\n")
"""What only a shell understands."""


def tell_publishing(raw: Mapping[str, Any]) -> list[str]:
    """Return what to write into the facility's `report.yaml` for the command of a monitor; nothing where it has none."""
    text = str(raw.get("publishCmd") or "").strip()
    if not text:
        return []
    where = "in the facility's report.yaml (setting ICESTREAM_REPORT_TEMPLATES)"
    plain = text.replace(_FOLDER, "")
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or _SHELL & set(plain.replace("'", "").replace('"', "")):
        return [f"publishing needed a shell ({text}): put it into a script, and name that as `publish` {where}"]
    command = json.dumps([word.replace(_FOLDER, "{folder}") for word in words], ensure_ascii=False)
    return [f"to publish the report, write `publish: {{command: {command}}}` {where}"]
