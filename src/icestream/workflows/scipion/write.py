"""Writing an imported workflow as a template.

Protocols that are no steps stand under ``disabled``, with their original parameters; what else a person should know stands in
comments, which change nothing that runs.
"""

import json
import shlex
from collections.abc import Iterable, Mapping

import yaml

from icestream.workflows.scipion.sources import ACQUISITION
from icestream.workflows.scipion.template import make_template
from icestream.workflows.scipion.translation import AskedField, Row, Translation
from icestream.workflows.template import Template, TemplateStep

_WIDTH = 110


def write_workflow(translation: Translation, *, file_name: str = "workflow.yaml") -> str:
    """Return the text of a template file; ``file_name`` is what the file will be called."""
    rows = {row.step: row for row in translation.rows if row.step is not None}
    made = make_template(translation)
    template = made.template
    lines = [*_head(translation, made.names, file_name), *_sections(template, "placeholders", "acquisition", "roots")]
    lines += ["steps:" if template.steps else "steps: {}"]
    for name, spec in template.steps.items():
        lines += [*(_about(rows[name]) if name in rows else ()), *_step(name, spec)]
    return "\n".join([*lines, *_sections(template, "alarms", "disabled")]) + "\n"


def _sections(template: Template, *names: str) -> Iterable[str]:
    """Yield sections of the document as safe YAML."""
    if not template.steps and "disabled" not in names:
        return
    data = template.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    for name in names:
        if data.get(name):
            text = yaml.safe_dump({name: data[name]}, sort_keys=False, allow_unicode=name != "disabled", width=_WIDTH)
            yield from ("", *text.rstrip("\n").split("\n"), *([""] if name == "roots" else []))


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


def describe_field(asked: AskedField, name: str | None = None) -> str:
    """Return a field of a template in one line: where it stood, its label, type, default and name, and what it is now.

    ``name`` is the placeholder that it became.
    """
    told = asked.asked
    facts = [told.type, f"default {told.default}" if told.default is not None else "no default"]
    if told.cmd_id:
        facts.append(f"name {told.cmd_id}")
    own = asked.target if asked.target is not None and not asked.target.startswith("--set ") else None
    now = own or (f"--set {name}" if name is not None else asked.target) or "not asked for"
    return f"{asked.protocol}.{asked.parameter}: {told.label!r} ({', '.join(facts)}) is now {now}"


def _head(translation: Translation, names: Mapping[tuple[str, str], str], file_name: str) -> list[str]:
    document = translation.document
    lines = _comment(f"Imported from Scipion's {document.name}")
    if document.description:
        lines += ["#", *_comment(document.description)]
    lines += [
        "#",
        *_comment(f"A session with it; what is in capitals is to be filled in:\n{new_command(translation, file_name=file_name)}"),
    ]
    if translation.fields:
        lines += ["#", *_comment("Fields that the template asked for, and what asks for them now:")]
        told = [describe_field(asked, names.get((asked.protocol, asked.parameter))) for asked in translation.fields]
        lines += [line for text in told for line in _comment(f"  {text}")]
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


def _step(name: str, spec: TemplateStep) -> Iterable[str]:
    entries = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    ordered = {key: entries[key] for key in ("use", "only_with", "label", "in", "params", "after") if key in entries}
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
