import json
from typing import Any

import numpy as np
import pytest

from icestream.algorithms.gain.orientation import orient_gain_2d
from icestream.flow.declaration.registry import find_step
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import StepSpec, Workflow
from icestream.workflows.scipion import streams
from icestream.workflows.scipion.convert import Reader
from icestream.workflows.scipion.monitors import MONITORS
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.sources import split_pattern
from icestream.workflows.scipion.streams import FLOWS, PORTS, Flow
from icestream.workflows.scipion.table import MAPPED, UNMAPPED
from icestream.workflows.scipion.translation import CHANGED, DISABLED, LEFT_OUT, MAPPED_SAME, UNKNOWN, Translation
from toys.scipion_items import Item
from toys.scipion_items import item as _item
from toys.scipion_items import row_of as _row
from toys.scipion_items import translate as _translate


def _movies(**values: Any) -> list[Item]:
    return [
        _item("ProtImportMovies", 1, filesPath="/data", filesPattern="*.tiff", samplingRate=0.5, **values),
        _item("ProtMotionCorr", 2, inputMovies="1.outputMovies", binFactor=2),
    ]


def _params(name: str, pointers: Item, **values: Any) -> Item:
    """Return the parameters that one protocol after motion correction, CTF, picks and particles becomes."""
    translation = _translate(
        *_movies(),
        _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs"),
        _item("ProtRelionAutopickLoG", 4, inputMicrographs="2.outputMicrographs", minDiameter=100, maxDiameter=120),
        _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates", ctfRelations="3.outputCTF"),
        _item(name, 6, **pointers, **values),
    )
    assert translation.problems == ()
    step = _row(translation, 6).step
    assert step is not None
    return translation.steps[step].params


MICROGRAPH, MOVIE = {"inputMicrographs": "2.outputMicrographs"}, {"inputMovies": "1.outputMovies"}
PICKS, PARTICLES = {"inputCoordinates": "4.outputCoordinates"}, {"inputParticles": "5.outputParticles"}


@pytest.fixture
def without_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that hold, divide and join streams are not installed."""
    monkeypatch.setattr(streams, "installed", lambda _use: False)


@pytest.mark.usefixtures("without_flow")
def test_a_workflow_of_a_facility_becomes_one_of_ours(facility: list[Item]) -> None:
    translation = _translate(*facility)
    inputs = {name: spec.inputs for name, spec in translation.steps.items()}
    assert inputs == {
        "movies": {},
        "gain": {},
        "gain_estimate": {"movie": "movies", "gain": "gain"},
        "aligned": {"movie": "movies", "gain": "gain"},
        "steady": {"micrograph": "aligned"},
        "tilt": {"micrograph": "steady"},
        "level": {"micrograph": "steady", "tilt": "tilt"},
        "ctf": {"micrograph": "level"},
        "good": {"micrograph": "level", "ctf": "ctf"},
        "picks": {"micrograph": "good.micrograph"},
        "picks_2": {"micrograph": "good.micrograph"},
        "consensus": {"micrograph": "good.micrograph", "picks": ["picks", "picks_2"]},
        "particles": {"micrograph": "good.micrograph", "picks": "consensus", "ctf": "ctf"},
        "classes": {"particles": "particles"},
        "selected": {"classes": "classes"},
    }
    assert translation.problems == ()
    assert translation.steps["consensus"].params == {"rule": "all"}
    assert translation.steps["aligned"].params == {
        "first_frame": 1,
        "last_frame": 34,
        "bin": 2.0,
        "local": True,
        "patches": [7, 5],
        "group": 1,
        "gain_orientation": "rot270",
        "eer_group": 32,
        "eer_upsampling": 2,
    }
    assert translation.steps["steady"].params["rule"] == "frame or movie"
    assert translation.steps["ctf"].params == {"defocus_um": [0.5, 4.0], "resolution_ang": [30.0, 5.0]}
    assert translation.steps["good"].params == {
        "defocus_um": [0.1, 3.0],
        "max_astigmatism_ang": None,
        "max_relative_astigmatism": 0.1,
        "max_resolution_ang": 4.5,
        "min_confidence": None,
    }
    assert translation.steps["picks"].params == {"diameter_ang": [108.0, 132.0]}  # 120 px of 2 x 0.5 Å
    assert translation.steps["particles"].params["box_diameters"] == 1.64
    assert translation.steps["particles"].params["scaled_box_px"] == 64


@pytest.mark.usefixtures("without_flow")
def test_every_protocol_of_the_file_is_told(facility: list[Item]) -> None:
    translation = _translate(*facility)
    outcomes = {row.protocol.id: row.outcome for row in translation.rows}
    assert set(outcomes) == {item["object.id"] for item in facility}
    assert outcomes["30"] == MAPPED_SAME
    assert outcomes["60"] == outcomes["90"] == outcomes["35"] == CHANGED
    assert outcomes["15"] == CHANGED
    assert outcomes["110"] == CHANGED  # its thresholds are rules of alarms
    assert outcomes["55"] == outcomes["85"] == DISABLED
    assert outcomes["105"] == UNKNOWN
    assert any(note.startswith("gain_orientation: as it was fixed there") for note in _row(translation, 20).notes)
    assert translation.steps["aligned"].after == ["gain_estimate"]
    assert _row(translation, 20).kept == {"groupLocal": 4, "tol": 0.5}
    assert "particles: inputParticles gives ClassSelection, not Particles" in _row(translation, 100).notes[0]


def _flow(name: str, counted: str = "exposures", **values: Any) -> Flow:
    (protocol,) = parse_scipion(json.dumps([_item(name, 1, **values)]), name="here").protocols
    return FLOWS[name].make(Reader(protocol), counted)


FLOW_CASES = [
    ("XmippProtTriggerData", {"outputSize": 500, "allImages": False}, "trigger",
     {"mode": "static", "count": 500, "counted": "particles"}),
    ("XmippProtTriggerData", {"outputSize": 500, "allImages": True}, "trigger",
     {"mode": "growing", "count": 500, "counted": "particles"}),
    ("XmippProtTriggerData", {"outputSize": 500, "allImages": True, "splitImages": True}, "batches",
     {"count": 500, "counted": "particles"}),
    ("ProtDataCounter", {"outputSize": 20, "timeout": "90m"}, "trigger",
     {"mode": "static", "count": 20, "counted": "particles", "after_h": 1.5}),
    ("ProtDataSampler", {"samplingProportion": 0.1, "batchSize": 100}, "sample", {"fraction": 0.1}),
    ("ProtManualCheckpoint", {"boolTimer": False, "timeout": "1h"}, "trigger", {"manual": True}),
    ("ProtManualCheckpoint", {"boolTimer": True, "timeout": "1d"}, "trigger", {"manual": True, "release_after_h": 24.0}),
    ("ProtWait", {"timeout": 1800}, "trigger", {"after_h": 0.5}),
    ("ProtMonitor2dStreamer", {"batchSize": 25000}, "batches", {"count": 25000, "counted": "particles"}),
    ("ProtMonitor2dStreamer", {"batchSize": 10, "cumulativeBatch": True}, "milestones",
     {"at": [10, 20, 30, 40, 50, 60, 70, 80, 90, 100], "counted": "particles"}),
    ("ProtMonitor2dStreamer", {"batchSize": 100, "maximumOption": 1, "classificationJobs": 7}, "batches",
     {"count": 100, "counted": "particles", "max_batches": 7}),
    ("ProtMonitor2dStreamer", {"batchSize": 100, "maximumOption": 2, "numberParticles": 250, "cumulativeBatch": True},
     "milestones", {"at": [100, 200, 300], "counted": "particles", "then": "stop"}),
    ("ProtMonitor2dStreamer", {"batchSize": 100, "maximumOption": 0, "classificationJobs": 7}, "batches",
     {"count": 100, "counted": "particles"}),
    ("ProtSubSet", {"chooseAtRandom": True, "nElements": 30}, "subset", {"first": 30}),
    ("ProtSplitSet", {"numberOfSets": 3}, "split", {"parts": 3}),
    ("ProtUnionSet", {}, "union", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "use", "params"), FLOW_CASES)
def test_what_handles_streams_is_translated(name: str, values: Item, use: str, params: Item) -> None:
    flow = _flow(name, "particles", **values)
    assert (flow.use, flow.params) == (use, params)


@pytest.mark.parametrize(("name", "values", "use", "params"), FLOW_CASES)
def test_what_handles_streams_fits_the_installed_steps(name: str, values: Item, use: str, params: Item) -> None:
    if not streams.installed(use):
        pytest.skip(f"step type {use} is not installed")
    flow = _flow(name, "particles", **values)
    step = find_step(use)
    assert step.params.model_validate(flow.params)
    assert {PORTS[use], *flow.also} <= {port.name for port in step.ports}
    assert use == "milestones" or set(FLOWS[name].fields.values()) <= set(step.params.model_fields)


def test_what_a_launcher_and_a_splitter_say_besides_is_told_or_kept() -> None:
    translation = _translate(
        *_movies(),
        _item("ProtMonitor2dStreamer", 3, inputMicrographs="2.outputMicrographs", batchSize=5, startingNumber=3),
        _item("ProtSplitSet", 4, inputSet="2.outputMicrographs", numberOfSets=2, randomize=True),
    )
    assert "startingNumber 3: the first particles are not left out" in _row(translation, 3).notes
    assert (_row(translation, 3).kept, _row(translation, 4).kept) == ({}, {"randomize": True})


@pytest.mark.parametrize(
    ("size", "told"),
    [("2.number", ["outputSize is taken from protocol 2.number; look at count"]), ("many", ["outputSize is 'many'"]), ("20", [])],
)
def test_a_number_that_cannot_be_read_is_told(size: str, told: list[str]) -> None:
    translation = _translate(*_movies(), _item("XmippProtTriggerData", 3, inputImages="2.outputMicrographs", outputSize=size))
    row = _row(translation, 3)
    assert [note[: len(start)] for note, start in zip(row.notes, told, strict=True)] == told
    assert row.outcome == (CHANGED if told else MAPPED_SAME)


def _triggered() -> Translation:
    return _translate(
        *_movies(),
        _item("XmippProtTriggerData", 3, inputImages="2.outputMicrographs", outputSize=5, triggerWait=True),
        _item("TopazProtPicking", 4, inputMicrographs="3.outputMicrographs"),
        _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates"),
        _item("XmippProtTriggerData", 6, inputImages="5.outputParticles", outputSize=9, triggerSignal=True, triggerProt="3."),
        _item("ProtCryo2D", 7, inputParticles="6.outputParticles"),
        _item("ProtMonitor2dStreamer", 8, inputParticles="6.outputParticles", batchSize=100),
        _item("ProtCryo2D", 9, inputParticles="8.outputParticles"),
    )


@pytest.mark.usefixtures("without_flow")
def test_a_step_that_is_not_installed_is_kept_and_passed_by() -> None:
    translation = _triggered()
    assert translation.problems == ()
    assert translation.steps["picks"].inputs == {"micrograph": "aligned"}
    assert translation.steps["classes"].inputs == translation.steps["classes_2"].inputs == {"particles": "particles"}
    kept = translation.disabled["scipion_3"]
    assert (kept.use, kept.inputs, kept.params) == (
        "trigger", {"items": "aligned"}, {"mode": "growing", "count": 5, "counted": "exposures"},
    )  # fmt: skip
    assert kept.reason == "the step type trigger is not installed"
    assert translation.disabled["scipion_8"].use == "batches"


def test_a_trigger_closes_what_it_sends_its_signal_to() -> None:
    if not streams.installed("trigger"):
        pytest.skip("step type trigger is not installed")
    translation = _triggered()
    assert translation.problems == ()
    assert translation.steps["picks"].inputs == {"micrograph": "trigger"}
    assert translation.steps["trigger_2"].params == {
        "mode": "growing", "count": 9, "counted": "particles", "closes": ["trigger"],
    }  # fmt: skip
    assert translation.steps["batches"].inputs == {"items": "trigger_2"}
    assert translation.steps["classes_3"].inputs == {"particles": "trigger_2"}


def test_movies_are_read_with_the_gain_that_was_estimated_from_them() -> None:
    estimate = _item("XmippProtMovieGain", 2, inputMovies="1.outputMovies")
    motion = _item("ProtMotionCorr", 3, inputMovies="2.outputMovies")
    for given, gain in ({"gainFile": "/data/a.mrc"}, "gain"), ({}, "gain_estimate"):
        translation = _translate(_item("ProtImportMovies", 1, filesPath="/data", **given), estimate, motion)
        assert translation.problems == ()
        assert translation.steps["gain_estimate"].use == "estimate_gain"
        assert translation.steps["aligned"].inputs == {"movie": "movies", "gain": gain}


def test_defects_are_found_in_a_folder_of_their_own() -> None:
    translation = _translate(_movies()[0], _item("ProtMotionCorr", 2, inputMovies="1.outputMovies", defectMap="/k3/map.tif"))
    assert translation.options["--root defects"] == "/k3"
    assert translation.steps["aligned"].params["defects"] == "defects:map.tif"
    for path in ("map.tif", "/k3/../map.tif", "%(HOME)s/map.tif"):
        translation = _translate(_movies()[0], _item("ProtMotionCorr", 2, inputMovies="1.outputMovies", defectMap=path))
        assert "--root defects" not in translation.options
        assert any("not a full path of a file" in note for note in _row(translation, 2).notes)


@pytest.mark.parametrize(("flip", "turns"), [(flip, turns) for flip in range(3) for turns in range(4) if flip or turns])
def test_a_fixed_gain_is_turned_as_it_says(flip: int, turns: int) -> None:
    params = _params("ProtMotionCorr", MOVIE, gainRot=turns, gainFlip=flip)
    gain = np.arange(6).reshape(2, 3)
    turned = np.rot90(gain, -turns)
    expected = {0: turned, 1: turned[::-1], 2: turned[:, ::-1]}[flip]
    assert np.array_equal(orient_gain_2d(gain, orientation=params["gain_orientation"]), expected)


def test_the_second_ctf_is_fitted_in_another_way_where_another_program_fitted_it() -> None:
    for second, use in ("ProtGctf", "ctf_equiphase"), ("CistemProtCTFFind", "ctf"):
        translation = _translate(
            *_movies(),
            _item("CistemProtCTFFind", 3, inputMicrographs="2.outputMicrographs"),
            {**_item(second, 4, inputMicrographs="2.outputMicrographs", minDefocus=5000, maxDefocus=40000), "object.label": "B"},
            _item("XmippProtCTFConsensus", 5, calculateConsensus=True, inputCTF="3.outputCTF", inputCTF2="4.outputCTF"),
        )
        assert translation.problems == ()
        assert translation.steps["ctf"].use == "ctf"
        assert (translation.steps["ctf_2"].use, translation.steps["ctf_2"].label) == (use, "B")
        assert translation.steps["ctf_2"].params["defocus_um"] == [0.5, 4.0]


def test_two_ctfs_are_compared_and_averaged() -> None:
    common: Item = {"inputCTF": "3.outputCTF", "inputCTF2": "4.outputCTF", "minConsResol": 7}
    first = [
        *_movies(),
        _item("CistemProtCTFFind", 3, inputMicrographs="2.outputMicrographs"),
        _item("ProtGctf", 4, inputMicrographs="2.outputMicrographs"),
    ]
    for mean in (False, True):
        translation = _translate(
            *first,
            _item("XmippProtCTFConsensus", 5, calculateConsensus=True, averageDefocus=mean, **common),
            _item("ProtRelionExportCtf", 6, inputCTF="5.outputCTF"),
            _item("ProtRelionExportCtf", 7, inputCTF="5.outputCTFDiscarded"),
        )
        assert translation.problems == ()
        good = translation.steps["good"]
        assert (good.use, good.inputs) == ("ctf_consensus", {"micrograph": "aligned", "ctf": "ctf", "second": "ctf_2"})
        assert good.params["min_agreement_ang"] == 7
        assert _row(translation, 5).kept == {}
        assert translation.steps["relion"].inputs["ctf"] == ("mean_ctf" if mean else "good.ctf")
        assert translation.steps["relion_2"].inputs["ctf"] == "good.rejected.ctf"
        assert ("mean_ctf" in translation.steps) is mean
    translation = _translate(*first, _item("XmippProtCTFConsensus", 5, calculateConsensus=False, **common))
    assert translation.steps["good"].use == "ctf_filter"


def test_dose_is_measured_and_judged_and_the_gain_goes_on() -> None:
    translation = _translate(
        _item("ProtImportMovies", 1, filesPath="/data", gainFile="/data/gain.mrc"),
        _item("XmippProtMovieDoseAnalysis", 2, inputMovies="1.outputMovies", n_samples=30, percentage_threshold=4,
              window=60, percentage_window=25),
        _item("ProtMotionCorr", 3, inputMovies="2.outputMovies"),
        _item("ProtMotionCorr", 4, inputMovies="2.outputMoviesDiscarded"),
    )  # fmt: skip
    assert translation.problems == ()
    assert translation.steps["dosed"].inputs == {"movie": "movies", "dose": "dose", "reference": "dose_reference"}
    assert translation.steps["dosed"].params == {"max_deviation": 0.04}
    assert translation.steps["dose_reference"].params == {
        "n_samples": 30, "window": 60, "max_deviation": 0.04, "max_deviating_share": 0.25,
    }  # fmt: skip
    assert translation.steps["aligned"].inputs == {"movie": "dosed", "gain": "gain"}
    assert translation.steps["aligned_2"].inputs["movie"] == "dosed.rejected"


def test_tilt_keeps_its_limits() -> None:
    translation = _translate(
        *_movies(),
        _item("XmippProtTiltAnalysis", 3, inputMicrographs="2.outputMicrographs", autoWindow=False, window_size=512,
              objective_resolution=4, meanCorr_threshold=0.6, stdCorr_threshold=0.2),
    )  # fmt: skip
    assert translation.problems == ()
    assert translation.steps["tilt"].params == {"window_px": 512, "objective_resolution_ang": 4.0}
    assert translation.steps["level"].params == {"min_mean": 0.6, "max_std": 0.2}
    assert _row(translation, 3).kept == {}


@pytest.mark.parametrize("name", ["CryoassessProtMics", "MiffiProtMicrographs"])
def test_what_a_micrograph_shows_is_measured_and_judged(name: str) -> None:
    translation = _translate(
        *_movies(),
        _item(name, 3, inputMicrographs="2.outputMicrographs", threshold=0.1),
        _item("ProtGctf", 4, inputMicrographs="3.outputMicrographs"),
        _item("CistemProtCTFFind", 5, inputMicrographs="3.outputMicrographsDiscarded"),
    )
    assert translation.problems == ()
    assert translation.steps["clean"].inputs == {"micrograph": "aligned", "quality": "quality"}
    assert translation.steps["ctf"].inputs == {"micrograph": "clean"}
    assert translation.steps["ctf_2"].inputs == {"micrograph": "clean.rejected"}
    assert "threshold 0.1: a probability of a trained model there" in _row(translation, 3).notes[1]


def test_versions_of_a_whole_are_not_joined() -> None:
    translation = _translate(
        *_movies(),
        _item("TopazProtPicking", 4, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates"),
        _item("ProtCryo2D", 6, inputParticles="5.outputParticles"),
        _item("ProtRelionClassify2D", 7, inputParticles="5.outputParticles"),
        _item("ProtUnionSet", 8, inputSets=["6.outputClasses", "7.outputClasses"]),
    )
    assert translation.problems == ()
    assert _row(translation, 8).outcome == LEFT_OUT
    assert _row(translation, 8).notes == ("it reads no items of exposures that have an equivalent",)


def test_what_waits_for_another_comes_after_it() -> None:
    items = [*_movies(), _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs", _prerequisites="4")]
    items.append(_item("XmippProtMovieMaxShift", 4, inputMovies="2.outputMovies"))
    translation = _translate(*items)
    assert list(translation.steps).index("steady") < list(translation.steps).index("ctf")
    if "after" in StepSpec.model_fields:
        assert translation.steps["ctf"].model_dump()["after"] == ["steady"]
    else:
        assert "does not wait for 4" in _row(translation, 3).notes
    items[-1]["_prerequisites"] = "3"  # each waits for the other: only what they read counts
    assert {"ctf", "steady"} <= set(_translate(*items).steps)


def test_values_of_the_microscope_are_options(facility: list[Item]) -> None:
    assert _translate(*facility).options == {
        "--movies": "%(HOME)s/movies",
        "--voltage": "200",
        "--cs": "2.7",
        "--amplitude-contrast": "0.1",
        "--pixel-size": "0.5",
        "--dose-per-frame": None,
        "--pre-exposure": "0",
        "--gain": "/data/gain[1].mrc",
        "--set picks_2.diameter_ang": None,
    }


def test_fields_of_a_template_lose_nothing(facility: list[Item]) -> None:
    fields = {asked.parameter: asked for asked in _translate(*facility).fields}
    assert {name: asked.target for name, asked in fields.items()} == {
        "filesPath": "--movies",
        "voltage": "--voltage",
        "dosePerFrame": "--dose-per-frame",
        "resolution": "--set good.max_resolution_ang",
    }
    told = fields["resolution"].asked
    assert (told.label, told.default, told.type, told.cmd_id) == ("Worst resolution", "4.5", "decimal", "resolution")


def test_the_pixel_size_of_a_scanner_is_computed() -> None:
    item = _item("ProtImportMicrographs", 1, samplingRateMode=1, scannedPixelSize=7.0, magnification=50000)
    assert _translate(item).options == {"--micrographs": None, "--pixel-size": "1.4"}


def test_imported_micrographs_are_prepared() -> None:
    translation = _translate(
        _item("ProtImportMicrographs", 1, filesPath="/data/mics"), _item("ProtGctf", 2, inputMicrographs="1.outputMicrographs")
    )
    assert translation.steps["ctf"].inputs == {"micrograph": "prepared"}
    assert translation.steps["prepared"].inputs == {"micrograph": "micrographs"}
    assert translation.problems == ()


def test_a_second_import_has_a_root_of_its_own() -> None:
    translation = _translate(*_movies(voltage=300), _item("ProtImportMovies", 3, filesPath="/other", voltage=200))
    assert translation.steps["movies_2"].params["root"] == "movies_2"
    assert translation.options["--root movies_2"] == "/other"
    assert "--voltage is 200 here and 300 before; a session has one value" in _row(translation, 3).notes


def test_a_gain_reaches_motion_correction_and_only_the_first_one() -> None:
    translation = _translate(*_movies(gainFile="/data/a.mrc"), _item("ProtImportMovies", 3, gainFile="/data/b.mrc"))
    assert translation.steps["aligned"].inputs == {"movie": "movies", "gain": "gain"}
    assert translation.steps["gain"].params == {"pattern": "a.mrc"}
    assert any("second gain reference" in note for note in _row(translation, 3).notes)
    assert "gain" not in _translate(*_movies()).steps


@pytest.mark.parametrize(("index", "rule"), [(0, "frame"), (1, "movie"), (2, "frame and movie"), (3, "frame or movie")])
def test_the_rule_of_max_shift_keeps_its_meaning(index: int, rule: str) -> None:
    params = _params(
        "XmippProtMovieMaxShift", {"inputMovies": "2.outputMovies"}, rejType=index, maxFrameShift=5, maxMovieShift="20"
    )
    assert params == {"rule": rule, "max_frame_shift_ang": 5.0, "max_movie_shift_ang": 20.0}


@pytest.mark.parametrize(
    ("name", "pointers", "values", "params"),
    [
        ("XmippProtFlexAlign", MOVIE, {"maxShift": 50, "doLocalAlignment": False}, {"local": False, "max_shift_px": 100.0}),
        ("XmippProtFlexAlign", MOVIE, {"autoPatches": False, "patchesX": 6, "patchesY": 8}, {"patches": [8, 6]}),
        ("XmippProtFlexAlign", MOVIE, {"autoPatches": True, "patchesX": 6, "patchesY": 8}, {}),
        ("ProtMotionCorr", MOVIE, {"patchX": 0, "patchY": 0, "alignFrame0": 1, "alignFrameN": 0},
         {"local": False, "first_frame": 0}),
        ("ProtMotionCorr", MOVIE, {"splitEvenOdd": True, "doSaveUnweightedMic": False, "doApplyDoseFilter": False},
         {"write_halves": True, "write_unweighted": False, "dose_weighting": "off"}),
        ("ProtMotionCorr", MOVIE, {"doApplyDoseFilter": True, "gainRot": 0, "gainFlip": 0}, {}),
        ("ProtMotionCorr", MOVIE, {"gainRot": 3, "gainFlip": 0}, {"gain_orientation": "rot90"}),
        ("ProtMotionCorr", MOVIE, {"gainRot": 1, "gainFlip": 1}, {"gain_orientation": "flip rot90"}),
        ("ProtMotionCorr", MOVIE, {"gainFlip": 2}, {"gain_orientation": "flip rot180"}),
        ("ProtRelionMotioncor", MOVIE, {"doDW": False}, {"dose_weighting": "off"}),
        ("ProtRelionMotioncor", MOVIE, {"saveNonDW": False}, {"write_unweighted": False}),
        ("ProtMotionCorr", MOVIE, {"defectFile": "/data/k3/defects.txt"}, {"defects": "defects:defects.txt"}),
        ("ProtRelionMotioncor", MOVIE, {"patchX": 2, "patchY": 5}, {"local": False}),
        ("ProtRelionMotioncor", MOVIE, {"patchX": 3, "patchY": 5, "groupFrames": 2},
         {"local": True, "patches": [5, 3], "group": 2}),
        ("XmippProtCTFMicrographs", MICROGRAPH, {"minDefocus": 0.25, "maxDefocus": 4, "lowRes": 0.05}, {"defocus_um": [0.25, 4]}),
        ("XmippProtCTFMicrographs", MICROGRAPH, {"minDefocus": 2500, "maxDefocus": 40000}, {"defocus_um": [0.25, 4.0]}),
        ("CistemProtCTFFind", MICROGRAPH, {"findPhaseShift": True, "minPhaseShift": 0, "maxPhaseShift": 180},
         {"phase_shift_deg": [0, 180]}),
        ("CistemProtCTFFind", {"inputMovies": "2.outputMovies"}, {"lowRes": "30", "highRes": "5"}, {"resolution_ang": [30, 5]}),
        ("XmippProtCTFConsensus", {"inputCTF": "3.outputCTF"}, {"useDefocus": False},
         {"defocus_um": None, "max_relative_astigmatism": None, "min_confidence": None}),
        ("XmippProtCTFConsensus", {"inputCTF": "3.outputCTF"}, {"useAstigmatism": "true", "astigmatism": 900},
         {"max_astigmatism_ang": 900.0, "max_relative_astigmatism": None, "min_confidence": None}),
        ("ProtGctf", MICROGRAPH, {"minDefocus": 0.5, "maxDefocus": 4, "lowRes": 0.05, "highRes": 0.35, "doPhShEst": True,
                                  "phaseShiftL": 10, "phaseShiftH": 170},
         {"defocus_um": [0.5, 4], "resolution_ang": [20, 2.857], "phase_shift_deg": [10, 170]}),
        ("CistemProtCTFFind", MICROGRAPH, {"lowRes": 0.05, "highRes": 0.25, "ctfDownFactor": 2.0}, {"resolution_ang": [40, 8]}),
        ("XmippProtCTFMicrographs", MICROGRAPH, {"lowRes": 0.05, "highRes": 0.4}, {"resolution_ang": [20, 2.5]}),
        ("ProtGctf", MICROGRAPH, {"minDefocus": 0.5, "maxDefocus": 4, "lowRes": 4, "highRes": 20}, {"defocus_um": [0.5, 4]}),
        ("ProtRelion2Autopick", MICROGRAPH, {"particleDiameter": 200}, {"diameter_ang": [180, 220]}),
        ("XmippProtExtractParticles", PICKS, {"downFactor": 2.0, "boxSize": 64, "backRadius": 30},
         {"box_px": 128, "scaled_box_px": 64, "background_diameter_ang": 120}),
        ("ProtRelionAutopickLoG", MICROGRAPH, {"minDiameter": 90, "maxDiameter": 110, "areParticlesWhite": True},
         {"diameter_ang": [90, 110], "dark": False}),
        ("ProtCryoSparcPatchCTFEstimate", MICROGRAPH, {}, {}),
        ("ProtCryoSparcBlobPicker", MICROGRAPH, {}, {}),
        ("DogPickerProtPicking", MICROGRAPH, {"diameter": 100}, {"diameter_ang": [90, 110]}),
        ("SphireProtCRYOLOPicking", MICROGRAPH, {"boxSize": 0}, {}),
        ("XmippProtExtractParticles", PICKS, {"boxSize": 201, "doRemoveDust": False, "doFlip": True, "backRadius": 60},
         {"box_px": 200, "dust_level": None, "phase_flip": True, "background_diameter_ang": 120.0}),
        ("XmippProtExtractParticles", PICKS, {"boxSize": 200, "doResize": True, "resizeOption": 0, "downFactor": 4},
         {"box_px": 200, "scaled_box_px": 50}),
        ("XmippProtExtractParticles", PICKS, {"boxSize": 200, "doResize": True, "resizeOption": 2, "resizeSamplingRate": 2.5},
         {"box_px": 200, "scaled_box_px": 80}),
        ("ProtRelionExtractParticles", PICKS, {"boxSize": 256, "doRescale": False, "rescaledSize": 64, "saveFloat16": False,
         "stddevWhiteDust": 5, "stddevBlackDust": -1}, {"box_px": 256, "dust_level": 5.0, "stored_as": "float32"}),
        ("XmippProtExtractParticles", PICKS, {"boxSize": 200, "doNormalize": True, "normType": 2, "doBorders": True},
         {"box_px": 200, "normalise": "ramp", "at_border": "pad"}),
        ("XmippProtExtractParticles", PICKS, {"boxSize": 200, "doNormalize": True, "normType": 1, "doBorders": False},
         {"box_px": 200, "normalise": "mean", "at_border": "leave_out"}),
        ("ProtRelionExtractParticles", PICKS, {"boxSize": 200, "doNormalize": False}, {"box_px": 200, "normalise": "none"}),
        ("ProtRelionExtractParticles", PICKS, {"boxSize": 200, "doNormalize": True}, {"box_px": 200, "normalise": "ramp"}),
        ("ProtRelionClassify2D", PARTICLES, {"numberOfClasses": 64, "maskDiameterA": -1, "inplaneAngularSamplingDeg": 5},
         {"n_classes": 64, "psi_step_deg": 5.0}),
        ("XmippProtClassifyPcaStreaming", PARTICLES, {"numberOfClasses": 40, "resolution": 8}, {"n_classes": 40, "limit_ang": 8}),
        ("XmippProtStrGpuCrrCL2D", PARTICLES, {"numClasses": 1000, "blockSize": 5000}, {}),
    ],
)  # fmt: skip
def test_parameters_are_converted(name: str, pointers: Item, values: Item, params: Item) -> None:
    assert _params(name, pointers, **values) == params


def test_sizes_on_scaled_micrographs_are_those_on_ours() -> None:
    params = {}
    for down in (False, True):
        translation = _translate(
            *_movies(),
            _item("XmippProtPreprocessMicrographs", 3, inputMicrographs="2.outputMicrographs", doDownsample=down, downFactor=4),
            _item("SphireProtCRYOLOPicking", 4, inputMicrographs="3.outputMicrographs", boxSize=30),
            _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates", boxSize=50),
        )
        params[down] = {**translation.steps["picks"].params, **translation.steps["particles"].params}
    assert params == {
        False: {"diameter_ang": [27.0, 33.0], "box_px": 50},
        True: {"diameter_ang": [108.0, 132.0], "box_px": 200},
    }


def test_what_was_discarded_is_what_is_rejected() -> None:
    translation = _translate(
        *_movies(),
        _item("XmippProtMovieMaxShift", 3, inputMovies="2.outputMovies"),
        _item("ProtGctf", 4, inputMicrographs="3.outputMicrographsDiscarded"),
        _item("XmippProtCTFConsensus", 5, inputCTF="4.outputCTF"),
        _item("ProtRelionExportCtf", 6, inputCTF="5.outputCTFDiscarded"),
    )
    assert translation.steps["ctf"].inputs == {"micrograph": "steady.rejected"}
    assert translation.steps["relion"].inputs == {"micrograph": "good.rejected.micrograph", "ctf": "good.rejected.ctf"}
    assert translation.problems == ()


def test_the_export_finds_micrograph_and_ctf_of_its_particles() -> None:
    translation = _translate(
        *_movies(),
        _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs"),
        _item("TopazProtPicking", 4, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates", ctfRelations="3.outputCTF"),
        _item("ProtRelionExportParticles", 6, inputParticles="5.outputParticles"),
    )
    assert translation.steps["relion"].inputs == {"micrograph": "aligned", "ctf": "ctf", "particles": "particles"}
    assert translation.options["--diameter"] is None
    assert translation.problems == ()


def _classified(*items: Item) -> Translation:
    return _translate(
        *_movies(),
        _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs"),
        _item("TopazProtPicking", 4, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtExtractParticles", 5, inputCoordinates="4.outputCoordinates", ctfRelations="3.outputCTF"),
        _item("XmippProtStrGpuCrrCL2D", 6, inputParticles="5.outputParticles"),
        *items,
    )


def test_coordinates_of_particles_are_picks_on_another_micrograph() -> None:
    translation = _classified(
        _item("ProtExtractCoords", 7, inputParticles="5.outputParticles", inputMicrographs="2.outputMicrographs"),
        _item("XmippProtExtractParticles", 8, inputCoordinates="7.outputCoordinates", boxSize=200),
    )
    assert translation.problems == ()
    assert translation.steps["coordinates"].use == "extract_coordinates"
    assert translation.steps["coordinates"].inputs == {"micrograph": "aligned", "particles": "particles"}
    assert translation.steps["particles_2"].inputs == {"micrograph": "aligned", "picks": "coordinates"}


def test_coordinates_of_classes_are_moved_by_their_assignments() -> None:
    """A classification gives its particles, with their shifts, where Scipion reads its classes."""
    classified = _item("XmippProtCenterParticles", 7, inputClasses="6.outputClasses", inputMics="2.outputMicrographs")
    translation = _classified(classified, _item("ProtRelionClassify2D", 8, inputParticles="7.outputParticles"))
    assert translation.problems == ()
    assert translation.steps["centred"].use == "centre_particles"
    assert translation.steps["centred"].inputs == {
        "micrograph": "aligned",
        "particles": "particles",
        "assignments": "classes.assignments",
        "classes": "classes",
    }
    assert translation.steps["classes_2"].inputs == {"particles": "centred"}
    assert _row(translation, 7).outcome == CHANGED


def test_a_sample_balanced_over_defocus_learns_the_distribution_first() -> None:
    translation = _translate(
        *_movies(),
        _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtMicDefocusSampler", 4, inputCTF="3.outputCTF", numImages=25, minImages=100),
        _item("TopazProtPicking", 5, inputMicrographs="4.outputMicrographs"),
        _item("XmippProtExtractParticles", 6, inputCoordinates="5.outputCoordinates", ctfRelations="4.outputCTF"),
    )
    assert translation.problems == ()
    assert translation.steps["defocus"].use == "defocus_distribution"
    assert translation.steps["defocus"].params == {"first_count": 100}
    assert translation.steps["sample"].params == {"fraction": 0.25}
    assert translation.steps["sample"].inputs == {"ctf": "ctf", "micrograph": "aligned", "distribution": "defocus"}
    assert translation.steps["picks"].inputs == {"micrograph": "sample.micrograph"}
    assert translation.steps["particles"].inputs["ctf"] == "sample.ctf"


def test_what_reads_something_unknown_is_left_out_with_the_reason() -> None:
    translation = _translate(
        *_movies(),
        _item("LabProtNew", 3, inputMovies="2.outputMovies"),
        _item("ProtGctf", 4, inputMicrographs="3.output"),
        _item("CistemProtCTFFind", 5, inputMovies="1.outputMovies"),
    )
    assert _row(translation, 3).outcome == UNKNOWN
    assert "3.output of LabProtNew has no equivalent" in _row(translation, 4).notes[0]
    assert "inputMovies gives Movie, not Micrograph" in _row(translation, 5).notes[0]
    assert list(translation.steps) == ["movies", "aligned"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"binFactor": 0.5}, "bin 0.5 is refused and left at its default: Input should be greater than or equal to 1"),
        ({"binFactor": "two"}, "binFactor is 'two', which is not a number; bin is left at its default"),
        ({"binFactor": "inf"}, "binFactor is inf, which is not a finite number"),
        ({"binFactor": "9" * 400}, "binFactor is inf, which is not a finite number"),
        ({"group": 1.5}, "group is 1.5, which is not a whole number"),
        ({"eerSampling": 7}, "eerSampling is 7; known are 0 to 2"),
        ({"alignFrame0": 9, "alignFrameN": 3}, "last_frame 2 is refused and left at its default"),
        ({"patchX": 40, "patchY": 40}, "it must be 2 to 16 along each axis"),
    ],
)
def test_a_value_that_we_do_not_take_is_told_and_kept(values: Item, told: str) -> None:
    translation = _translate(_movies()[0], _item("ProtMotionCorr", 2, inputMovies="1.outputMovies", **values))
    assert any(told in note for note in _row(translation, 2).notes)
    assert translation.problems == ()
    assert set(values) <= set(_row(translation, 2).kept)


@pytest.mark.parametrize(
    ("folder", "pattern", "expected"),
    [
        ("/data", "*.tiff", ("/data", "*.tiff")),
        ("/data/grid*/raw", "m_##.mrc", ("/data", "grid*/raw/m_[0-9][0-9].mrc")),
        ("/data/movie_1.mrc", None, ("/data", "movie_1.mrc")),
        ("/data", None, ("/data", None)),
        (None, "*.tiff", (None, "*.tiff")),
        (None, None, (None, None)),
    ],
)
def test_folder_and_pattern_are_taken_apart(
    folder: str | None, pattern: str | None, expected: tuple[str | None, str | None]
) -> None:
    assert split_pattern(folder, pattern) == expected


def test_the_table_names_only_what_our_steps_have() -> None:
    assert set(MAPPED) & set(UNMAPPED) == set()
    for name, mapping in MAPPED.items():
        step = find_step(mapping.use)
        assert {rule.target for rule in mapping.rules} <= set(step.params.model_fields), name
        assert set(mapping.ports) <= {port.name for port in step.ports}, name
        assert mapping.step.isidentifier()
        for first in mapping.first:
            measured = find_step(first.use)
            assert {rule.target for rule in first.rules} <= set(measured.params.model_fields), name
            assert set(first.inputs) == {port.name for port in measured.ports if not port.optional}, name
            assert first.port in {port.name for port in step.ports}, name
    assert all(unmapped.reason for unmapped in UNMAPPED.values())
    assert (set(MAPPED) | set(UNMAPPED)) & set(FLOWS) == set()


NAMED = {
    "import": "ProtImportMovies ProtImportMicrographs ProtImportCTF ProtImportCoordinates ProtImportParticles ProtImportAverages",
    "alignment": "ProtMotionCorr ProtMotionCorrNewStreaming ProtMotionCorrTasks XmippProtFlexAlign XmippProtMovieCorr "
    "ProtRelionMotioncor CistemProtUnblur XmippProtConsensusMovieAlignment XmippProtOFAlignment XmippProtMovieAverage",
    "movies": "XmippProtMovieGain XmippProtMovieMaxShift XmippProtMovieDoseAnalysis XmippProtExtractMovieParticles",
    "micrographs": "XmippProtTiltAnalysis XmippProtPreprocessMicrographs CryoassessProtMics MiffiProtMicrographs",
    "ctf": "CistemProtCTFFind ProtGctf XmippProtCTFMicrographs XmippProtCTFConsensus XmippProtCTFSelection "
    "XmippProtMicDefocusSampler",
    "picking": "SphireProtCRYOLOPicking ProtRelionAutopickLoG ProtRelion2Autopick TopazProtPicking ProtGautomatch "
    "XmippParticlePickingAutomatic XmippProtParticlePicking SparxGaussianProtPicking EmanProtAutopick DogPickerProtPicking "
    "XmippProtConsensusPicking XmippProtPickingRemoveDuplicates ProtBoxSizeParameters ProtBoxSizeCheckpoint "
    "XmippProtParticleBoxsize XmippProtPickingDifference ProtPickingDifference XmippProtPickNoise CistemProtFindParticles",
    "deep": "XmippProtScreenDeepConsensus XmippProtDeepMicrographScreen",
    "extraction": "XmippProtExtractParticles ProtRelionExtractParticles ProtExtractCoords",
    "flow": "XmippProtTriggerData ProtDataCounter ProtDataSampler ProtManualCheckpoint ProtWait ProtSubSet ProtUnionSet "
    "ProtSplitSet ProtSubSetByMic ProtSubSetByCoord ProtSetFilter",
    "2d": "XmippProtStrGpuCrrSimple XmippProtStrGpuCrrCL2D XmippProtClassifyPca XmippProtClassifyPcaStreaming "
    "ProtMonitor2dStreamer ProtRelionClassify2D ProtCryo2D XmippProtCL2D CistemProtRefine2D",
    "selection": "XmippProtEliminateEmptyClasses ProtRelionSelectClasses2D CryoassessProt2D ProtGoodClassesExtractor "
    "ProtClassesSelector XmippProtCL2DClustering XmippProtCL2DMap XmippProtCenterParticles ProtVolumeExtractor "
    "XmippProtEliminateEmptyParticles XmippProtScreenParticles",
    "3d": "XmippProtReconstructSignificant XmippProtRansac EmanProtInitModel ProtCryoSparcInitialModel ProtRelionInitialModel "
    "XmippProtReconstructSwarm XmippProtConsensusClasses XmippProtConsensusClasses3D XmippProtVolConsensus "
    "XmippProtSplitvolume XmippProtAlignVolume XmippProtCropResizeVolumes",
    "provenance": "UsedItemsTracker ProtOSCEM ProtMonitorSummary ProtMonitorCTF ProtMonitorMovieGain ProtMonitorSystem",
}
"""The protocols of a facility's streaming workflows, from import to the first volume."""


@pytest.mark.parametrize("name", sorted({name for group in NAMED.values() for name in group.split()}))
def test_every_protocol_of_streaming_is_known_by_name(name: str) -> None:
    assert name in MAPPED or name in FLOWS or name in UNMAPPED or name in MONITORS
    translation = _translate(_item(name, 1))
    assert translation.rows[0].outcome != UNKNOWN
    assert translation.rows[0].step is not None or translation.disabled["scipion_1"].params["object.className"] == name


@pytest.mark.usefixtures("without_flow")
def test_the_workflow_is_accepted_as_it_is(facility: list[Item]) -> None:
    steps = _translate(*facility).steps
    picks = steps["picks_2"].model_copy(update={"params": {"diameter_ang": [100, 120]}})
    graph = build_graph(Workflow(steps={**steps, "picks_2": picks}))
    assert graph.inputs_of("particles") == {"good", "consensus", "ctf"}


def test_sizes_without_bounds_are_told_not_raised() -> None:
    translation = _translate(
        *_movies(scannedPixelSize=7, samplingRateMode=1, magnification=1e-320, timeout="9" * 400 + "d"),
        _item("TopazProtPicking", 3, inputMicrographs="2.outputMicrographs"),
        _item(
            "XmippProtExtractParticles",
            4,
            inputCoordinates="3.outputCoordinates",
            boxSize=1e308,
            doResize=True,
            resizeOption=0,
            downFactor=1e-320,
        ),
    )
    assert "--pixel-size" not in translation.options
    assert "idle_s" not in translation.steps["movies"].params
    assert "scaled_box_px" not in translation.steps["particles"].params


def test_a_part_of_a_workflow_keeps_what_stands_on_its_own_and_tells_what_is_missing() -> None:
    translation = _translate(*_movies(), _item("ProtGctf", 3, inputMicrographs="9.outputMicrographs"))
    assert translation.problems == ()
    assert {spec.use for spec in translation.steps.values()} == {"import_movies", "motion"}
    assert translation.disabled["scipion_9"].reason == "is not in this file: export it together with what reads it"
    assert "9.outputMicrographs" in translation.disabled["scipion_3"].reason


TWO_PICKERS = (
    _item("TopazProtPicking", 4, inputMicrographs="2.outputMicrographs"),
    _item("DogPickerProtPicking", 5, inputMicrographs="2.outputMicrographs", diameter=100),
)
BOTH = ["4.outputCoordinates", "5.outputCoordinates"]


@pytest.mark.parametrize(
    ("values", "params"),
    [
        ({"consensus": -1, "consensusRadius": 10}, {"rule": "all", "radius_px": 10.0}),
        ({"consensus": 1}, {"rule": "any"}),
        ({"consensus": 2, "mode": 0}, {"rule": "at_least", "votes": 2}),
        ({"consensus": 1, "mode": 1}, {"rule": "exactly", "votes": 1}),
        ({"consensus": 2, "mode": "="}, {"rule": "exactly", "votes": 2}),
    ],
)
def test_a_consensus_of_pickers_keeps_its_rule(values: Item, params: Item) -> None:
    translation = _translate(*_movies(), *TWO_PICKERS, _item("XmippProtConsensusPicking", 6, inputCoordinates=BOTH, **values))
    step = translation.steps["consensus"]
    assert (step.use, step.params) == ("pick_consensus", params)
    assert step.inputs == {"micrograph": "aligned", "picks": ["picks", "picks_2"]}
    assert translation.problems == ()


def test_duplicates_and_differences_of_picks_are_steps() -> None:
    translation = _translate(
        *_movies(),
        *TWO_PICKERS,
        _item("XmippProtPickingRemoveDuplicates", 6, inputCoordinates="4.outputCoordinates", consensusRadius=-1),
        _item("XmippProtPickingDifference", 7, inputCoordinates=BOTH[0], negativeCoordinates=BOTH[1], differenceRadius=12),
    )
    single, difference = translation.steps["single"], translation.steps["difference"]
    assert (single.use, single.inputs, single.params) == (
        "remove_duplicates",
        {"micrograph": "aligned", "picks": "picks"},
        {},
    )
    assert (difference.use, difference.params) == ("pick_difference", {"radius_px": 12.0})
    assert difference.inputs == {"micrograph": "aligned", "picks": "picks", "without": ["picks_2"]}


def test_imported_coordinates_are_read_from_their_folder() -> None:
    translation = _translate(
        *_movies(),
        _item(
            "ProtImportCoordinates",
            6,
            inputMicrographs="2.outputMicrographs",
            filesPath="/data/boxes",
            filesPattern="*.box",
            boxSize=100,
            scale=2.0,
            invertY=True,
        ),
    )
    step = translation.steps["imported"]
    assert (step.use, step.inputs) == ("import_picks", {"micrograph": "aligned"})
    pixel_ang = step.params["picked_pixel_ang"] / 2
    assert step.params == {"diameter_ang": 100 * pixel_ang, "flip_y": True, "picked_pixel_ang": 2 * pixel_ang}
    assert translation.options["--root picks"] == "/data/boxes"
    assert translation.problems == ()
