from pathlib import Path
from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from icestream.observe.hand_picks import edits_picks
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.ctf.consensus import CtfConsensusParams, check_ctf_consensus
from icestream.workflows import fill_template, find_workflow, list_workflows, load_template, read_workflow


def test_the_workflows_have_a_summary_each() -> None:
    assert set(list_workflows()) == {
        *("movies_to_classes", "micrographs_to_classes", "movies_to_ctf", "movies_to_ctf_full"),
        *("classes_from_several_pickers", "classes_from_own_templates", "classes_from_trained_picker"),
        *("movies_to_map", "facility_spa"),
        *("ctf_from_two_programs", "picks_from_several_programs", "volumes_from_two_programs"),
    }
    assert all(summary for summary in list_workflows().values())


@pytest.mark.parametrize("name", ["movies_to_classes", "micrographs_to_classes"])
def test_a_workflow_becomes_a_graph_once_the_particle_is_known(name: str) -> None:
    workflow = find_workflow(name)
    picks = workflow.steps["picks"].model_copy(update={"params": {"diameter_ang": [100, 120]}})
    graph = build_graph(workflow.model_copy(update={"steps": {**workflow.steps, "picks": picks}}))
    assert list(graph.nodes)[-1] in ("relion", "good_relion", "good_particles")
    assert graph.inputs_of("particles") == {"good", "edited_picks"}


@pytest.mark.parametrize("name", [name for name in list_workflows() if "ctf" not in name])
def test_picks_are_added_and_removed_by_hand_in_every_workflow_that_picks(name: str, tmp_path: Path) -> None:
    asked = load_template(name).placeholders
    values: dict[str, Any] = {next(one for one in ("movies", "micrographs") if one in asked): tmp_path}
    for one in ("diameter", "diameters"):
        if one in asked and not asked[one].optional:
            values[one] = (100.0, 120.0) if asked[one].type == "range" else 110.0
    document = fill_template(load_template(name), values)
    graph = build_graph(Workflow(steps=document.steps))
    (editing,) = (step for step, node in graph.nodes.items() if edits_picks(node.type))
    assert all(editing in graph.inputs_of(reader) for reader in {"particles", "relion"} & graph.nodes.keys())
    assert "particles" in graph.nodes
    assert document.steps[editing].params == {}  # nobody has decided anything yet


@pytest.mark.parametrize(
    ("name", "asked", "joined"),
    [
        ("ctf_from_two_programs", {}, {"two_ctfs": {"ctf", "second_way"}}),
        (
            "ctf_from_two_programs",
            {"ctffind": True, "relion_motion": True},
            {"two_ctfs": {"ctf", "ctffind"}, "two_motions": {"steady", "relion_aligned"}},
        ),
        ("picks_from_several_programs", {"diameter": [100, 120]}, {"agreed": {"good", "blob_picks", "matched_picks", "quality"}}),
        (
            "picks_from_several_programs",
            {"diameter": [100, 120], "relion": True, "topaz_diameter": 110},
            {"agreed": {"good", "blob_picks", "matched_picks", "relion_picks", "topaz_picks", "quality"}},
        ),
        (
            "volumes_from_two_programs",
            {"diameter": 110, "diameters": [100, 120]},
            {
                "agreed_classes": {"our_classes", "relion_classes"},
                "volume": {"sets", "our_volume", "relion_volume"},
                "agreed_states": {"our_states", "relion_states"},
            },
        ),
    ],
)
def test_programs_are_mixed_as_asked(name: str, asked: dict[str, object], joined: dict[str, set[str]], tmp_path: Path) -> None:
    template = load_template(name)
    folder = next(one for one in ("movies", "micrographs") if one in template.placeholders)
    graph = build_graph(Workflow(steps=fill_template(template, {folder: tmp_path, **asked}).steps))
    assert {step: set(graph.inputs_of(step)) for step in joined} == joined


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: {movies: {use: import_movies}}", encoding="utf-8")
    assert list(find_workflow(str(path)).steps) == ["movies"]


def test_an_unknown_name_tells_what_there_is() -> None:
    with pytest.raises(WorkflowError, match=r"'nothing'.*movies_to_classes"):
        find_workflow("nothing")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: [", "is not YAML"),
        ("stages: {}", "steps: Field required"),
        ("steps: {a: {}}", "steps.a.use"),
        ("", "workflow here: "),
    ],
)
def test_what_is_no_workflow_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(WorkflowError, match="workflow here") as caught:
        read_workflow(text, origin="here")
    assert told in str(caught.value)


def test_a_tag_in_yaml_makes_no_object() -> None:
    with pytest.raises(WorkflowError, match="is not YAML"):
        read_workflow("steps: !!python/object/apply:os.getcwd []", origin="here")


WITH_CTF = ["movies_to_classes", "micrographs_to_classes", "movies_to_ctf", "movies_to_ctf_full", "movies_to_map", "facility_spa"]


@pytest.mark.parametrize("name", WITH_CTF)
def test_a_voltage_in_volts_is_refused(name: str, tmp_path: Path) -> None:
    folder = "micrographs" if name.startswith("micrographs") else "movies"
    with pytest.raises(WorkflowError, match=r"'voltage' .* is 300000"):
        fill_template(load_template(name), {folder: tmp_path, "diameter": (100, 120), "voltage": 300_000})


@pytest.mark.parametrize("name", WITH_CTF)
def test_a_ctf_of_no_confidence_is_set_aside_in_every_workflow(name: str, tmp_path: Path) -> None:
    """As the fit without a phase shift to data of a phase plate: defocus, resolution and score are all within the limits."""
    folder = "micrographs" if name.startswith("micrographs") else "movies"
    asked = load_template(name).placeholders
    particle = {"diameter": (100, 120)} if "diameter" in asked else {}

    def verdict(confidence: float) -> str | None:
        document = fill_template(load_template(name), {folder: tmp_path, **particle})
        graph = build_graph(Workflow(steps=document.steps))
        judge = next(graph.nodes[each] for each in ("agreed", "agreed_ctf", "good") if each in graph.nodes)
        params = CtfConsensusParams.model_validate(judge.params)
        fit = _FIT.model_copy(update={"confidence": confidence})
        second = fit if judge.name != "good" else None
        return check_ctf_consensus(_MICROGRAPH, fit, second, params, Acquisition(voltage_kv=300)).reason

    assert "0.000" in (verdict(0.0) or "kept")
    assert verdict(0.5) is None


_MICROGRAPH = Micrograph(image="session:a.mrc", height_px=64, width_px=64, bin=1.0)
_FIT = CtfFit.model_validate(
    {"defocus_u_ang": 12800, "defocus_v_ang": 12700, "astigmatism_angle_deg": 0, "phase_shift_deg": 0, "score": 0.7,
     "resolution_ang": 5.0, "estimator": "least_squares", "spectrum": "session:a.png"}
)  # fmt: skip
