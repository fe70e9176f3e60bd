"""Numbers and sentences of records, as what is shown of them declares."""

import pytest

from icestream.observe.panels import join_sentences
from icestream.observe.sampling import Series
from icestream.observe.values import (
    WEIGHT,
    field_at,
    holds,
    paths_of,
    pictures_in,
    sentence_of,
    series_of,
    tell,
    unit_in,
    value_of,
)
from icestream.records import CtfFit, GainReference, Micrograph
from icestream.records.shown import Number, Text, When

RECORD = {
    "u": 12000.0,
    "v": 11000,
    "bin": 2.0,
    "shift_px": 3.0,
    "track": [[0, 0], [1, 1]],
    "count": 7,
    "kind": "bare_ice",
    "note": "only 2 images",
    "deep": {"value": 0.25, "unset": None},
    "flag": True,
}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (Number("", "deep.value", "%", factor=100.0), 25.0),
        (Number("", "u", second="v", how="mean", factor=1e-4), 1.15),
        (Number("", "v", second="u", how="distance"), 1000.0),
        (Number("", "track", how="length"), 2.0),
        (Number("", how="weight"), 7.0),
        (Number("", "shift_px", pixels="raw"), 4.5),
        (Number("", "shift_px", pixels="own"), 9.0),
        (Number("", "deep.unset"), None),
        (Number("", "deep.unset.further"), None),
        (Number("", "nothing.at.all"), None),
        (Number("", "u", second="deep.unset", how="mean"), None),
        (Number("", "kind"), None),
        (Number("", "flag"), None),
    ],
)
def test_a_number_is_made_of_fields(number: Number, value: float | None) -> None:
    found = value_of(number, RECORD, pixel_size_ang=1.5)
    assert found == (None if value is None else pytest.approx(value))


def test_lengths_are_in_pixels_while_nobody_knows_their_size() -> None:
    number = Number("Shift", "shift_px", "px", pixels="own")
    assert tell((number,), RECORD) == (("Shift", 3.0, "px"),)
    assert tell((number,), RECORD, pixel_size_ang=1.5) == (("Shift", 9.0, "Å"),)
    assert unit_in(Number("", "u", "µm"), 1.5) == "µm"


def test_a_series_has_the_exposures_that_have_every_field() -> None:
    number = Number("", "u", second="v", how="distance")
    found = {"u": Series((1, 2, 4), (5.0, 6.0, 7.0), 2), "v": Series((2, 3, 4), (1.0, 2.0, 10.0), 2)}
    assert series_of(number, found, None) == Series((2, 4), (5.0, 3.0), 2)
    assert paths_of(Number("", how="weight")) == (WEIGHT,)
    assert paths_of(Number("", "shift_px", pixels="own")) == ("shift_px", "bin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (Text("{kind:words}: {v}"), "bare ice: 11000"),
        (Text("{note:sentence}"), "Only 2 images"),
        (Text("{deep.unset} is not said"), None),
        (Text("said", When("kind", equals="bare_ice")), "said"),
        (Text("said", When("kind", equals="great")), None),
        (Text("said", When("deep")), "said"),
        (Text("said", When("deep.unset")), None),
        (Text("said", When("note", begins="only")), "said"),
        (Text("said", When("note", begins="none")), None),
    ],
)
def test_a_sentence_is_said_where_its_fields_are_set_and_its_condition_holds(text: Text, said: str | None) -> None:
    assert sentence_of(text, RECORD) == said


def test_sentences_are_joined_with_one_full_stop() -> None:
    assert (
        join_sentences(["The path", "", "Only 2 images.", "It was recomputed."]) == "The path. Only 2 images. It was recomputed."
    )
    assert join_sentences(["The path"]) == "The path"
    assert holds(None, RECORD)
    assert field_at(RECORD, "deep.value") == 0.25


def test_pictures_of_a_record_have_titles() -> None:
    fit = {"spectrum": "session:a.png"}
    assert pictures_in(CtfFit.shown, fit) == (("Power spectrum", "session:a.png"),)
    gain = {"monitor": {"picture": "session:g.png", "residual_picture": None}}
    assert pictures_in(GainReference.shown, gain) == (("Learnt gain", "session:g.png"),)
    assert pictures_in(Micrograph.shown, {"thumbnail": "session:t.png"}) == ()
