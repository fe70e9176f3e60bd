"""The step that judges maps: what it publishes, what it refuses, and a session that shows it."""

from pathlib import Path

import numpy as np
import pytest

from icestream.algorithms.volumes import angles_from_rotations, random_rotations
from icestream.errors import ItemError
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.flow.workflow.graph import StepSpec
from icestream.io.image import image_header, read_stack
from icestream.observe.queries import open_view
from icestream.observe.report import write_report
from icestream.records import MapQuality
from icestream.settings import Settings
from icestream.steps.volumes.quality import MapQualityParams, measure_map_quality
from icestream.testing.context import StepBench
from icestream.web.pictures import read_picture
from toys.volumes import BOX, PIXEL_ANG, blobs, noisy, write_volume

QUICK = {"most_order": 4}


def write_poses(path: Path, *, tilted: bool = False) -> None:
    """Write poses of 500 particles, from all sides or along z."""
    rotations = random_rotations(500, generator=np.random.default_rng(3))
    table = np.zeros(500, dtype=[("rot_deg", "<f4"), ("tilt_deg", "<f4"), ("psi_deg", "<f4")])
    for name, column in zip(table.dtype.names or (), angles_from_rotations(rotations).T, strict=True):
        table[name] = column
    if tilted:
        table["tilt_deg"] *= 0.1
    np.save(path, table)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepBench, MapQuality]:
    bench = StepBench(tmp_path_factory.mktemp("quality"))
    write_poses(bench.folder / "poses.npy")
    volume = write_volume(bench.folder, noisy(blobs(1, group="C3", count=8), limit=11, seed=2), tables=("poses.npy",))
    return bench, measure_map_quality(volume, MapQualityParams.model_validate(QUICK), bench)


def test_a_map_gets_a_resolution_with_its_error(judged: tuple[StepBench, MapQuality]) -> None:
    _, quality = judged
    assert (quality.verdict, quality.reason, quality.box_px, quality.pixel_size_ang) == ("map", None, BOX, PIXEL_ANG)
    assert quality.resolution_ang is not None
    assert quality.resolution_coarse_ang is not None
    assert quality.resolution_fine_ang is not None
    assert quality.resolution_coarse_ang >= quality.resolution_ang >= quality.resolution_fine_ang
    assert len(quality.frequency_per_ang) == len(quality.fsc) == len(quality.fsc_error) == len(quality.fsc_randomised) == BOX // 2
    assert quality.local_fine_ang is not None
    assert quality.local_coarse_ang is not None
    assert quality.local_fine_ang < quality.local_coarse_ang


def test_its_views_and_symmetry_are_told(judged: tuple[StepBench, MapQuality]) -> None:
    _, quality = judged
    assert quality.efficiency is not None
    assert quality.efficiency > 0.9
    assert quality.suggested_symmetry == "C3"
    assert [one.group for one in quality.groups if one.accepted] == ["C3"]


def test_maps_and_pictures_are_published(judged: tuple[StepBench, MapQuality]) -> None:
    bench, quality = judged
    assert quality.map is not None
    assert quality.local_resolution is not None
    for ref in (quality.map, quality.mask, quality.local_resolution):
        assert image_header(bench.path(ref)).pixel_size_ang == pytest.approx(PIXEL_ANG)
        assert read_stack(bench.path(ref)).shape == (BOX, BOX, BOX)
    mask, sharp = (read_stack(bench.path(ref)) for ref in (quality.mask, quality.map))
    assert np.corrcoef((sharp * mask).ravel(), blobs(1, group="C3", count=8).ravel())[0, 1] > 0.8
    for picture in (quality.picture, quality.local_picture, quality.views_picture):
        assert picture is not None
        assert bench.path(picture).read_bytes().startswith(b"\x89PNG")


def test_a_volume_that_is_no_map_by_its_own_verdict_gets_no_resolution(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    volume = write_volume(bench.folder, noisy(blobs(1, count=8), limit=11, seed=2))
    refused = volume.model_copy(update={"verdict": "none", "reason": "particles do not fit it"})
    quality = measure_map_quality(refused, MapQualityParams.model_validate(QUICK), bench)
    assert (quality.verdict, quality.reason, quality.map) == ("noise", "particles do not fit it", None)
    assert (quality.resolution_ang, quality.resolution_half_ang, quality.suggested_symmetry) == (None, None, None)
    assert quality.fsc[3] > 0.9  # its halves agree, which is not enough


def test_views_from_one_side_are_inefficient(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    write_poses(tmp_path / "poses.npy", tilted=True)
    volume = write_volume(tmp_path, noisy(blobs(1), limit=9, seed=2), tables=("poses.npy",))
    params = MapQualityParams(look_for_symmetry=False, local_resolution=False)
    quality = measure_map_quality(volume, params, bench)
    assert quality.efficiency is not None
    assert quality.efficiency < 0.3
    assert (quality.suggested_symmetry, quality.local_resolution, quality.local_picture) == (None, None, None)


def test_noise_is_no_map(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).standard_normal((2, BOX, BOX, BOX))
    volume = write_volume(tmp_path, (noise[0], noise[1]))
    quality = measure_map_quality(volume, MapQualityParams(), StepBench(tmp_path))
    assert (quality.verdict, quality.resolution_ang, quality.map, quality.suggested_symmetry) == ("noise", None, None, None)
    assert quality.reason is not None


def test_without_half_maps_there_is_nothing_to_judge(tmp_path: Path) -> None:
    volume = write_volume(tmp_path, (blobs(1), blobs(1)))
    with pytest.raises(ItemError, match="has 0 half maps"):
        measure_map_quality(volume.model_copy(update={"half_maps": []}), MapQualityParams(), StepBench(tmp_path))
    flat = np.ones((BOX, BOX, BOX))
    with pytest.raises(ItemError, match="same value everywhere"):
        measure_map_quality(write_volume(tmp_path, (flat, flat)), MapQualityParams(), StepBench(tmp_path))


def test_a_session_judges_its_map_and_shows_it(tmp_path: Path) -> None:
    volume = write_volume(tmp_path / "maps", noisy(blobs(1), limit=10, seed=2), root="maps")
    (tmp_path / "maps" / "volume.json").write_text(volume.model_dump_json(), encoding="utf-8")
    steps = {
        "volume": StepSpec(use="toys.volumes:take_volume"),
        "quality": StepSpec(use="map_quality", inputs={"volume": "volume"}, params={"look_for_symmetry": False}),
    }
    document = SessionDocument(name="map", roots={"maps": str(tmp_path / "maps")}, steps=steps)
    session = create_session(tmp_path / "session", document)
    report = run_session(session, Settings(min_free_gb=0, cores=1))
    assert report.finished, report.reason
    with open_view(session) as view:
        (version,) = view.snapshots("quality")
        assert version.record is not None
        assert version.record["verdict"] == "map"
        picture, kind = read_picture(view, version.key, "local_picture")
        page = write_report(session).read_text(encoding="utf-8")
    assert (kind, picture[:4]) == ("image/png", b"\x89PNG")
    assert "Fourier shell correlation of the halves" in page
    assert "Local resolution" in page
