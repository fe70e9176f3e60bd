"""Values of a microscope that cannot be: told where they are written, or by the one movie whose file says so."""

import os
from pathlib import Path

import pytest

from icestream.errors import ItemError, SessionError
from icestream.flow import Arrival, Params, SourceContext, Watch, step
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import DOCUMENT, open_session
from icestream.flow.workflow.acquiring import checked_acquisition
from icestream.records import Acquisition
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, outcomes_of
from toys.steps import Number

COUNT = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 1}}


class NoParams(Params):
    """Nothing to choose."""


@step.source("two_exposures", version=1, output=Number)
def two_exposures(params: NoParams, ctx: SourceContext) -> Watch:
    """Bring an exposure whose file says something odd, and one whose file does not."""
    yield Arrival(identity="odd", name="odd", record=Number(value=1), acquisition=Acquisition(pixel_size_ang=83))
    yield Arrival(identity="usual", name="usual", record=Number(value=1), acquisition=Acquisition(pixel_size_ang=0.83))
    return "both came"


ODD: list[tuple[dict[str, float], str]] = [
    ({"voltage_kv": 300_000}, "voltage_kv is 300000; must be 10 to 3000 kV"),
    ({"voltage_kv": 0.3}, "voltage_kv is 0.3; must be 10 to 3000 kV"),
    ({"pixel_size_ang": 83}, "pixel_size_ang is 83; must be 0.05 to 50 Å"),
    ({"pixel_size_ang": 0.00083}, "pixel_size_ang is 0.00083; must be 0.05 to 50 Å"),
    ({"cs_mm": 2700}, "cs_mm is 2700; must be 0 to 20 mm"),
    ({"amplitude_contrast": 10}, "amplitude_contrast is 10; must be 0 to 1"),
    ({"dose_per_frame_e_per_ang2": 0}, "dose_per_frame_e_per_ang2 is 0; must be above 0 and at most 500 e/Å²"),
    ({"pre_exposure_e_per_ang2": 5000}, "pre_exposure_e_per_ang2 is 5000; must be 0 to 1000 e/Å²"),
]


@pytest.mark.parametrize(("values", "told"), ODD)
def test_a_step_is_not_given_what_cannot_be(values: dict[str, float], told: str) -> None:
    with pytest.raises(ItemError) as raised:
        checked_acquisition({"voltage_kv": 300.0, **values})
    assert str(raised.value) == f"{told}; the session's acquisition values override those in files"


@pytest.mark.parametrize(("values", "told"), ODD)
def test_a_session_is_not_opened_with_what_cannot_be(tmp_path: Path, values: dict[str, float], told: str) -> None:
    session = make_toy_session(tmp_path, {"n": COUNT}, numbers=range(1))
    path = session.folder / DOCUMENT
    (name, value), *_ = values.items()
    path.write_text(path.read_text().replace("pixel_size_ang: 1.5", f"{name}: {value}"))
    with pytest.raises(SessionError) as raised:
        open_session(session.folder)
    plain = f"acquisition.{name}: Input should be"  # what no microscope of any kind can have
    assert str(raised.value) == f"{path}: acquisition: {told}" or str(raised.value).startswith(f"{path}: {plain}")
    assert str(value) in str(raised.value)


@pytest.mark.parametrize("value", [10.0, 100.0, 300.0, 3000.0])
def test_what_can_be_is_passed_on_as_it_is(value: float) -> None:
    assert checked_acquisition({"voltage_kv": value, "pixel_size_ang": 0.05}) == Acquisition(
        voltage_kv=value, pixel_size_ang=0.05
    )


def test_what_one_file_says_fails_that_exposure_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    steps = {"n": {"use": f"{__name__}:two_exposures"}, "scaled": {"use": f"{TOYS}:scale", "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(0))
    path = session.folder / DOCUMENT
    path.write_text(path.read_text().replace("pixel_size_ang: 1.5", "voltage_kv: 300"))
    session = open_session(session.folder)
    report = run_session(session, Settings(cores=1))
    outcomes = outcomes_of(session)
    assert (report.finished, report.n_failed) == (True, 1)
    assert outcomes["scaled", "usual"]["status"] == "item"
    assert outcomes["n", "odd"]["status"] == "item"
    assert outcomes["scaled", "odd"]["reason"].startswith("pixel_size_ang is 83; must be 0.05 to 50 Å; ")
