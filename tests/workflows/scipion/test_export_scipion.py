"""Workflows written as Scipion's JSON: what is read back is the same, and everything else is told."""

import json

import pytest

from icestream.workflows import list_workflows, load_template
from icestream.workflows.scipion.export import export_scipion
from icestream.workflows.scipion.export_words import CHOSEN, WRITERS
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.table import MAPPED
from icestream.workflows.scipion.translate import translate_scipion
from icestream.workflows.template import Template

STEPS = {
    "movies": {"use": "import_movies", "params": {"pattern": "*.tiff", "idle_s": 600}},
    "aligned": {"use": "motion", "in": {"movie": "movies"}, "params": {"bin": 2.0, "patches": [5, 7], "write_halves": True}},
    "steady": {"use": "max_shift", "in": {"micrograph": "aligned"}, "params": {"rule": "movie", "max_movie_shift_ang": 12.0}},
    "fit": {
        "use": "ctf",
        "label": "First CTF",
        "note": "as in March",
        "in": {"micrograph": "steady"},
        "params": {"defocus_um": [0.4, 3.5], "resolution_ang": [25.0, 4.5], "phase_shift_deg": [0.0, 120.0]},
    },
    "good": {"use": "ctf_filter", "in": {"micrograph": "steady", "ctf": "fit"}, "params": {"max_resolution_ang": 4.5}},
    "picks": {"use": "pick_blob", "in": {"micrograph": "good"}, "params": {"diameter_ang": [110.0, 140.0]}},
}


def test_what_scipion_can_say_comes_back_as_it_was() -> None:
    made = export_scipion(
        Template.model_validate({"steps": STEPS, "roots": {"movies": "/data"}, "acquisition": {"voltage_kv": 300}})
    )
    back = translate_scipion(parse_scipion(made.text, name="w.json"))
    assert [spec.use for spec in back.steps.values()] == [spec["use"] for spec in STEPS.values()]
    aligned, ctf = back.steps["aligned"], back.steps["ctf"]
    assert (aligned.params["bin"], aligned.params["patches"], aligned.params["write_halves"]) == (2.0, [5, 7], True)
    assert (ctf.params["defocus_um"], ctf.params["phase_shift_deg"]) == ([0.4, 3.5], [0.0, 120.0])
    assert (ctf.label, back.steps["steady"].params["rule"]) == ("First CTF", "movie")
    assert back.steps["good"].inputs == {"micrograph": "steady", "ctf": "ctf"}
    assert (back.options["--movies"], back.options["--voltage"]) == ("/data", "300")
    written = {one["object.label"]: one for one in json.loads(made.text)}
    assert (written["First CTF"]["object.comment"], written["movies"]["filesPattern"]) == ("as in March", "*.tiff")


def test_what_scipion_cannot_say_is_told() -> None:
    steps = STEPS | {
        "junk": {"use": "mask_junk", "in": {"micrograph": "good"}},
        "clean": {"use": "mask_picks", "in": {"picks": "picks", "mask": "junk"}},
        "boxes": {"use": "extract", "in": {"micrograph": "good", "picks": "clean", "ctf": "good.ctf"}, "params": {"box_px": 200}},
    }
    steps["aligned"] = {**STEPS["aligned"], "params": {"bin": 2.0, "max_shift_px": 77.0}}
    made = export_scipion(Template.model_validate({"steps": steps}))
    told = "\n".join(made.left_out)
    assert "junk (mask_junk) has no counterpart in Scipion" in told
    assert "clean (mask_picks) has no counterpart in Scipion; what reads it reads picks" in told
    assert "aligned: max_shift_px 77.0 cannot be said" in told
    assert "boxes: input picks reads clean" in told
    boxes = next(one for one in json.loads(made.text) if one["object.label"] == "boxes")
    assert boxes["inputCoordinates"] == "600.outputCoordinates"


def test_what_is_asked_for_becomes_a_field() -> None:
    document = {
        "placeholders": {
            "where": {"label": "Movies | here", "type": "folder"},
            "binning": {"label": "Bin", "type": "float", "default": 2},
        },
        "roots": {"movies": {"ask": "where"}},
        "steps": {
            "movies": STEPS["movies"],
            "aligned": {"use": "motion", "in": {"movie": "movies"}, "params": {"bin": {"ask": "binning"}}},
        },
    }
    movies, aligned = json.loads(export_scipion(Template.model_validate(document)).text)
    assert (movies["filesPath"], aligned["binFactor"]) == ("~Movies / here||6|where~", "~Bin|2|4|binning~")


@pytest.mark.parametrize("name", sorted(list_workflows()))
def test_every_template_can_be_exported_and_read_again(name: str) -> None:
    made = export_scipion(load_template(name))
    back = translate_scipion(parse_scipion(made.text, name=name))
    assert len(json.loads(made.text)) == len({row.protocol.id for row in back.rows})


def test_each_protocol_stands_for_a_step_that_the_importer_knows() -> None:
    assert {class_name for class_name in CHOSEN.values() if class_name not in MAPPED} == set()
    assert set(WRITERS) <= set(CHOSEN)
