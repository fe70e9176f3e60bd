from pathlib import Path

import pytest

from icestream.microscope.faults import assign_faults
from icestream.microscope.pace import Pace, write_paced
from icestream.microscope.settings import Fault, SimulationSettings


class Watcher:
    """Stands in for the clock: notes what lies in the folder at each pause."""

    def __init__(self, folder: Path, *, stop_after: int | None = None) -> None:
        self.folder = folder
        self.stop_after = stop_after
        self.seconds: list[float] = []
        self.seen: list[dict[str, int]] = []

    def wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self.seen.append({path.name: path.stat().st_size for path in self.folder.iterdir()})
        return self.stop_after is not None and len(self.seconds) >= self.stop_after


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.bin"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def test_file_grows_while_it_is_written(tmp_path: Path, source: Path):
    target = tmp_path / "movies" / "a.mrc"
    watcher = Watcher(target.parent)
    end = write_paced(source, target, pace=Pace(write_s=8.0, chunks=4, speed=2.0), fault=None, wait=watcher.wait)
    assert end == target
    assert [seen["a.mrc"] for seen in watcher.seen] == [2560, 5120, 7680]
    assert watcher.seconds == [1.0, 1.0, 1.0]
    assert target.read_bytes() == source.read_bytes()


def test_temporary_name_is_renamed_at_the_end(tmp_path: Path, source: Path):
    target = tmp_path / "movies" / "a.mrc"
    watcher = Watcher(target.parent)
    write_paced(source, target, pace=Pace(write_s=1.0, chunks=3, temporary_names=True), fault=None, wait=watcher.wait)
    names = {name for seen in watcher.seen for name in seen}
    assert len(names) == 1
    assert names.pop().startswith(".a.mrc.")
    assert [path.name for path in target.parent.iterdir()] == ["a.mrc"]


@pytest.mark.parametrize("temporary_names", [False, True])
def test_truncated_file_has_its_name_but_not_its_size(tmp_path: Path, source: Path, temporary_names):
    target = tmp_path / "movies" / "a.mrc"
    pace = Pace(temporary_names=temporary_names)
    assert write_paced(source, target, pace=pace, fault=Fault.TRUNCATED, wait=Watcher(tmp_path).wait) == target
    assert target.read_bytes() == source.read_bytes()[:6144]


def test_unfinished_file_stays_short_and_keeps_its_temporary_name(tmp_path: Path, source: Path):
    target = tmp_path / "movies" / "a.mrc"
    end = write_paced(source, target, pace=Pace(temporary_names=True), fault=Fault.UNFINISHED, wait=Watcher(tmp_path).wait)
    assert not target.exists()
    assert end.stat().st_size == 7168
    assert write_paced(source, target, pace=Pace(), fault=Fault.UNFINISHED, wait=Watcher(tmp_path).wait) == target


def test_pause_stands_still_in_the_middle_then_completes(tmp_path: Path, source: Path):
    target = tmp_path / "movies" / "a.mrc"
    watcher = Watcher(target.parent)
    write_paced(source, target, pace=Pace(chunks=4, pause_s=90.0, speed=3.0), fault=Fault.PAUSE, wait=watcher.wait)
    assert watcher.seconds == [30.0]
    assert watcher.seen[0]["a.mrc"] == 5120
    assert target.stat().st_size == 10240


def test_stop_completes_the_file_at_once(tmp_path: Path, source: Path):
    target = tmp_path / "movies" / "a.mrc"
    watcher = Watcher(target.parent, stop_after=1)
    write_paced(source, target, pace=Pace(write_s=8.0, chunks=8), fault=None, wait=watcher.wait)
    assert len(watcher.seconds) == 1
    assert target.stat().st_size == 10240


def test_faults_are_those_asked_for_and_a_share_of_the_rest():
    made = SimulationSettings(n_movies=50, faults={3: Fault.EMPTY, 40: Fault.PAUSE}, fault_fraction=0.25, seed=4)
    faults = assign_faults(made)
    assert faults[3] is Fault.EMPTY
    assert faults[40] is Fault.PAUSE
    assert len(faults) == 2 + 12
    assert faults == assign_faults(made)
    assert faults != assign_faults(made.model_copy(update={"seed": 5}))
    assert assign_faults(SimulationSettings(n_movies=50)) == {}


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="is reversed"):
        SimulationSettings(defocus_um=(2.0, 1.0))
    with pytest.raises(ValueError, match="do not exist"):
        SimulationSettings(n_movies=3, faults={3: Fault.EMPTY})
    with pytest.raises(ValueError, match="square"):
        SimulationSettings(format="eer", height_px=128, width_px=256)
    with pytest.raises(ValueError, match="not_finite needs format mrc of mrc_type float32, got mrc of int16"):
        SimulationSettings(format="mrc", faults={0: Fault.NOT_FINITE})


def test_a_seed_goes_on_giving_the_same_faults():
    drawn = assign_faults(SimulationSettings(n_movies=400, fault_fraction=1.0)).values()
    assert set(drawn) == {
        Fault.TRUNCATED, Fault.EMPTY, Fault.HUGE_DRIFT, Fault.WRONG_SIZE, Fault.PAUSE, Fault.WEAK_BEAM, Fault.UNFINISHED
    }  # fmt: skip


def test_every_setting_is_described():
    for model in (SimulationSettings, Pace):
        assert all(field.description or name == "seed" for name, field in model.model_fields.items())
