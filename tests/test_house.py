"""The rules of the house that no linter checks."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import grimp
import pytest
import yaml

from icestream import __version__
from icestream.flow.declaration.registry import STEPS_GROUP, find_step

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "icestream"
TESTS = ROOT / "tests"
MODULES = sorted(SOURCE.rglob("*.py"))

LONGEST_MODULE = 400
LONGEST_BODY = 40
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "base"}
MAY_CATCH_EVERYTHING = {"flow/declaration/guard.py"}


MOST_OWN_IMPORTS = 4.12
"""How many modules of ours a module imports, in the mean; it is to become less, not more."""

ROOMS_WITH_A_DOOR = ("declaration", "workflow", "scheduling", "storage")
"""Rooms of the engine that many others use: what these may use stands in the room's ``__init__``."""


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler swallows any error; one that cleans up and raises it again does not."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds)


def _requirement_name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 50


def test_modules_are_short() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_function_bodies_are_short() -> None:
    lengths = {
        f"{_name(path)}:{function.name}": _body_lines(function) for path in MODULES for function in _functions(_tree(path))
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_BODY} == {}


def test_modules_know_few_others() -> None:
    graph = grimp.build_graph("icestream", exclude_type_checking_imports=False, cache_dir=None)
    counts = [len(graph.find_modules_directly_imported_by(module)) for module in graph.modules]
    assert sum(counts) / len(counts) <= MOST_OWN_IMPORTS


@pytest.mark.parametrize("room", ROOMS_WITH_A_DOOR)
def test_a_room_is_entered_by_its_door(room: str) -> None:
    folder = SOURCE / "flow" / room
    past = [
        f"{_name(path)}:{node.lineno}"
        for path in MODULES
        if folder not in path.parents
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"icestream.flow.{room}.")
    ]
    assert past == []


@pytest.mark.parametrize("room", ROOMS_WITH_A_DOOR)
def test_a_door_shows_nothing_that_nobody_uses(room: str) -> None:
    folder = SOURCE / "flow" / room
    used = {
        alias.name
        for path in MODULES
        if folder not in path.parents
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == f"icestream.flow.{room}"
        for alias in node.names
    }
    assert set(import_module(f"icestream.flow.{room}").__all__) - used == set()


def test_names_say_what_is_inside() -> None:
    named = [path for path in [*SOURCE.rglob("*"), *TESTS.rglob("*")] if path.is_dir() or path.suffix == ".py"]
    assert [path for path in named if path.stem in FORBIDDEN_NAMES] == []


def test_only_the_guard_around_a_step_catches_everything() -> None:
    catching = {
        _name(path)
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node)
    }
    assert catching == MAY_CATCH_EVERYTHING


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
    files = [path for folder in (SOURCE, TESTS, ROOT / "scripts", ROOT / "docs") for path in folder.rglob("*") if path.is_file()]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".md", ".sh", ".yaml", ".html")}
    assert [path for path, text in texts.items() if mark.search(text)] == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(_tree(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if {"pickle", "marshal", "shelve", "dill"} & {module.partition(".")[0] for module in modules} or called in (
                "eval",
                "exec",
            ):
                found.append(f"{_name(path)}:{getattr(node, 'lineno', 0)}")
    assert found == []


@pytest.mark.parametrize("entry", sorted(entry_points(group=STEPS_GROUP)), ids=lambda entry: entry.name)
def test_entry_points_lead_to_the_step_of_their_name(entry: EntryPoint) -> None:
    assert find_step(entry.name).name == entry.name


def test_every_step_has_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registered = set(project["entry-points"]["icestream.steps"])
    declared = set()
    for path in [*(SOURCE / "steps").rglob("*.py"), *(SOURCE / "external").rglob("*.py")]:
        declared |= set(re.findall(r"^@step\.\w+\(\s*\"(\w+)\"", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert declared == registered


def test_test_folders_mirror_the_source() -> None:
    folders = [path for path in TESTS.rglob("*") if path.is_dir() and any(path.glob("test_*.py"))]
    assert [path for path in folders if not (SOURCE / path.relative_to(TESTS)).is_dir()] == []


def test_test_modules_have_names_of_their_own() -> None:
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_every_file_names_the_same_version() -> None:
    released = re.findall(r"^## \[([0-9.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert (released[0], cited) == (__version__, __version__)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {_requirement_name(text) for text in [*project["dependencies"], *extras["test"], *extras["docs"]]}
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.!]+", line)] == []
    assert wanted - {_requirement_name(line) for line in lines} == set()
