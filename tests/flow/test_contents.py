"""Files that are given as parameters count by what they hold."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError

from icestream.errors import ItemError, WorkflowError
from icestream.flow.commands.editing import plan_edit
from icestream.flow.commands.requests import Apply, Recompute, Set
from icestream.flow.declaration.registry import find_step
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.own_params import lay_over
from icestream.flow.storage.revisions import activate_revisions, identity_params
from icestream.flow.storage.session import Session, open_session
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.contents import (
    GivenFiles,
    check_contents,
    expected_contents,
    file_parameters,
    look_into_files,
    read_contents,
    settle_contents,
)
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, read_rows, start_runner

ADD = "toys.files:add_file"
SETTINGS = Settings(cores=2, min_free_gb=0)
LIMIT_S = 60.0


def steps_with(file: str | None, count: int = 3) -> dict[str, Any]:
    return {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}},
        "sum": {"use": ADD, "in": {"number": "numbers"}, "params": {} if file is None else {"file": file}},
    }


def graph_with(folder: Path | None, file: str | None = "data:n.txt") -> Graph:
    """The graph of such a workflow; one that knows what files hold if ``folder`` is given."""
    graph = build_graph(Workflow.model_validate({"steps": steps_with(file)}))
    if folder is not None:
        look_into_files(graph, {"data": str(folder)})
    return graph


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    schema.metadata.create_all(engine)
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def test_the_parameters_that_are_files_are_known_from_their_type() -> None:
    assert file_parameters(find_step("motion")) == ("defects",)
    assert file_parameters(find_step(ADD)) == ("file",)
    assert file_parameters(find_step("ctf")) == ()


def test_the_content_is_read_whatever_the_name_and_the_time(tmp_path: Path) -> None:
    roots = {"data": str(tmp_path)}
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    one, same, other = (read_contents(find_step(ADD), {"file": f"data:{name}"}, roots)["file.content"] for name in "abc")
    assert one == same != other
    (tmp_path / "a").write_text("22")
    assert read_contents(find_step(ADD), {"file": "data:a"}, roots)["file.content"] not in (None, one)
    assert read_contents(find_step(ADD), {"file": None}, roots) == {}
    assert read_contents(find_step(ADD), {"file": "data:none"}, roots) == {"file.content": None}
    assert read_contents(find_step(ADD), {"file": "elsewhere:a"}, roots) == {"file.content": None}


def test_a_session_from_before_keeps_its_revision_and_an_edit_of_the_file_parameter_counts_it(
    tmp_path: Path, connection: Connection
) -> None:
    (tmp_path / "n.txt").write_text("1")
    (tmp_path / "m.txt").write_text("1")
    old = activate_revisions(connection, graph_with(None), {})["sum"]
    assert activate_revisions(connection, graph_with(tmp_path), {})["sum"] == old
    (tmp_path / "n.txt").unlink()
    assert activate_revisions(connection, graph_with(tmp_path), {})["sum"] == old
    new = activate_revisions(connection, graph_with(tmp_path, "data:m.txt"), {})["sum"]
    assert new.id != old.id
    assert len(new.params["file.content"]) == 32


def test_a_file_that_is_away_counts_as_it_was_known_and_one_that_never_was_there_is_refused(
    tmp_path: Path, connection: Connection
) -> None:
    (tmp_path / "n.txt").write_text("1")
    first = activate_revisions(connection, graph_with(tmp_path), {})["sum"]
    (tmp_path / "n.txt").unlink()
    assert activate_revisions(connection, graph_with(tmp_path), {})["sum"] == first
    with pytest.raises(WorkflowError, match=r"step 'sum': parameter 'file' is 'data:m.txt'; the file was not found"):
        activate_revisions(connection, graph_with(tmp_path, "data:m.txt"), {})
    with pytest.raises(WorkflowError, match="the file was not found"):
        settle_contents(graph_with(tmp_path).nodes["sum"], None)


def test_what_an_exposure_has_of_its_own_counts_by_content_too(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("1")
    (tmp_path / "m.txt").write_text("2")
    node = graph_with(tmp_path).nodes["sum"]
    pinned = identity_params(node)
    own = {"file": "data:m.txt"}
    laid = lay_over(node, pinned, own, read_contents(node.type, own, {"data": str(tmp_path)}))
    assert laid.identity == identity_params(graph_with(tmp_path, "data:m.txt").nodes["sum"])
    assert laid.complete == own
    assert lay_over(node, pinned, {"file": None}, {}).identity == {"file": None}


def test_a_worker_refuses_a_file_that_holds_something_else(tmp_path: Path) -> None:
    roots = {"data": str(tmp_path)}
    (tmp_path / "n.txt").write_text("1")
    node = graph_with(tmp_path).nodes["sum"]
    expected = expected_contents(node.type, identity_params(node))
    check_contents(node.type, node.params, expected, roots)
    (tmp_path / "n.txt").write_text("20")
    with pytest.raises(ItemError, match=r"data:n.txt \(file\) was changed after this revision was made"):
        check_contents(node.type, node.params, expected, roots)
    check_contents(node.type, node.params, {}, roots)  # of a session from before


def test_a_file_that_is_being_written_is_left_alone_until_it_rests(tmp_path: Path) -> None:
    roots, path = {"data": str(tmp_path)}, tmp_path / "n.txt"
    path.write_text("1")
    graph = graph_with(tmp_path)
    params = {"numbers": {}, "sum": identity_params(graph.nodes["sum"])}
    given = GivenFiles()
    assert [given.look(graph, params, roots) for _ in range(3)] == [([], [])] * 3
    path.write_text("10")
    assert given.look(graph, params, roots) == ([], [])
    path.write_text("100")
    assert given.look(graph, params, roots) == ([], [])
    assert given.look(graph, params, roots)[0] == ["data:n.txt has changed: sum (file) gets a new revision"]
    path.unlink()
    assert given.look(graph, params, roots) == ([], ["data:n.txt is missing; sum (file) needs it"])
    assert given.look(graph, params, roots) == ([], [])


def values_of(session: Session) -> dict[int, list[int]]:
    """Revision of the step → the results that were computed for it, in order."""
    found: dict[int, list[int]] = {}
    mine = {row["id"]: row["number"] for row in read_rows(session, schema.revision) if row["step"] == "sum"}
    for row in read_rows(session, schema.result):
        if row["revision"] in mine:
            found.setdefault(mine[row["revision"]], []).append(json.loads(row["record"])["value"])
    return {number: sorted(values) for number, values in found.items()}


def session_with(folder: Path, *, count: int = 3) -> tuple[Session, Path]:
    session = make_toy_session(folder, steps_with("session:n.txt", count), numbers=range(3))
    path = session.folder / "n.txt"
    path.write_text("10")
    return session, path


def test_a_changed_file_is_a_new_revision_and_the_old_content_finds_the_old_results(tmp_path: Path) -> None:
    session, path = session_with(tmp_path)
    run_session(session, SETTINGS)
    run_session(open_session(session.folder), SETTINGS)
    assert values_of(session) == {1: [10, 11, 12]}
    path.write_text("200")
    (planned,) = plan_edit(session, Apply(), cores=2).steps
    assert (planned.step, planned.computed) == ("sum", 3)
    run_session(open_session(session.folder), SETTINGS)
    assert values_of(session) == {1: [10, 11, 12], 2: [200, 201, 202]}
    path.write_text("10")
    run_session(open_session(session.folder), SETTINGS)
    assert values_of(session) == {1: [10, 11, 12], 2: [200, 201, 202]}  # the third revision computes nothing


def test_while_a_session_runs_a_change_is_taken_up_and_told(tmp_path: Path) -> None:
    session, path = session_with(tmp_path, count=1000)
    runner = start_runner(session)
    try:
        _until(lambda: session.store_path.exists() and values_of(session) == {1: [10, 11, 12]})
        path.write_text("200")
        _until(lambda: values_of(session).get(2) == [200, 201, 202])
        assert values_of(session)[1] == [10, 11, 12]
        said = [row["message"] for row in read_rows(session, schema.notice)]
        assert "session:n.txt has changed: sum (file) gets a new revision" in said
        refused = submit(session, Set(step="sum", params={"file": "session:none.txt"}), author="eva", settings=SETTINGS)
        assert (refused.state, "the file was not found" in refused.text) == ("refused", True)
        unit = next(row["unit"] for row in read_rows(session, schema.exposure))
        command = Recompute(step="sum", unit=unit, params={"file": "session:none.txt"})
        refused = submit(session, command, author="eva", settings=SETTINGS)
        assert (refused.state, refused.text) == ("refused", "session:none.txt: file not found")
    finally:
        runner.kill()
        runner.wait()


def _until(condition: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not _holds(condition):
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def _holds(condition: Any) -> bool:
    try:
        return bool(condition())
    except SQLAlchemyError:  # the tables are being made
        return False
