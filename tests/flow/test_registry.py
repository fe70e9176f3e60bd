"""Steps are found by entry point or module, and say which plugin they come from."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream import __version__
from icestream.cli import app
from icestream.errors import DeclarationError, WorkflowError
from icestream.flow.declaration.guard import call_step
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.declaration.registry import find_step, plugin_of
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, read_rows

_MODULE = '''
from icestream.flow import Arrival, Params, SourceContext, Watch, step
from toys.steps import Number


@step.source("swallow_count", version=2, output=Number)
def count(params: Params, ctx: SourceContext) -> Watch:
    """Find one number."""
    yield Arrival(identity="1", name="1", record=Number(value=1))
    return "one number"


@step.map("swallow_whole", version=4, memory_gb=0.1)
def swallow(number: Number) -> Number:
    """Pass a number on."""
    return number
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution with a step and an entry point, and a module beside it that belongs to none."""
    site = tmp_path / "site"
    made_of = {
        "swallow_steps.py": _MODULE,
        "loose_swallow_steps.py": _MODULE,
        "ice_swallow-1.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: ice-swallow\nVersion: 1.3\n",
        "ice_swallow-1.3.dist-info/entry_points.txt": "[icestream.steps]\nswallow_whole = swallow_steps:swallow\n",
        "ice_swallow-1.3.dist-info/top_level.txt": "swallow_steps\n",
    }
    for name, text in made_of.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)  # workers find it too
    for cached in (find_step, plugin_of):
        cached.cache_clear()
    return site


def test_a_plugin_is_named_with_its_version(plugin: Path) -> None:
    assert find_step("swallow_whole").version == 4
    assert plugin_of("swallow_whole") == "ice-swallow 1.3"
    assert plugin_of("swallow_steps:swallow") == "ice-swallow 1.3"
    assert plugin_of("swallow_steps:another") == "ice-swallow 1.3"
    assert plugin_of("loose_swallow_steps:swallow") == "loose_swallow_steps"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('no licence')", r"SystemExit: no licence \(.*hostile_\w+\.py, line 3\)"),
        ("raise SystemExit", "SystemExit"),
        ("raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
        ("raise BaseException('odd')", "BaseException: odd"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1/", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("from icestream.flow import step\n@step.map('x', version=1)\ndef f() -> int: ...", "returns <class 'int'>"),
        ("swallow = 1", "has no 'swallow_whole'|is not a step"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_a_plugin_does_at_import_is_told_and_harms_no_other_command(
    plugin: Path, code: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = f"hostile_{abs(hash(code))}"
    text = f"print('a banner'); import os; os.chdir('/')\n\n{code}\n"
    (plugin / f"{module}.py").write_text(text, encoding="utf-8")
    points = plugin / "ice_swallow-1.3.dist-info" / "entry_points.txt"
    points.write_text(
        f"[icestream.steps]\nswallow_whole = {module}:swallow\nctf = {module}:swallow\n[icestream.templates]\nlab = {module}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises((WorkflowError, DeclarationError), match=told):
        find_step("swallow_whole")
    assert find_step("ctf").call.__module__.startswith("icestream.")
    assert Path.cwd() == tmp_path
    for command in ("steps", "templates"):
        listed = CliRunner().invoke(app, [command, "--json"])
        assert listed.exit_code == 0
        told_of = {one["name"]: one.get("problem") for one in json.loads(listed.stdout)}
        assert told_of["swallow_whole" if command == "steps" else "lab"]
        assert len([name for name, problem in told_of.items() if not problem]) > 3
    assert "swallow_whole cannot be used: " in CliRunner().invoke(app, ["steps"]).stderr


def test_a_step_that_exits_fails_as_one_that_raises() -> None:
    failure = call_step(sys.exit, "enough")
    assert (failure.kind, failure.message) == (FailureKind.ERROR, "SystemExit: enough")


def test_steps_of_icestream_come_from_no_plugin() -> None:
    assert [plugin_of(use) for use in ("motion", "icestream.steps.motion.correction:correct_motion")] == ["", ""]


def test_results_say_which_plugin_made_them(plugin: Path, tmp_path: Path) -> None:
    steps = {
        "numbers": {"use": "swallow_steps:count"},
        "swallowed": {"use": "swallow_whole", "in": {"number": "numbers"}},
        "doubled": {"use": f"{TOYS}:multiply", "in": {"number": "swallowed"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(1))
    run_session(session, Settings(cores=1, min_free_gb=0))
    software = [row["software"] for row in read_rows(session, schema.result)]
    own, plugin_version = f"icestream {__version__}", "ice-swallow 1.3"
    assert sorted(software) == [
        f"{own}, {plugin_version}, swallow_count 2",
        f"{own}, {plugin_version}, swallow_whole 4",
        f"{own}, toys, toy_multiply 1",
    ]
