"""2D classification and what chooses among classes, from Scipion's workflows."""

from typing import Any

from icestream.workflows.scipion.translation import Translation
from toys.scipion_items import item as _item
from toys.scipion_items import row_of as _row
from toys.scipion_items import translate as _translate

Item = dict[str, Any]


def upstream() -> list[Item]:
    return [
        _item("ProtImportMicrographs", 1, samplingRate=1.5),
        _item("ProtRelionAutopickLoG", 2, inputMicrographs="1.outputMicrographs", minDiameter=100, maxDiameter=120),
        _item("XmippProtExtractParticles", 3, inputCoordinates="2.outputCoordinates"),
        _item("ProtRelionClassify2D", 4, inputParticles="3.outputParticles", numberOfClasses=30),
    ]


def translate(*items: Item) -> Translation:
    translation = _translate(*upstream(), *items)
    assert translation.problems == ()
    return translation


def test_fixed_references_are_those_of_a_classification() -> None:
    steps = translate(
        _item("XmippProtStrGpuCrrSimple", 5, inputParticles="3.outputParticles", inputRefs="4.outputClasses"),
    ).steps
    assert steps["assigned"].use == "classify2d_static"
    assert steps["assigned"].inputs == {"particles": "particles", "classes": "classes"}


def test_fixed_references_that_were_selected_come_with_their_selection() -> None:
    steps = translate(
        _item("XmippProtEliminateEmptyClasses", 5, inputClasses="4.outputClasses", threshold=12),
        _item("ProtRelionSelectClasses2D", 6, inputClasses="5.outputAverages", minResolution=20, minParts=50),
        _item("XmippProtStrGpuCrrSimple", 7, inputParticles="3.outputParticles", inputRefs="6.outputClasses"),
    ).steps
    assert (steps["selected"].use, steps["selected"].inputs) == ("select_classes", {"classes": "classes"})
    assert steps["selected_2"].params == {"max_resolution_ang": 20, "min_particles": 50}
    assert steps["selected_2"].inputs == {"classes": "classes"}
    assert steps["assigned"].inputs == {"particles": "particles", "classes": "classes", "selection": "selected_2"}


def test_references_from_a_file_are_imported() -> None:
    imported = _item("ProtImportAverages", 5, filesPath="/data/refs", filesPattern="*avg.mrcs", samplingRate=3.2, importFrom=0)
    for given in (imported, {**imported, "filesPath": "/data/refs/my_avg.mrcs", "filesPattern": None, "_prerequisites": ["2"]}):
        translation = translate(
            given, _item("XmippProtStrGpuCrrSimple", 6, inputParticles="3.outputParticles", inputRefs="5.outputAverages")
        )
        pattern = "*avg.mrcs" if given is imported else "my_avg.mrcs"
        averages, assigned = translation.steps["averages"], translation.steps["assigned"]
        assert (averages.use, averages.inputs, averages.after) == ("import_averages", {}, [])
        assert averages.params == {"pattern": pattern, "pixel_size_ang": 3.2}
        assert (assigned.use, assigned.inputs) == ("classify2d_static", {"particles": "particles", "classes": "averages"})
        assert translation.options["--root averages"] == "/data/refs"
        assert translation.problems == ()


def test_references_that_nothing_makes_are_told() -> None:
    translation = translate(
        _item("ProtImportParticles", 5),
        _item("XmippProtStrGpuCrrSimple", 6, inputParticles="3.outputParticles", inputRefs="5.outputAverages"),
    )
    assert translation.steps["classes_2"].use == "classify2d"
    assert "import_averages" in _row(translation, 6).notes[0]


def test_good_particles_follow_a_selection() -> None:
    translation = translate(
        _item("ProtRelionSelectClasses2D", 5, inputClasses="4.outputClasses"),
        _item("ProtGoodClassesExtractor", 6, inputClasses="4.outputClasses", inputGoodClasses="5.outputClasses", mode=0),
    )
    assert translation.steps["good_particles"].use == "good_classes"
    assert translation.steps["good_particles"].inputs == {
        "particles": "particles",
        "assignments": "classes.assignments",
        "classes": "classes",
        "selection": "selected",
    }
    assert any("rejected_particles" in note for note in _row(translation, 6).notes)


def test_numbers_of_good_classes_are_told_and_their_score_selects() -> None:
    translation = translate(
        _item("ProtGoodClassesExtractor", 5, inputClasses="4.outputClasses", inputGoodListIds="1,2,7", mode=1)
    )
    assert translation.steps["selected"].inputs == {"classes": "classes"}
    assert translation.steps["good_particles"].inputs["selection"] == "selected"
    assert any("mean nothing here" in note for note in _row(translation, 5).notes)


def test_the_launcher_classifies_each_set_as_its_template_says() -> None:
    translation = translate(
        _item("ProtMonitor2dStreamer", 5, inputParticles="3.outputParticles", batchSize=20000, input2dProtocol="4"),
    )
    assert translation.steps["batches"].params == {"count": 20000, "counted": "particles"}
    step = translation.steps["classes_of_sets"]
    assert (step.use, step.inputs) == ("classify2d_batch", {"particles": "batches"})
    assert step.params.get("n_classes", 16) in (16, 30)
    assert any("classes_of_sets" in note for note in _row(translation, 5).notes)


def test_cumulative_sets_of_the_launcher_are_classified_too() -> None:
    steps = translate(
        _item("ProtMonitor2dStreamer", 5, inputParticles="3.outputParticles", batchSize=20000, cumulativeBatch=True),
    ).steps
    assert steps["classes_of_sets"].inputs == {"particles": "milestones"}
