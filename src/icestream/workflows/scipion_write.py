"""Writing an imported workflow as a YAML document.

What has no equivalent stands in comments. A section of its own would make the workflow model accept keys that nothing reads,
so that a misspelt step could no longer be told from one that was set aside; a comment changes nothing that runs.
"""

import json
import shlex
from collections.abc import Iterable

import yaml

from icestream.flow.graph import StepSpec
from icestream.workflows.scipion_sources import ACQUISITION
from icestream.workflows.scipion_translate import AskedField, Row, Translation

_WIDTH = 110


def write_workflow(translation: Translation, *, file_name: str = "workflow.yaml") -> str:
    """Return the text of a workflow file; ``file_name`` is what the file will be called."""
    rows = {row.step: row for row in translation.rows if row.step is not None}
    lines = [*_head(translation, file_name), "steps:" if translation.steps else "steps: {}"]
    for name, spec in translation.steps.items():
        lines += [*(_about(rows[name]) if name in rows else ()), *_step(name, spec)]
    left = [row for row in translation.rows if row.step is None]
    if left:
        lines += ["", "# Protocols of Scipion that are no steps of this workflow, as they were exported"]
        for row in left:
            lines += ["#", *_comment(f"{_title(row)}\n{row.outcome}: {'; '.join(row.notes)}")]
            lines += _comment(json.dumps(row.protocol.raw, indent=2))
    return "\n".join(lines) + "\n"


def new_command(translation: Translation, *, file_name: str) -> str:
    """Return the ``icestream new`` command that makes a session with the workflow; capitals are to be filled in."""
    words = ["icestream new SESSION --workflow", shlex.quote(file_name)]
    for option, value in translation.options.items():
        joint = "=" if " " in option else " "
        words.append(f"{option}{joint}{_placeholder(option) if value is None else shlex.quote(value)}")
    return " ".join(words)


def _placeholder(option: str) -> str:
    if option.startswith("--set "):
        return "'[SMALLEST,LARGEST]'"
    return {"--diameter": "SMALLEST LARGEST", "--gain": "FILE"}.get(
        option, "VALUE" if option in ACQUISITION.values() else "FOLDER"
    )


def describe_field(asked: AskedField) -> str:
    """Return a field of a template in one line: where it stood, its label, type, default and name, and what it is now."""
    told = asked.asked
    facts = [told.type, f"default {told.default}" if told.default is not None else "no default"]
    if told.cmd_id:
        facts.append(f"name {told.cmd_id}")
    return f"{asked.protocol}.{asked.parameter}: {told.label!r} ({', '.join(facts)}) is now {asked.target or 'not asked for'}"


def _head(translation: Translation, file_name: str) -> list[str]:
    document = translation.document
    lines = _comment(f"Imported from Scipion's {document.name}")
    if document.description:
        lines += ["#", *_comment(document.description)]
    lines += [
        "#",
        *_comment(f"A session with it; what is in capitals is to be filled in:\n{new_command(translation, file_name=file_name)}"),
    ]
    if translation.fields:
        lines += ["#", *_comment("Fields that the template asked for; their defaults were taken:")]
        lines += [line for asked in translation.fields for line in _comment(f"  {describe_field(asked)}")]
    for problem in translation.problems:
        lines += ["#", *_comment(f"It does not run yet: {problem}")]
    return [*lines, ""]


def _about(row: Row) -> list[str]:
    lines = ["", *_comment(_title(row), indent=2)]
    if row.protocol.comment:
        lines += _comment(row.protocol.comment, indent=2)
    lines += [line for note in row.notes for line in _comment(f"- {note}", indent=2)]
    if row.kept:
        lines += _comment("parameters without a counterpart: " + json.dumps(row.kept), indent=2)
    return lines


def _title(row: Row) -> str:
    return f"Scipion {row.protocol.id}, {row.protocol.class_name}: {' '.join(row.protocol.label.split())}"


def _step(name: str, spec: StepSpec) -> Iterable[str]:
    entries = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    ordered = {key: entries[key] for key in ("use", "label", "in", "params") if key in entries}
    yield f"  {name}:"
    for key, value in ordered.items():
        style = None if isinstance(value, dict) else False
        text = yaml.safe_dump({key: value}, default_flow_style=style, allow_unicode=True, sort_keys=False, width=_WIDTH)
        yield from (f"    {line}" for line in text.rstrip("\n").split("\n"))


def _comment(text: str, *, indent: int = 0) -> list[str]:
    """Return comment lines."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return [f"{' ' * indent}# {line}".rstrip() for line in visible(plain).split("\n")]


def visible(text: str) -> str:
    """Return text with escapes for what YAML takes for a line break or refuses, and for what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text)
