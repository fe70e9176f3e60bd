"""Stored names, columns, and what is shown of records: checked where they are declared, and kept in words that last."""

from typing import Any, ClassVar

import numpy as np
import pytest

from icestream.errors import DeclarationError
from icestream.flow.declaration.declare import step
from icestream.flow.declaration.registry import find_step, step_names
from icestream.io.blocks import dtype_of
from icestream.records import (
    ClassAssignments,
    CtfFit,
    FileRef,
    Micrograph,
    MovieDose,
    Particles,
    Picks,
    Record,
    named_records,
    record_named,
)
from icestream.records.ctf import CTF_COLUMNS, TWO_CTFS
from icestream.records.description import (
    describe_record,
    read_comparison,
    read_description,
    write_comparison,
    write_description,
)
from icestream.records.shown import Card, Measure, Number, Panel, Path, Picture, Shown, Text, When
from icestream.units import Angstrom

OWN = [record for record in named_records() if record.__module__.startswith("icestream.")]


def shown_by(**parts: Any) -> type[Record]:
    """Declare a record with something shown of it."""

    class Lattice(Record):
        spacing_ang: Angstrom | None = None
        tilt: float = 0.0
        picture: FileRef | None = None
        points_px: list[tuple[float, float]] | None = None
        shown: ClassVar[Shown] = Shown(**parts)

    return Lattice


@pytest.mark.parametrize(
    "card",
    [
        Card(numbers=(Number("Spacing", "spacing"),)),
        Card(numbers=(Number("Spacing", "spacing_ang", second="tilt_deg", how="mean"),)),
        Card(numbers=(Number("Spacing", "spacing_ang.x"),)),
        Card(numbers=(Number("Spacing", "spacing_ang", pixels="own"),)),
        Card(texts=(Text("It is {colour}."),)),
        Card(texts=(Text("It is.", When("colour")),)),
        Card(path=Path("points_ang", title="Points")),
        Card(picture=Picture("image", "Image")),
    ],
)
def test_a_field_that_is_not_there_is_refused_where_the_record_is_declared(card: Card) -> None:
    with pytest.raises(DeclarationError, match=r"Lattice: shows '.*', but there is no field '.*'; its fields are"):
        shown_by(panel=Panel("Lattice", cards=(card,)))


def test_a_picture_is_a_file_and_a_metric_is_in_small_letters() -> None:
    with pytest.raises(DeclarationError, match="shows the picture 'tilt', which is not a FileRef"):
        shown_by(panel=Panel("Lattice", cards=(Card(picture=Picture("tilt", "Tilt")),)))
    with pytest.raises(DeclarationError, match=r"cannot follow 'Tilt' .* as 'Tilt-Angle'"):
        shown_by(panel=Panel("Lattice", measures=(Measure("Tilt", "tilt", metric="Tilt-Angle"),)))


def test_a_number_has_the_unit_of_its_field_unless_it_says_another() -> None:
    numbers = (Number("Spacing", "spacing_ang"), Number("Tilt", "tilt"), Number("Spacing", "spacing_ang", "nm", factor=0.1))
    panel = shown_by(panel=Panel("Lattice", cards=(Card(numbers=numbers),))).shown.panel
    assert panel is not None
    assert [number.unit for number in panel.cards[0].numbers] == ["Å", "", "nm"]


def test_a_stored_name_belongs_to_one_type_and_is_not_inherited() -> None:
    with pytest.raises(DeclarationError, match=r"its stored name 'CtfFit' is that of icestream.records.ctf.CtfFit already"):

        class Another(Record):
            stored_name: ClassVar[str] = "CtfFit"

    class Derived(CtfFit):
        """A CTF with something more."""

    assert Derived.stored_name == ""
    assert Derived.shown == CtfFit.shown
    assert record_named("CtfFit") is CtfFit


def test_what_old_stores_call_our_records_is_known() -> None:
    assert {record_named(name) for name in ("MovieDose", "icestream.steps.quality_records:MovieDose")} == {MovieDose}
    old = [name for record in OWN for name in record.former_names]
    moved = {"quality_records": 6, "ctf_local_record": 1, "movie_spectra_record": 1}
    assert {module: sum(f".{module}:" in name for name in old) for module in moved} == moved
    assert record_named("icestream.steps.nothing:Nothing") is None


def test_every_step_that_comes_with_icestream_names_what_it_makes() -> None:
    types = [find_step(name) for name in step_names()]
    made = {record for one in types for record in (one.output, one.assigns) if record is not None and record is not Record}
    assert len(made) > 10
    assert all(record.stored_name and ":" not in record.stored_name for record in made)


def test_a_step_whose_record_has_no_name_is_refused() -> None:
    class Nameless(Record):
        value: int

    def make(micrograph: Micrograph) -> Nameless:
        """Make a record that the store could not name."""
        return Nameless(value=micrograph.height_px)

    make.__annotations__ = {"micrograph": Micrograph, "return": Nameless}
    with pytest.raises(DeclarationError, match="'nameless': makes records of Nameless, which has no stored_name"):
        step.map("nameless", version=1)(make)


def test_metrics_are_unique() -> None:
    metrics = [one.metric for record in OWN for one in record.shown.measures]
    assert len(metrics) == len(set(metrics)) > 25


@pytest.mark.parametrize("record", OWN, ids=lambda record: record.__name__)
def test_descriptions_come_back_as_they_were_written(record: type[Record]) -> None:
    described = describe_record(record)
    assert read_description(write_description(described)) == described
    assert described.summary


def test_a_description_of_a_newer_version_is_read_without_what_it_added() -> None:
    text = write_description(describe_record(CtfFit)).replace('"title":"CTF"', '"title":"CTF","colour":"blue"')
    assert read_description(text) == describe_record(CtfFit)
    assert read_comparison(write_comparison(TWO_CTFS)) == TWO_CTFS


def test_a_pid_has_one_type_in_every_table() -> None:
    tables = [dtype_of(record.block_columns) for record in (Picks, Particles, ClassAssignments)]
    assert {table["pid"] for table in tables} == {np.dtype("<i4")}
    assert [table.itemsize for table in tables] == [16, 36, 24]


def test_the_columns_of_a_ctf_are_fields_of_its_record() -> None:
    assert {column.name for column in CTF_COLUMNS} <= set(CtfFit.model_fields)
    with_table = [record for record in OWN if "block" in record.model_fields]
    assert with_table
    assert all(record.block_columns for record in with_table)
