"""Upgrades: sessions that older versions began and that still collect are shown, and go on, with the same keys and values.

It stands beside the tests of documentation and house, for it is about all of icestream. ``upgrade/`` has a folder for each
version from which an upgrade is rehearsed, and tells how they are made. The sessions are looked at through the command line,
their tables and the report alone.
"""

import json
import lzma
import math
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import ExitStatus
from icestream.flow.storage.session import open_session
from upgrade.reading import (
    VIEWS,
    ask,
    differences,
    let_others_arrive,
    make_session,
    read_report,
    read_session,
    rows,
    run,
    schema_version,
    start,
    unpack,
)

VERSIONS = sorted(path.parent for path in (Path(__file__).parent / "upgrade").glob("*/session.tar.xz"))
FIRST = ("mic_0001", "mic_0002", "mic_0003", "mic_0004", "mic_0005", "mic_0006")
LATER = ("mic_0007", "mic_0008", "mic_0009", "mic_0010")

RELATIVE, ABSOLUTE = 1e-3, 2e-3
"""How far numbers may be apart that two machines computed. The order in which a processor adds up changes last digits: between
processors with SSE 4.2 and with AVX-512 the present movies differ by up to 9e-5 of a value, or by one in the last of the three
decimals that scores and correlations keep. Which exposure passes which filter, the number of picks and all keys are the same."""


def close(where: str, found: float, wanted: float) -> bool:
    """Tell whether two numbers are equal for all that the last digits of floats do."""
    return math.isclose(found, wanted, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda folder: folder.name)
def version(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture(scope="module")
def truth(version: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(lzma.decompress((version / "truth.json.xz").read_bytes()))
    return read


@pytest.fixture(scope="module")
def begun(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session as the older version left it; it is only looked at."""
    return unpack(version / "session.tar.xz", tmp_path_factory.mktemp("begun"))


@pytest.fixture(scope="module")
def processed(version: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sessions that the present version has run to their end: the old one, elsewhere, and a new one of the same movies."""
    continued, afresh = (unpack(version / "session.tar.xz", tmp_path_factory.mktemp(name)) for name in ("continued", "afresh"))
    shutil.rmtree(afresh)
    for path in (afresh.parent / "arriving").iterdir():
        path.rename(afresh.parent / "movies" / path.name)
    make_session(afresh.parent)
    let_others_arrive(continued)
    with start(continued) as first, start(afresh) as second:
        assert (first.wait(), second.wait()) == (ExitStatus.SOME_FAILED, ExitStatus.SOME_FAILED)
    return continued, afresh


@pytest.fixture(scope="module")
def continued(processed: tuple[Path, Path]) -> Path:
    return processed[0]


@pytest.fixture(scope="module")
def found(processed: tuple[Path, Path]) -> dict[str, Any]:
    return read_session(processed[0])


@pytest.fixture(scope="module")
def afresh(processed: tuple[Path, Path]) -> dict[str, Any]:
    return read_session(processed[1])


def test_there_are_versions_to_upgrade_from() -> None:
    assert VERSIONS


def test_the_session_was_left_in_the_middle(begun: Path, truth: dict[str, Any]) -> None:
    said = {(one["step"], one["exposure"]): one["status"] for one in truth["begun"]["outcomes"] if one["exposure"] in FIRST}
    assert said["movies", "mic_0003"] == said["second_motion", "mic_0006"] == said["aligned", "mic_0006"] == "failed"
    assert said["good", "mic_0005"] == "rejected"
    assert ("aligned", "mic_0001") not in said
    assert {row["state"] for row in rows(begun, "SELECT state FROM revision")} == {"active", "frozen"}
    assert {one["step"] for one in truth["begun"]["gates"]} >= {"enough", "signal", "released"}
    assert {one["step"] for one in truth["begun"]["stale"]} >= {"classes"}
    assert sorted(path.stem for path in (begun.parent / "arriving").iterdir()) == list(LATER)


@pytest.mark.parametrize("view", VIEWS)
def test_what_was_shown_is_shown(view: str, begun: Path, truth: dict[str, Any]) -> None:
    before = (begun / "icestream.db").read_bytes()
    facts = FACTS[VIEWS[view][0]]
    assert facts(ask(begun, *VIEWS[view])) == facts(truth["views"][view])
    assert (begun / "icestream.db").read_bytes() == before


def test_the_report_shows_what_it_showed(begun: Path, truth: dict[str, Any]) -> None:
    before, (shown, wanted) = (begun / "icestream.db").read_bytes(), (read_report(begun), truth["report"])
    assert shown["pictures"] >= wanted["pictures"] > 0
    assert shown["drawings"] >= wanted["drawings"] > 0
    assert set(shown["exposures"]) >= set(wanted["exposures"]) == set(FIRST)
    assert set(shown["steps"]) >= set(wanted["steps"])
    assert (begun / "icestream.db").read_bytes() == before


def facts_of_status(answer: dict[str, Any]) -> Any:
    counts = ("exposures", "items", "rejected", "failed", "last_seq")
    marks = ("stale", "by_hand", "old_revisions", "own_params")
    steps = {
        one["name"]: (
            *(one[name] for name in ("use", "kind", "type_version", "revision", "params", "weight", "stream")),
            {name: count for name, count in one["counts"].items() if name != "not_taken"},  # 0.1.0 did not count it
            *(one["marks"][name] for name in marks),
        )
        for one in answer["steps"]
    }
    return {name: answer["overview"][name] for name in counts}, steps


def facts_of_failed(answer: list[dict[str, Any]]) -> Any:
    return [(one["step"], one["exposure"], one["reason"], one.get("attempts"), one.get("error_type")) for one in answer]


def facts_of_history(answer: dict[str, Any]) -> Any:
    history = [(one["at"], one["author"]) for one in answer["history"]]
    return history, [(one["exposure"], one["step"], one["author"], one["params"]) for one in answer["decisions"]]


def facts_of_revisions(answer: list[dict[str, Any]]) -> Any:
    return [tuple(one[name] for name in ("step", "number", "state", "epoch", "params", "counts", "own_params")) for one in answer]


def facts_of_why(answer: list[dict[str, Any]]) -> Any:
    return [one["step"] for one in answer]


LINEAGE = (
    *("step", "revision", "version", "key", "at", "pruned", "record_type", "record", "params", "software", "host"),
    *("portions", "members", "inputs", "used_by"),
)
"""What is told of a version of a whole."""


def facts_of_trace(answer: dict[str, Any]) -> Any:
    if "steps" not in answer:
        return {name: answer[name] for name in LINEAGE}
    told = [answer[name] for name in ("unit", "name", "identity", "files", "acquisition", "arrived_at")]
    results = ("output", "key", "inputs", "params", "acquisition", "files", "host", "software", "created_at", "record")
    steps = {
        one["step"]: (
            *(one[name] for name in ("status", "root", "revision", "use", "type_version", "params", "software")),
            *(one[name] for name in ("bindings", "log_positions", "missing")),
            one["own"] is None,
            [{name: result[name] for name in results} for result in one["results"]],
        )
        for one in answer["steps"]
    }
    return told, steps


FACTS: dict[str, Callable[[Any], Any]] = {
    "status": facts_of_status,
    "failed": facts_of_failed,
    "history": facts_of_history,
    "revisions": facts_of_revisions,
    "why": facts_of_why,
    "trace": facts_of_trace,
}
"""What has to be the same, whatever words it is told in."""


@pytest.mark.parametrize("table", ["outcomes", "revisions", "snapshots", "logs", "batches", "gates", "bindings", "stale"])
def test_the_session_goes_on_as_it_would_have(table: str, found: dict[str, Any], truth: dict[str, Any]) -> None:
    assert _without_words(found[table]) == _without_words(truth["continued"][table])


def _without_words(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out sentences, of which words and last digits may change, but not that there is one."""
    return [{name: bool(value) if name == "reason" else value for name, value in row.items()} for row in table]


CORRECTED = {"classify2d", "extract", "measure_quality", "pick_blob"}
"""Steps whose method was corrected since, so that they make other values under the revisions of old sessions, too."""


def test_its_results_are_those_that_the_old_version_would_have_made(
    continued: Path, found: dict[str, Any], truth: dict[str, Any]
) -> None:
    wanted = truth["continued"]["results"]
    assert found["results"].keys() <= wanted.keys()
    assert wanted.keys() - found["results"].keys() <= _earlier_assignments(truth["continued"])
    same = _not_corrected(continued, found)
    assert len(same) > 100, len(same)
    _compare(*({key: part["results"][key] for key in same} for part in (found, truth["continued"])))


def _earlier_assignments(part: dict[str, Any]) -> set[str]:
    """Return the assignments that no outcome names; since version 2 of classify2d they are kept with the averages."""
    named = {key for row in part["outcomes"] for key in json.loads(row["keys"]).values()}
    return {key for key, one in part["results"].items() if "class_id" in (one["table"] or {}) and key not in named}


def _not_corrected(session: Path, found: dict[str, Any]) -> set[str]:
    """Return the results of steps that were not corrected, and are not below one that was."""
    graph = open_session(session).graph()
    corrected = {name for name, node in graph.nodes.items() if node.type.name in CORRECTED}
    below = set().union(*(graph.descendants(name) for name in corrected))
    others = set(graph.nodes) - below
    versions = {row["key"] for row in found["snapshots"] if row["step"] in others}
    states = {row["state_key"] for row in found["logs"] if row["step"] in others}
    return (_keys_of(found, others) | versions | states) & found["results"].keys()


def _compare(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    differing = {key: [*differences(_value(found[key]), _value(result), close)][:5] for key, result in wanted.items()}
    assert {key: told for key, told in differing.items() if told} == {}


def _value(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a result says. In a table without rows, the type of ``pid`` is not looked at: version 0.1.0 had two."""
    table = result["table"]
    if table is not None and table.get("pid", [None, [0]])[1] == []:
        table = {**table, "pid": [None, []]}
    return {"record": result["record"], "table": table, "weight": result["weight"]}


def test_nothing_is_computed_again(found: dict[str, Any], truth: dict[str, Any]) -> None:
    before, after = ({key: _kept(one) for key, one in part["results"].items()} for part in (truth["begun"], found))
    assert before
    assert {key: after.get(key) for key in before} == before


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    return {**_value(result), "made": result["made"]}


def test_what_was_decided_stays(continued: Path, found: dict[str, Any], truth: dict[str, Any]) -> None:
    said = {(one["step"], one["exposure"]): one["status"] for one in found["outcomes"]}
    assert Counter(said[step, name] for step in ("half", "a_share", "held") for name in LATER) == {"absent": 12}
    assert Counter(said["classes", name] for name in LATER) == {"item": 4}
    assert (said["good", "mic_0005"], said["low_defocus", "mic_0004"]) == ("rejected", "item")
    states = {(row["step"], row["number"]): row["state"] for row in ask(continued, "revisions")}
    assert (states["classes", 1], states["classes", 2]) == ("frozen", "active")
    then, now = (facts_of_history(answer) for answer in (truth["views"]["history"], ask(continued, "history")))
    assert now[0][: len(then[0])] == then[0]
    assert now[1] == then[1]


def test_notices_and_failures_are_kept(begun: Path, continued: Path) -> None:
    for table in ("notice", "failure", "command", "document"):
        query = f"SELECT at FROM {table} ORDER BY 1"  # noqa: S608
        before, after = ([row["at"] for row in rows(session, query)] for session in (begun, continued))
        assert before
        assert after[: len(before)] == before


@pytest.fixture(scope="module")
def unchanged(processed: tuple[Path, Path], truth: dict[str, Any]) -> set[str]:
    """The steps that have the version of then, as all steps have that they depend on: what they make must not change."""
    fresh = processed[1]
    answers = (ask(fresh, "status"), truth["views"]["status"])
    now, then = ({one["name"]: one["type_version"] for one in answer["steps"]} for answer in answers)
    graph = open_session(fresh).graph()
    return set(graph.nodes).difference(*(graph.descendants(name) for name in graph.nodes if now[name] != then[name]))


def test_a_fresh_session_has_the_same_keys_and_values_where_no_step_has_another_version(
    afresh: dict[str, Any], truth: dict[str, Any], unchanged: set[str]
) -> None:
    assert {"movies", "gain", "dose"} <= unchanged
    for table in ("outcomes", "snapshots", "batches", "gates"):
        found, wanted = ([row for row in part[table] if row["step"] in unchanged] for part in (afresh, truth["afresh"]))
        assert _without_words(found) == _without_words(wanted)
    keys = _keys_of(truth["afresh"], unchanged)
    assert keys
    _compare(*({key: part["results"][key] for key in keys} for part in (afresh, truth["afresh"])))


@pytest.mark.parametrize("step", ["aligned", "second_ctf", "picks"])
def test_what_another_version_of_a_step_makes_has_another_key(
    step: str, afresh: dict[str, Any], truth: dict[str, Any], unchanged: set[str]
) -> None:
    assert step not in unchanged
    now, then = (_keys_of(part, {step}) for part in (afresh, truth["afresh"]))
    assert now
    assert then
    assert not now & then


def _keys_of(part: dict[str, Any], steps: set[str]) -> set[str]:
    """Return the keys of the results that exposures have at some steps."""
    return {key for row in part["outcomes"] if row["step"] in steps for key in json.loads(row["keys"]).values()}


def test_continued_and_fresh_results_of_one_machine_are_equal_to_the_bit(
    found: dict[str, Any], afresh: dict[str, Any], truth: dict[str, Any]
) -> None:
    new = (found["results"].keys() & afresh["results"].keys()) - truth["begun"]["results"].keys()
    assert len(new) > 5
    assert [key for key in new if found["results"][key]["bits"] != afresh["results"][key]["bits"]] == []
    assert [key for key in new if found["results"][key]["files"] != afresh["results"][key]["files"]] == []


NEWER = 1000
"""The version of tables that nobody has written yet."""


@pytest.mark.parametrize(
    "words",
    [("status",), ("report",), ("trace", "mic_0001"), ("run", "--quiet"), ("set", "clean", "max_dark_share=0.5"), ("pause",)],
    ids=lambda words: words[0],
)
def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(words: tuple[str, ...], begun: Path, tmp_path: Path) -> None:
    session = tmp_path / "session"
    shutil.copytree(begun, session, symlinks=True)
    with closing(sqlite3.connect(session / "icestream.db")) as store, store:
        store.execute("UPDATE runner SET schema_version = ?", (NEWER,))
    before = (session / "session.yaml").read_bytes(), dump(session / "icestream.db")
    answer = CliRunner().invoke(app, [words[0], str(session), *words[1:]])
    assert answer.exit_code == 1
    assert f"has schema {NEWER}" in " ".join(answer.output.split())
    assert ((session / "session.yaml").read_bytes(), dump(session / "icestream.db")) == before


@pytest.fixture(scope="module")
def taken_back(begun: Path, continued: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session, with everything that was made since the upgrade, and the store as it was before."""
    folder = tmp_path_factory.mktemp("back")
    shutil.copytree(continued.parent, folder, symlinks=True, dirs_exist_ok=True)
    session, backup = folder / continued.name, backup_of(continued, schema_version(begun))
    for path in session.glob("icestream.db*"):
        path.unlink()
    shutil.copy2(backup if backup.exists() else begun / "icestream.db", session / "icestream.db")
    for root in ("movies", "gain"):
        CliRunner().invoke(app, ["relink", str(session), f"{root}={folder / root}"])
    return session


def backup_of(session: Path, version: int) -> Path:
    return session / f"icestream.db.v{version}.bak"


def test_a_migration_leaves_the_store_as_it_was_beside_it(begun: Path, continued: Path) -> None:
    backup = backup_of(continued, schema_version(begun))
    assert backup.exists() == (schema_version(begun) < schema_version(continued))
    if backup.exists():
        (continued.parent / "backup").mkdir()
        shutil.copy2(backup, continued.parent / "backup" / "icestream.db")
        assert read_session(continued.parent / "backup") == {**read_session(begun), "results": ANY}


def test_a_session_that_was_taken_back_shows_what_it_showed(taken_back: Path, truth: dict[str, Any]) -> None:
    for view in ("status", "failed", "history", "revisions", "trace mic_0002"):
        facts = FACTS[VIEWS[view][0]]
        assert facts(ask(taken_back, *VIEWS[view])) == facts(truth["views"][view])


def test_a_session_that_was_taken_back_becomes_what_it_was(taken_back: Path, truth: dict[str, Any]) -> None:
    run(taken_back)
    back = read_session(taken_back)
    assert _without_words(back["outcomes"]) == _without_words(truth["continued"]["outcomes"])
    same = _not_corrected(taken_back, back)
    _compare(*({key: part["results"][key] for key in same} for part in (back, truth["continued"])))


def dump(path: Path) -> list[str]:
    """Return everything that is in a store, as SQL."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return list(store.iterdump())
