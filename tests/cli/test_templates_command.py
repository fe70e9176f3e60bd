import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from icestream.cli import app, prompting
from icestream.flow.storage.session import open_session
from icestream.workflows import load_template, read_template
from toys.session import TOYS

NUMBERS = f"""# Numbers, doubled
placeholders:
  folder: {{label: Folder of numbers, type: folder}}
  count: {{label: How many, type: int, ge: 1, le: 9, help: As many as there are., default: 2, group: Numbers}}
  factor: {{label: Factor, type: int, optional: true, advanced: true, group: Numbers, unit: px}}
roots: {{numbers: {{ask: folder}}}}
steps:
  numbers: {{use: "{TOYS}:count_numbers", params: {{stop_after: {{ask: count}}}}}}
  double: {{use: "{TOYS}:multiply", in: {{number: numbers}}, params: {{factor: {{ask: factor}}}}}}
"""


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.yaml"
    path.write_text(NUMBERS, encoding="utf-8")
    return path


def _ask(*answers: str, **given: Any) -> tuple[dict[str, Any], str, list[str]]:
    questions: list[str] = []
    left: Iterator[str] = iter(answers)

    def read(question: str) -> str:
        questions.append(question)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    shown = io.StringIO()
    console = Console(file=shown, width=200)
    values = prompting.ask_for_values(read_template(NUMBERS, origin="x"), given, settings={}, read=read, console=console)
    return values, shown.getvalue(), questions


def test_a_person_is_asked_by_group_with_unit_and_default() -> None:
    values, shown, questions = _ask("/data", "", "y", "12", "")
    assert values == {"folder": "/data", "count": 2, "factor": 12}
    assert questions[:4] == [
        "Folder of numbers: ",
        "How many [2]: ",
        "Also set the advanced values (1)? [y/N] ",
        "Factor in px [none]: ",
    ]
    assert shown.index("Numbers") < shown.index("Summary")
    assert "Factor: 12 px" in shown


def test_a_wrong_answer_is_told_at_once_and_asked_again() -> None:
    values, shown, questions = _ask("", "/data", "?", "12", "3", "n", "y")
    assert values["count"] == 3
    assert "a value is required; it must be a folder" in shown
    assert "As many as there are." in shown
    assert "it is '12'; it must be a whole number, at least 1 and at most 9" in shown
    assert questions.count("How many [2]: ") == 3


def test_what_was_given_is_not_asked_and_nothing_is_asked_if_nothing_is_missing() -> None:
    assert _ask("", "", "", count=5, folder="/x")[2] == []
    assert _ask("/data", "", "", count=5)[2][0] == "Folder of numbers: "


@pytest.mark.parametrize("answers", [("/data", "", "", "n"), ("/data",)])
def test_a_person_may_change_their_mind(answers: tuple[str, ...]) -> None:
    with pytest.raises(typer.Abort):
        _ask(*answers)


def test_a_session_is_made_of_a_template_without_a_question(tmp_path: Path, template: Path) -> None:
    result = _call("new", tmp_path / "s", "--template", template, "--set", f"folder={tmp_path}", "--set", "double.factor=7")
    assert result.exit_code == 0, result.output
    document = open_session(tmp_path / "s").document
    assert document.steps["double"].params == {"factor": 7}
    assert document.roots == {"numbers": str(tmp_path)}


def test_what_is_missing_is_an_error_where_nobody_sits(tmp_path: Path, template: Path) -> None:
    result = _call("new", tmp_path / "s", "--template", template, "--set", "count=12", "--voltage", "300")
    assert result.exit_code == 1
    for part in ("--set folder=FOLDER", "'count' (How many) is '12'", "'voltage' is not a value that is asked for"):
        assert part in result.stderr
    assert not (tmp_path / "s").exists()


def test_on_a_terminal_a_session_is_made_of_answers(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting, "can_ask", lambda: True)
    result = CliRunner().invoke(app, ["new", str(tmp_path / "s"), "--template", str(template)], input="/data\n4\n\n\n")
    assert result.exit_code == 0, result.output
    assert open_session(tmp_path / "s").document.steps["numbers"].params == {"stop_after": 4}
    result = CliRunner().invoke(app, ["new", str(tmp_path / "t"), "--template", str(template), "--no-input"], input="/data\n")
    assert result.exit_code == 1


def test_a_session_is_made_and_run_in_one_line(tmp_path: Path, template: Path) -> None:
    (tmp_path / "numbers").mkdir()
    for number in (3, 4):
        (tmp_path / "numbers" / str(number)).touch()
    result = _call("new", tmp_path / "s", "--template", template, "--set", f"folder={tmp_path / 'numbers'}", "--run")
    assert result.exit_code == 0, result.output
    assert "every stream has closed: 2 exposures, 0 failed" in result.output


def test_what_cannot_be_used_is_told_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.yaml").write_text("steps: [", encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("# Looks fine\nsteps: {}\nplaceholders: {x: {type: nope}}", encoding="utf-8")
    monkeypatch.setenv("ICESTREAM_TEMPLATES", f"{tmp_path}:{tmp_path / 'away'}")
    result = _call("templates")
    assert result.exit_code == 0
    assert f"note: {tmp_path / 'away'} in ICESTREAM_TEMPLATES is not a folder" in result.stderr
    told = {entry["name"]: entry for entry in json.loads(_call("templates", "--json").stdout)}
    assert "is not YAML" in told["broken"]["problem"]
    assert told["wrong"]["summary"].startswith("cannot be used: workflow wrong: placeholders.x.")
    assert told["movies_to_ctf"]["problem"] is None


def test_templates_are_listed_and_shown(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template.rename(tmp_path / "movies_to_ctf.yaml")
    monkeypatch.setenv("ICESTREAM_TEMPLATES", str(tmp_path))
    result = _call("templates")
    assert "Numbers, doubled" in result.stdout
    assert "replaces the one from icestream" in result.stderr
    told = {entry["name"]: entry for entry in json.loads(_call("templates", "--json").stdout)}
    assert told["movies_to_ctf"]["replaces"] == ["icestream"]
    shown = _call("templates", "movies_to_ctf").stdout
    assert "a whole number, at least 1 and at most 9" in shown
    assert json.loads(_call("templates", "movies_to_ctf", "--json").stdout)["values"]["required"] == ["folder"]


def test_a_step_with_several_inputs_of_one_kind_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(_call("templates", "classes_from_several_pickers").output.split())
    assert "good.micrograph, blob_picks, matched_picks, relion_picks, quality" in shown
    assert "['" not in shown


def test_a_workflow_is_exported_and_used_again(tmp_path: Path, template: Path) -> None:
    _call("new", tmp_path / "s", "--template", template, "--set", f"folder={tmp_path}", "--set", "factor=5")
    assert _call("export-workflow", tmp_path / "s", "--as-template", "-o", tmp_path / "e.yaml").exit_code == 0
    assert _call("new", tmp_path / "t", "--template", tmp_path / "e.yaml").exit_code == 0
    first, second = (open_session(tmp_path / name).document for name in "st")
    assert (first.steps, first.roots) == (second.steps, second.roots)
    assert "already exists" in _call("export-workflow", tmp_path / "s", "-o", tmp_path / "e.yaml").stderr
    assert "has no step 'x'" in _call("export-workflow", tmp_path / "s", "--steps", "x").stderr


def test_a_part_is_added_and_connected(tmp_path: Path, template: Path) -> None:
    _call("new", tmp_path / "s", "--template", template, "--set", f"folder={tmp_path}")
    told = _call("export-workflow", tmp_path / "s", "--from", "double", "-o", tmp_path / "part.yaml").stdout
    assert "open: numbers (Number), read by double.number" in told
    assert set(load_template(str(tmp_path / "part.yaml")).open_inputs) == {"numbers"}
    head = tmp_path / "head.yaml"
    head.write_text(f"steps: {{first: {{use: '{TOYS}:count_numbers', params: {{stop_after: 1}}}}}}", encoding="utf-8")
    common = ("--template", head, "--root", f"numbers={tmp_path}", "--add", tmp_path / "part.yaml")
    assert "--connect numbers=STEP" in _call("new", tmp_path / "t", *common).stderr
    result = _call("new", tmp_path / "t", *common, "--connect", "numbers=first")
    assert result.exit_code == 0, result.output
    assert open_session(tmp_path / "t").document.steps["double"].inputs == {"number": "first"}
    assert "INPUT=STEP" in _call("new", tmp_path / "u", *common, "--connect", "numbers").stderr
