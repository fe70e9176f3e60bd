"""The page of benchmarks is what its script makes of the results, and every script is on it."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


for part in ("target", "targets_particles", "targets_volumes"):
    _load(part)
targets = _load("targets")
write_page = _load("write_page")


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = write_page.load_results()
    return found


def test_the_page_is_what_the_script_writes(results: dict[str, dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == write_page.render_page(results), "docs/benchmarks.md is out of date: run python benchmarks/write_page.py"


def test_every_script_has_a_result_or_is_listed_as_not_run(results: dict[str, dict[str, Any]]) -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if _prints_a_figure(path)}
    assert scripts <= set(targets.SCRIPTS)
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    waiting = set(re.findall(r"^- `(\w+)`", page.split("## No result kept yet")[1], re.MULTILINE))
    assert waiting == set(targets.SCRIPTS) - {result["script"] for result in results.values()}


def _prints_a_figure(path: Path) -> bool:
    return path.stem != "write_page" and "__main__" in path.read_text(encoding="utf-8")


def test_results_say_how_they_were_made_and_not_where_or_when(results: dict[str, dict[str, Any]]) -> None:
    assert results
    for name, result in results.items():
        assert result["script"] in targets.SCRIPTS, name
        assert result["command"].startswith(f"python benchmarks/{result['script']}.py"), name
        assert {"icestream", "Python", "numpy"} <= set(result["versions"]), name
        assert result["machine"], name
        text = json.dumps(result)
        assert not re.search(r"20\d\d-\d\d|/(home|root|tmp|work)/", text), name


def test_every_target_reads_a_figure_that_its_run_can_have(results: dict[str, dict[str, Any]]) -> None:
    for target in targets.TARGETS:
        assert any(target.result.startswith(script) for script in targets.SCRIPTS), target
        assert target.allowed(), target
        if write_page.judge(target, results) == "**missed**":
            assert target.tried, target


OUTPUT = {"a": {"b.c": 2.0, "median": 0.5}, "ratio_at_0.9": {"worst": 0.8}, "word": "x"}


@pytest.mark.parametrize(
    ("path", "value"),
    [("a.median", 0.5), ("a.b.c", 2.0), ("ratio_at_0.9.worst", 0.8), ("a.none", None), ("word", None), ("z.a", None)],
)
def test_figures_are_found_by_path(path: str, value: float | None) -> None:
    assert write_page.look_up(OUTPUT, path) == value


@pytest.mark.parametrize(
    ("changes", "peer", "verdict"),
    [
        ({"at_most": 1.0}, None, "met"),
        ({"at_most": 0.4}, None, "**missed**"),
        ({"at_least": 0.6}, None, "**missed**"),
        ({"beat_peer": True}, 0.6, "met"),
        ({"beat_peer": True}, 0.5, "**missed**"),
        ({"beat_peer": True}, None, "not recorded"),
        ({"of_peer": 0.1}, 5.0, "met"),
        ({"of_peer": 0.1}, 4.0, "**missed**"),
        ({"figure": "nothing", "at_most": 1.0}, None, "not recorded"),
        ({"result": "other", "at_most": 1.0}, None, "not yet run"),
    ],
)
def test_a_target_is_met_or_missed(changes: dict[str, Any], peer: float | None, verdict: str) -> None:
    target = replace(targets.Target("part", "what", "run", "value", "s", peer="peer"), **changes)
    output = {"value": 0.5} | ({} if peer is None else {"peer": peer})
    assert write_page.judge(target, {"run": {"output": output}}) == verdict


def test_a_line_is_kept_with_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_page, "HERE", tmp_path)
    name, peer, arguments = write_page.read_options("motion_speed", ["--as", "small", "--side", "512", "--peer", "RELION 3.1.3"])
    write_page.keep(name, script="motion_speed", arguments=arguments, peer=peer, line='{"times_the_transforms": 4.5}')
    (kept,) = write_page.load_results().values()
    assert kept["command"] == "python benchmarks/motion_speed.py --side 512"
    assert (kept["peer"], kept["output"]) == ("RELION 3.1.3", {"times_the_transforms": 4.5})
    assert "cores" in kept["machine"]
    assert write_page.read_options("motion_speed", [])[2] == targets.SCRIPTS["motion_speed"].split()
