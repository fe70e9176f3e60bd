"""The documentation is complete, up to date, and its code runs."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

import reference
from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.document import AlarmsDocument, make_policy, read_facility_alarms
from icestream.cli.fields import describe_fields
from icestream.facility.retention import write_rules_text
from icestream.flow.declaration.registry import find_step
from icestream.microscope.settings import SimulationSettings
from icestream.settings import Settings
from icestream.workflows import list_workflows, read_template
from reference_records import own_records

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
TOP_OPTIONS = {"--help", "--version"}


@cache
def _rendered() -> dict[str, str]:
    return reference.render_reference()


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _shell_commands(path: Path) -> list[list[str]]:
    """Return the words of every ``icestream …`` line in the shell blocks of a page."""
    lines = "\n".join(_blocks(path, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and Path(line[0]).name == "icestream"]


def _options_of(command: str) -> set[str]:
    section = _rendered()["commands.md"].split(f"\n## {command}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) | set(re.findall(r"/(--[a-z-]+)", section)) | TOP_OPTIONS


@pytest.mark.parametrize("name", sorted(_rendered()))
def test_the_reference_is_up_to_date(name: str) -> None:
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == _rendered()[name], f"docs/reference/{name} is out of date: run `make docs`"


def test_the_reference_has_no_page_too_many() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == set(_rendered())


def test_every_step_and_parameter_is_in_the_reference() -> None:
    page = (REFERENCE / "steps.md").read_text(encoding="utf-8")
    assert reference.own_steps()
    for step in reference.own_steps():
        section = page.split(f"\n## {step}\n")[1].split("\n## ")[0]
        assert [f.name for f in describe_fields(find_step(step).params) if f"| `{f.name}` |" not in section] == []


def test_every_parameter_and_setting_has_a_description() -> None:
    models: list[type[BaseModel]] = [find_step(step).params for step in reference.own_steps()]
    models += [Settings, SimulationSettings]
    bare = [f"{model.__name__}.{field.name}" for model in models for field in describe_fields(model) if not field.description]
    assert bare == []


def test_every_setting_record_command_and_workflow_is_in_the_reference() -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
    settings = [f"ICESTREAM_{name.upper()}" for name in Settings.model_fields]
    assert [name for name in settings if f"`{name}`" not in pages["settings.md"]] == []
    assert [r.__name__ for r in own_records() if f"\n## {r.__name__}\n" not in pages["records.md"]] == []
    assert [name for name in reference.own_commands() if f"\n## {name}\n" not in pages["commands.md"]] == []
    assert [name for name in list_workflows() if f"\n## {name}\n" not in pages["workflows.md"]] == []


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=_name)
def test_python_in_the_documentation_runs(page: Path) -> None:
    source = "\n".join(_blocks(page, "python"))
    namespace: dict[str, object] = {"__name__": page.stem.replace("-", "_")}
    exec(compile(source, _name(page), "exec"), namespace)  # noqa: S102


def test_pages_with_python_were_found() -> None:
    assert any(_blocks(page, "python") for page in PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if _shell_commands(page)], ids=_name)
def test_commands_and_options_in_the_documentation_exist(page: Path) -> None:
    for command, *words in _shell_commands(page):
        assert command in reference.own_commands()
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used - _options_of(command) == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_in_the_documentation_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {first or second for first, second in named} - targets == set()


def _of_alarms(text: str) -> bool:
    return text.startswith(("rules:", "channels:")) and not _of_storage(text)


def _of_storage(text: str) -> bool:
    return text.startswith("rules:") and "after_hours:" in text


def test_rules_of_storage_in_the_documentation_are_valid(tmp_path: Path) -> None:
    found = [text for page in PAGES for text in _blocks(page, "yaml") if _of_storage(text)]
    assert found
    for text in found:
        write_rules_text(tmp_path, text)


def test_rules_of_alarms_in_the_documentation_are_valid(tmp_path: Path) -> None:
    found = [text for page in PAGES for text in _blocks(page, "yaml") if _of_alarms(text)]
    assert len(found) >= 2
    for text in found:
        (tmp_path / "alarms.yaml").write_text(text, encoding="utf-8")
        facility = read_facility_alarms(tmp_path / "alarms.yaml")
        assert make_policy(facility, AlarmsDocument()).rules != DEFAULT_RULES


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "yaml")], ids=_name)
def test_workflows_in_the_documentation_are_valid(page: Path) -> None:
    for text in filter(lambda text: not (_of_alarms(text) or _of_storage(text)), _blocks(page, "yaml")):
        workflow = read_template(text, origin=_name(page))
        assert [spec.use for spec in workflow.steps.values() if spec.use not in reference.own_steps()] == []


@cache
def _anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as repository pages make them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _local_links(page: Path) -> list[tuple[Path, str]]:
    """Return target and anchor of every link to a file of the project."""
    links = re.findall(r"\]\(([^)# ]*)#?([^) ]*)[^)]*\)", page.read_text(encoding="utf-8"))
    return [(page.parent / link if link else page, anchor) for link, anchor in links if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    links = _local_links(page)
    assert [target for target, _ in links if not target.exists()] == []
    assert [(target, anchor) for target, anchor in links if anchor and anchor not in _anchors(target)] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_source_files_named_in_the_documentation_exist(page: Path) -> None:
    named = re.findall(r"`((?:src|tests|scripts|benchmarks)/[^`*…\s]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set[Path](), {ROOT / "README.md"}
    while new:
        reached |= new
        targets = {target / "README.md" if target.is_dir() else target for page in new for target, _ in _local_links(page)}
        new = {target.resolve() for target in targets if target.suffix == ".md"} - reached
    assert [_name(page) for page in PAGES if page not in reached] == []


def test_the_site_has_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if not page.startswith("decisions/0") and f": {page}\n" not in config] == []
