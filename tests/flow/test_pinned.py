"""A session keeps the defaults with which it was begun; a new one gets today's."""

from pathlib import Path

from sqlalchemy import create_engine, select, update

from icestream.flow.planning.planned_revisions import plan_revisions
from icestream.flow.storage import schema
from icestream.flow.storage.revisions import activate_revisions, definition_of, identity_params
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.flow.workflow.keys import canonical_json
from icestream.flow.workflow.pinned import as_pinned, default_of
from icestream.steps.ctf.consensus import CtfConsensusParams

FIELDS = CtfConsensusParams.model_fields
"""``min_agreement_ang`` was 15 before version 2, ``min_confidence_of_both`` did not exist."""


def graph_with(**params: object) -> Graph:
    steps = {
        "movies": {"use": "import_micrographs"},
        "ctf": {"use": "ctf", "in": {"micrograph": "movies"}},
        "agreed": {"use": "ctf_consensus", "in": {"micrograph": "movies", "ctf": "ctf"}, "params": params},
    }
    return build_graph(Workflow.model_validate({"steps": steps}))


def old_row(**changes: object) -> dict[str, object]:
    """The row of a revision that the first version of the step made."""
    params = {name: default_of(field) for name, field in FIELDS.items() if name != "min_confidence_of_both"}
    stored = canonical_json({**params, "min_agreement_ang": 15.0} | changes)
    return {"type": "ctf_consensus", "type_version": 1, "params": stored}


def test_the_default_of_a_version_is_what_it_was_then() -> None:
    assert [default_of(FIELDS["min_agreement_ang"], version) for version in (1, 2, None)] == [15.0, 7.0, 7.0]
    assert [default_of(FIELDS["min_confidence_of_both"], version) for version in (1, 2, None)] == [None, 0.1, 0.1]
    assert default_of(FIELDS["max_resolution_ang"], 1) == 17.0


def test_a_step_is_taken_as_its_revision_knows_it() -> None:
    node = as_pinned(graph_with().nodes["agreed"], old_row())
    assert (node.params["min_agreement_ang"], node.params["min_confidence_of_both"]) == (15.0, None)
    assert identity_params(node, row=old_row())["min_agreement_ang"] == 15.0
    assert "min_confidence_of_both" not in identity_params(node, row=old_row())


def test_what_the_workflow_gives_holds_whatever_the_version() -> None:
    node = as_pinned(graph_with(min_agreement_ang=5, min_confidence_of_both=0.1).nodes["agreed"], old_row(min_agreement_ang=5.0))
    assert (node.params["min_agreement_ang"], node.params["min_confidence_of_both"]) == (5.0, 0.1)
    assert identity_params(node, row=old_row())["min_confidence_of_both"] == 0.1  # today's default, but not that of the revision


def test_a_new_revision_has_the_defaults_of_today() -> None:
    node = graph_with().nodes["agreed"]
    for row in (None, {**old_row(), "type_version": 2}, {**old_row(), "type": "another"}):
        assert as_pinned(node, row) is node
    assert (node.params["min_agreement_ang"], node.params["min_confidence_of_both"]) == (7.0, 0.1)


def test_upgrading_makes_no_revision_and_an_edit_makes_one_with_the_new_defaults(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    schema.metadata.create_all(engine)
    table = schema.revision
    with engine.begin() as connection:
        first = activate_revisions(connection, graph_with(min_agreement_ang=15), {})
        then = {name: value for name, value in first["agreed"].params.items() if name != "min_confidence_of_both"}
        known = {row.step: row.definition for row in connection.execute(select(table.c.step, table.c.definition))}
        before = definition_of(graph_with(), graph_with().nodes["agreed"], then, acquisition={}, definitions=known)
        as_it_was = {"type_version": 1, "params": canonical_json(then), "definition": before}
        connection.execute(update(table).where(table.c.step == "agreed").values(**as_it_was))
        graph = graph_with()
        foreseen = plan_revisions(connection, graph_with(), {})["agreed"]
        kept = activate_revisions(connection, graph, {})["agreed"]
        assert (kept.id, kept.type_version, kept.params) == (first["agreed"].id, 1, then)
        assert (foreseen.kept, foreseen.revision, foreseen.node) == (True, kept, graph.nodes["agreed"])
        assert (graph.nodes["agreed"].params["min_agreement_ang"], graph.nodes["agreed"].params["min_confidence_of_both"]) == (
            15.0,
            None,
        )
        edited = activate_revisions(connection, graph_with(max_resolution_ang=9), {})["agreed"]
        assert edited.id != kept.id
        assert (edited.type_version, edited.params["min_agreement_ang"], edited.params["min_confidence_of_both"]) == (2, 7.0, 0.1)
    engine.dispose()
