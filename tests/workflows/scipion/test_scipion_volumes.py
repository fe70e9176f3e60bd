"""Initial volumes, refinement, 3D classification and both 3D consensus steps, from Scipion's workflows."""

from typing import Any

import pytest

from icestream.flow.declaration import find_step
from icestream.workflows.scipion.table import MAPPED
from icestream.workflows.scipion.translation import CHANGED, LEFT_OUT, Translation
from toys.scipion_items import item as _item
from toys.scipion_items import row_of as _row
from toys.scipion_items import translate as _translate

Item = dict[str, Any]


def upstream() -> list[Item]:
    return [
        _item("ProtImportMicrographs", 1, samplingRate=1.5),
        _item("ProtRelionAutopickLoG", 2, inputMicrographs="1.outputMicrographs", minDiameter=100, maxDiameter=120),
        _item("XmippProtExtractParticles", 3, inputCoordinates="2.outputCoordinates"),
        _item("XmippProtTriggerData", 4, inputImages="3.outputParticles", outputSize=5000, allImages=False),
        _item("ProtRelionClassify2D", 5, inputParticles="4.outputParticles", numberOfClasses=16),
        _item("XmippProtEliminateEmptyClasses", 6, inputClasses="5.outputClasses"),
    ]


def translate(*items: Item) -> Translation:
    translation = _translate(*upstream(), *items)
    assert translation.problems == ()
    return translation


RANSAC = _item("XmippProtRansac", 7, inputSet="6.outputAverages", symmetryGroup="d7", numVolumes=6)
RELION = _item("ProtRelionInitialModel", 8, inputParticles="4.outputParticles", symmetryGroup="D7", maskDiameterA=150)
BOTH = _item("ProtUnionSet", 9, inputType=2, inputSets=["7.outputVolumes", "8.outputVolume"])
SWARM = _item(
    "XmippProtReconstructSwarm", 10, inputParticles="4.outputParticles", inputVolumes="9.outputSet", symmetryGroup="d7",
    numberOfIterations=5, targetResolution=12.0, minAngle=10.0, NimgTrain=400, NimgTest=80, particleRadius=60,
)  # fmt: skip
REFINE = _item(
    "ProtRelionRefine3D", 11, inputParticles="4.outputParticles", referenceVolume="10.outputVolume", symmetryGroup="d7",
    initialLowPassFilterA=30, maskDiameterA=150,
)  # fmt: skip


def classify(identity: int, reference: str, **values: Any) -> Item:
    own = {"numberOfClasses": 3, "symmetryGroup": "d7", **values}
    return _item("ProtRelionClassify3D", identity, inputParticles="4.outputParticles", referenceVolume=reference, **own)


def test_initial_volumes_take_a_finished_set_that_they_share() -> None:
    translation = translate(RANSAC, RELION)
    steps = translation.steps
    shared = steps["finished_set"]
    assert (shared.use, shared.inputs) == ("batches", {"items": "trigger"})
    assert shared.params == {"count": 1_000_000_000, "counted": "particles"}
    assert [name for name, spec in steps.items() if spec.use == "batches"] == ["finished_set"]
    ransac, relion = (steps[_row(translation, identity).step or ""] for identity in (7, 8))
    assert (ransac.use, ransac.params) == ("initial_volume", {"symmetry": "D7", "starts": 6})
    assert ransac.inputs == {"particles": "finished_set", "classes": "classes", "selection": "selected"}
    assert (relion.inputs, relion.params) == ({"particles": "finished_set"}, {"symmetry": "D7", "diameter_ang": 150.0})


def test_the_swarm_reads_all_volumes_of_a_union_and_keeps_its_numbers() -> None:
    translation = translate(RANSAC, RELION, BOTH, SWARM)
    step = translation.steps["agreed_volume"]
    volumes = [str(_row(translation, identity).step) for identity in (7, 8)]
    assert (step.use, step.inputs) == ("consensus_volumes", {"particles": "finished_set", "volumes": volumes})
    assert step.params == {
        "symmetry": "D7", "rounds": 5, "limit_ang": 12.0, "min_angle_deg": 10.0, "train_particles": 400, "test_particles": 80,
    }  # fmt: skip
    assert any(note.startswith("particleRadius 60") for note in _row(translation, 10).notes)
    union = _row(translation, 9)
    assert (union.step, union.outcome) == (None, CHANGED)
    assert union.notes == (f"no step: what reads these volumes reads {', '.join(volumes)}",)


def test_a_refinement_begins_with_the_consensus() -> None:
    step = translate(RANSAC, RELION, BOTH, SWARM, REFINE).steps["refined"]
    assert (step.use, step.inputs) == ("refine3d", {"particles": "finished_set", "volume": "agreed_volume"})
    assert step.params == {"symmetry": "D7", "diameter_ang": 150.0, "initial_ang": 30.0}


def test_classifications_share_the_refinement_that_gives_them_poses() -> None:
    steps = translate(RELION, classify(12, "8.outputVolume"), classify(13, "8.outputVolume", numberOfClasses=4)).steps
    assert [name for name, spec in steps.items() if spec.use == "refine3d"] == ["poses"]
    assert steps["poses"].inputs == {"particles": "finished_set", "volume": "volume"}
    assert [(steps[name].inputs, steps[name].params) for name in ("classes_3d", "classes_3d_2")] == [
        ({"particles": "finished_set", "volume": "poses"}, {"n_classes": count}) for count in (3, 4)
    ]


def test_a_classification_of_a_refinement_takes_its_poses() -> None:
    steps = translate(RELION, {**REFINE, "referenceVolume": "8.outputVolume"}, classify(12, "11.outputVolume")).steps
    assert "poses" not in steps
    assert steps["classes_3d"].inputs == {"particles": "finished_set", "volume": "refined"}


@pytest.mark.parametrize(
    ("name", "port", "values", "params"),
    [
        ("XmippProtConsensusClasses3D", "inputMultiClasses", {"numClust": -1, "doConsensus": 0}, {}),
        ("XmippProtConsensusClasses3D", "inputMultiClasses", {"numClust": 2}, {"n_groups": 2}),
        ("XmippProtConsensusClasses", "inputClassifications", {}, {}),
    ],
)
def test_consensus_classes_keep_the_rule_of_scipion(name: str, port: str, values: Item, params: Item) -> None:
    many = {port: ["12.outputClasses", "13.outputClasses"]}
    steps = translate(
        RELION, classify(12, "8.outputVolume"), classify(13, "8.outputVolume"), _item(name, 14, **many, **values)
    ).steps
    assert (steps["groups"].use, steps["groups"].inputs) == ("consensus_classes3d", {"classes": ["classes_3d", "classes_3d_2"]})
    assert steps["groups"].params == {"rule": "intersections", **params}


def test_volumes_are_imported_and_one_of_a_class_is_taken() -> None:
    translation = translate(
        _item("ProtImportVolumes", 20, filesPath="/data/maps", filesPattern="known*.mrc", samplingRate=2.5),
        {**REFINE, "referenceVolume": "20.outputVolume"},
        classify(12, "11.outputVolume"),
        _item("ProtVolumeExtractor", 21, inputClasses="12.outputClasses"),
        _item("ProtRelionPostprocess", 22, protRefine="11"),
    )
    steps = translation.steps
    assert steps["known_volume"].params == {"root": "volumes", "pattern": "known*.mrc", "pixel_size_ang": 2.5}
    assert translation.options["--root volumes"] == "/data/maps"
    assert (steps["class_volume"].use, steps["class_volume"].inputs) == ("class_volume", {"classes": "classes_3d"})
    assert (steps["quality"].use, steps["quality"].inputs) == ("map_quality", {"volume": "refined"})


@pytest.mark.parametrize(("family", "told"), [(0, "C5"), (1, "D5"), (3, None)])
def test_a_point_group_of_cryosparc_is_a_family_and_an_order(family: int, told: str | None) -> None:
    model = _item(
        "ProtCryoSparcInitialModel",
        8,
        inputParticles="4.outputParticles",
        symmetryGroup=family,
        symmetryOrder=5,
        numberOfClasses=2,
    )
    translation = translate(model)
    assert translation.steps["volume"].params == ({} if told is None else {"symmetry": told})
    notes = _row(translation, 8).notes
    assert any("classify3d" in note for note in notes)
    assert any("point group" in note for note in notes) is (told is None)


def test_a_consensus_without_volumes_is_left_out() -> None:
    translation = translate(_item("XmippProtReconstructSwarm", 10, inputParticles="4.outputParticles"))
    assert _row(translation, 10).outcome == LEFT_OUT
    assert "finished_set" not in translation.steps


def test_steps_that_come_before_take_what_there_is() -> None:
    for name, mapping in MAPPED.items():
        for before in mapping.before:
            step = find_step(before.use)
            ports = {port.name for port in step.ports}
            assert set(before.inputs) <= ports, name
            assert {port.name for port in step.ports if not port.optional} <= set(before.inputs), name
            assert before.port in {port.name for port in find_step(mapping.use).ports}, name
            assert {*before.params, *(rule.target for rule in before.rules)} <= set(step.params.model_fields), name
