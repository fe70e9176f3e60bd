"""ASPIRE was never run for real: a stand-in of its Python notes what it is told and writes a map."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refinement_set import ACQUISITION, BOX, PIXEL_ANG, VOLUME, expose

from icestream.errors import FileFormatError, ItemError
from icestream.external.aspire.initial_model import ASPIRE, AspireInitialModelParams, find_with_aspire, read_progress
from icestream.external.published import make_bright
from icestream.flow import ProgramSettings
from icestream.io.image import image_header, read_stack, write_mrc
from icestream.io.star import read_star
from icestream.testing.context import StepBench

STAND_IN = """import pathlib, shutil, sys
words = sys.argv[1:]
if words[0] == "-c":
    print("aspire 0.14.3")
    sys.exit()
pathlib.Path("told.txt").write_text("\\n".join(words))
shutil.copy({found!r}, words[-1])
"""


def make_bench(folder: Path, found: np.ndarray) -> StepBench:
    session, path = folder / "session", folder / "bin/python"
    path.parent.mkdir()
    session.mkdir()
    write_mrc(folder / "found.mrc", found.astype(np.float32), pixel_size_ang=10.0, remember=False)
    path.write_text(f"#!{sys.executable} -IS\n" + STAND_IN.format(found=str(folder / "found.mrc")))
    path.chmod(0o755)
    return StepBench(session, programs={"aspire_python": ProgramSettings(path=str(path))})


def test_it_is_given_bright_particles_with_their_ctf_and_its_map_is_made_bright(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, -VOLUME[::2, ::2, ::2])
    particles = [expose(bench, 0, bright=True), expose(bench, 1)]
    params = AspireInitialModelParams(size_px=16, neighbours=20, averages=40, diameter_ang=100)
    found = find_with_aspire(particles, params, ACQUISITION, bench)
    told = (bench.work_folder / "told.txt").read_text().splitlines()
    assert (told[0], Path(told[1]).name) == ("-I", "find_volume.py")
    assert told[2:] == ["particles.star", f"{PIXEL_ANG:.6f}", "16", "20", "40", "1", "found.mrc"]
    assert Path(told[1]).is_file()
    tables = read_star(bench.work_folder / "particles.star")
    names = tables["particles"].texts("rlnImageName")
    assert (len(names), tables["optics"].floats("rlnImagePixelSize").tolist()) == (120, [PIXEL_ANG])
    assert {name.partition("@")[2] for name in names} == {"stack000000.mrcs", "stack000001.mrcs"}
    assert (bench.work_folder / "stack000000.mrcs").is_symlink()  # bright already
    dark = read_stack(bench.path(str(particles[1].stack)))
    assert np.array_equal(read_stack(bench.work_folder / "stack000001.mrcs"), -dark)
    assert np.isfinite(tables["particles"].floats("rlnDefocusU")).all()
    assert set(tables["particles"].ints("rlnRandomSubset").tolist()) == {1, 2}
    assert (found.count, found.box_px, found.bin, found.symmetry) == (120, 16, 4.0, "C1")
    assert np.allclose(read_stack(bench.path(found.map)), VOLUME[::2, ::2, ::2])
    assert image_header(bench.path(found.map)).pixel_size_ang == pytest.approx(BOX * PIXEL_ANG / 16)


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, np.zeros((8, 8, 8)))
    one = expose(bench, 0, bright=True)
    params = AspireInitialModelParams(size_px=16, neighbours=20)
    with pytest.raises(FileFormatError, match="is 8 x 8 x 8 px; expected are 16 x 16 x 16"):
        find_with_aspire([one], params, ACQUISITION, bench)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"stack": None}, "no images on disk"),
        ({"phase_flipped": True}, "whose phases were not flipped yet"),
        ({"count": 0}, "got none"),
    ]
    for changed, told in refused:
        fresh = make_bench_like(bench)
        with pytest.raises(ItemError, match=told):
            find_with_aspire([one.model_copy(update=changed)], params, ACQUISITION, fresh)
    with pytest.raises(ItemError, match=r"one box, pixel size .* got \[\(32"):
        find_with_aspire([one, one.model_copy(update={"box_px": 48})], params, ACQUISITION, make_bench_like(bench))
    with pytest.raises(ItemError, match="60 particles do not make class averages of 60"):
        find_with_aspire([one], params.model_copy(update={"neighbours": 60}), ACQUISITION, make_bench_like(bench))


def make_bench_like(bench: StepBench) -> StepBench:
    for path in bench.work_folder.iterdir():
        path.unlink()
    return bench


def test_progress_and_versions_are_read() -> None:
    assert [read_progress(line) for line in ("progress 0.5", "INFO progress 0.5", "progress half")] == [0.5, None, None]
    assert ASPIRE.read_version("aspire 0.14.3\n") == "0.14.3"
    assert ASPIRE.note.startswith("never run for real")


def test_a_bright_map_stays_as_it_is() -> None:
    assert make_bright(VOLUME, radius_px=9.0) is VOLUME
    assert np.array_equal(make_bright(-VOLUME, radius_px=9.0), VOLUME)
