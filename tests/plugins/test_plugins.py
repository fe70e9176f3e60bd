"""A plugin that is generated is built, installed, tested and run; one that is broken is told, and harms nothing else."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError
from icestream.flow.declaration import PLUGIN_API, find_step, plugin_of
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.plugins import list_plugins, make_plugin

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(one) for one in (site,) if one is not None]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "300", "PYTHONNOUSERSITE": "1"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as ``icestream plugin new`` writes it."""
    folder = tmp_path_factory.mktemp("plugin")
    done = CliRunner().invoke(app, ["plugin", "new", "my-lab-steps", "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    return folder / "my-lab-steps"


@pytest.fixture(scope="module")
def site(project: Path) -> Path:
    """The project, built and installed into a folder of its own, without a network."""
    if find_spec("hatchling") is None:
        pytest.skip("missing package: hatchling")
    target = project.parent / "site"
    offline = ("--no-build-isolation", "--no-index", "--no-deps", "--quiet", "--target", target)
    done = run(sys.executable, "-m", "pip", "install", *offline, project, cwd=project.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_an_installed_plugin_is_listed_with_its_steps(site: Path) -> None:
    done = run(sys.executable, "-m", "icestream", "plugin", "check", "--json", cwd=site, site=site)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["name"], found["version"], found["api"]) == ("my-lab-steps", "0.1.0", PLUGIN_API)
    assert (found["steps"], found["problems"]) == (["my_lab_steps_contrast"], {})


def test_its_own_tests_pass(project: Path, site: Path) -> None:
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=project, site=site)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_its_step_runs_and_the_report_shows_it(
    project: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).normal(100, 5, size=(64, 64)).astype(np.float32)
        write_mrc(data / f"mic_{number}.mrc", image, pixel_size_ang=1.0)
    steps = yaml.safe_load((project / "example" / "workflow.yaml").read_text(encoding="utf-8"))["steps"]
    steps["mics"]["params"] = {"max_files": 3, "stable_s": 0.1}
    document = {"name": "lab", "roots": {"micrographs": str(data)}, "acquisition": {"pixel_size_ang": 1.0}, "steps": steps}
    session = create_session(tmp_path / "session", SessionDocument.model_validate(document))

    def icestream(*words: str | Path) -> str:
        done = run(sys.executable, "-m", "icestream", *words, cwd=tmp_path, site=site)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.replace("\N{NO-BREAK SPACE}", " ")

    icestream("run", session.folder, "--cores", "1")
    assert re.search(r"contrast: Spread of the pixels [45](\.\d+)? %", icestream("status", session.folder))
    assert "my-lab-steps 0.1.0" in icestream("trace", session.folder, "mic_1")
    icestream("report", session.folder, "--templates", project / "report")
    page = (session.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<p>Spread 5.") + page.count("<p>Spread 4.9") == 3
    assert 'class="problems"' not in page


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("My Plugin", "lower-case letters and digits"),
        ("../evil", "lower-case letters and digits"),
        ("class", "cannot be the name of a package"),
        ("icestream", "cannot be the name of a package"),
        ("", "lower-case letters and digits"),
    ],
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(SessionError, match=told):
        make_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_exists_is_left_alone(project: Path) -> None:
    with pytest.raises(SessionError, match="exists already"):
        make_plugin("my-lab-steps", project.parent)


def test_the_command_says_what_it_needs() -> None:
    assert "a new plugin needs a name" in CliRunner().invoke(app, ["plugin", "new"]).output
    assert "check takes no name" in CliRunner().invoke(app, ["plugin", "check", "x"]).output


def install(site: Path, name: str, entries: str, module: str = "") -> None:
    """Write what pip would have installed."""
    metadata = site / f"{name}-2.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")
    (site / f"{name}.py").write_text(module, encoding="utf-8")


GOOD = '''from icestream.flow import Context, step
from icestream.records import Micrograph


@step.map("{name}_step", version=1)
def copy(micrograph: Micrograph, ctx: Context) -> Micrograph:
    """Pass a micrograph on."""
    return micrograph
'''


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Plugins that are broken in every way, and two that are not."""
    place = tmp_path / "several"

    def steps(name: str, api: str | None = None, entry: str | None = None) -> str:
        declared = "" if api is None else f"[icestream.plugin_api]\n{api} = {name}\n"
        return f"[icestream.steps]\n{entry or f'{name}_step'} = {name}:copy\n{declared}"

    install(place, "good", steps("good", PLUGIN_API), GOOD.format(name="good"))
    install(place, "silent", steps("silent"), GOOD.format(name="silent"))
    install(place, "raises", steps("raises", PLUGIN_API), "raise RuntimeError('no licence')\n")
    install(place, "newer", steps("newer", "1.99"), "raise SystemExit('was imported')\n")
    install(place, "older", steps("older", "0.3"), "raise SystemExit('was imported')\n")
    install(place, "worded", steps("worded", "latest"), "raise SystemExit('was imported')\n")
    install(place, "misnamed", steps("misnamed", PLUGIN_API, "another_step"), GOOD.format(name="misnamed"))
    install(place, "greedy", steps("greedy", PLUGIN_API, "motion"), GOOD.format(name="greedy"))
    monkeypatch.syspath_prepend(str(place))
    find_step.cache_clear()
    plugin_of.cache_clear()
    yield place
    find_step.cache_clear()
    plugin_of.cache_clear()


def test_each_broken_plugin_is_told_and_the_others_work(several: Path) -> None:
    found = {one.name: one for one in list_plugins() if (several / f"{one.name}.py").is_file()}
    assert {name: one.steps for name, one in found.items() if one.steps} == {"good": ("good_step",), "silent": ("silent_step",)}
    assert (found["silent"].api, found["good"].api) == (None, PLUGIN_API)
    told = {name: " ".join(one.problems.values()) for name, one in found.items() if one.problems}
    assert "RuntimeError: no licence" in told["raises"]
    assert told["newer"] == (
        f"newer 2.1: was written for version 1.99 of the plugin interface, icestream has {PLUGIN_API}: install a newer icestream"
    )
    assert told["older"].endswith("install a newer older")
    assert "says 'latest' as the version of its plugin interface; it must be two numbers" in told["worded"]
    assert "leads to a step that calls itself 'misnamed_step'" in told["misnamed"]
    assert told["greedy"] == "a step of icestream has this name; give it another one"
    assert set(told) == {"raises", "newer", "older", "worded", "misnamed", "greedy"}
    assert find_step("motion").call.__module__ == "icestream.steps.motion.correction"
    shown = CliRunner().invoke(app, ["plugin", "check"])
    assert (shown.exit_code, "newer 2.1: was written for" in shown.output) == (3, True)


def test_a_plugin_for_another_interface_is_not_imported(several: Path) -> None:
    shown = CliRunner().invoke(app, ["steps", "newer_step"])
    assert "was written for version 1.99" in shown.output
    assert "was imported" not in shown.output
    assert "newer" not in sys.modules
