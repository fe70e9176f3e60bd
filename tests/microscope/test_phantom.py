import bz2
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from icestream.errors import FileFormatError
from icestream.microscope.chain import fold_chain
from icestream.microscope.phantom import build_phantom, load_phantom
from icestream.microscope.potential import PROTEIN_ABOVE_ICE_V, interaction_parameter_rad_per_v_ang, splat_gaussians_3d
from icestream.microscope.projection import project_2d, transform_volume

PDB = """\
ATOM      1  N   ALA A   1      {:8.3f}   0.000   0.000  1.00 30.00           N
ATOM      2  CA  ALA A   1      {:8.3f}   0.000   0.000  1.00 30.00           C
END
"""


def test_interaction_parameter_agrees_with_kirkland():
    """Kirkland (2010), table 5.1: 0.6526 and 0.7288 rad/(kV Å) at 300 and 200 kV, 0.9244 at 100 kV."""
    for voltage_kv, expected in ((300, 0.6526e-3), (200, 0.7288e-3), (100, 0.9244e-3)):
        assert interaction_parameter_rad_per_v_ang(voltage_kv) == pytest.approx(expected, rel=1e-3)


def test_gaussians_keep_their_integral_and_place():
    position = np.array([[2.3, -4.1, 7.7]])
    volume = splat_gaussians_3d(position, np.array([100.0]), np.array([2.0]), size=40, pixel_size_ang=1.5)
    assert volume.sum() * 1.5**3 == pytest.approx(100.0, rel=1e-4)
    grid = (np.arange(40) - 20) * 1.5
    centre = [(volume.sum(tuple(a for a in range(3) if a != axis)) * grid).sum() / volume.sum() for axis in range(3)]
    assert centre == pytest.approx(list(position[0]), abs=2e-3)


def test_builtin_phantom_is_compact_protein_of_its_diameter():
    phantom = build_phantom(100.0, pixel_size_ang=2.0, seed=5)
    grid = (np.arange(phantom.volume.shape[0]) - phantom.volume.shape[0] // 2) * 2.0
    radius = np.sqrt(grid[:, None, None] ** 2 + grid[None, :, None] ** 2 + grid[None, None, :] ** 2)
    positive = np.maximum(phantom.volume, 0)
    assert positive[radius > 54].sum() < 1e-3 * positive.sum()
    assert positive[radius > 40].sum() > 5e-3 * positive.sum()
    volume_ang3 = phantom.volume.sum() * 8.0 / PROTEIN_ABOVE_ICE_V
    assert 0.25 < volume_ang3 / (np.pi / 6 * 100.0**3) < 0.6


def test_builtin_phantom_follows_its_seed():
    first = build_phantom(80.0, pixel_size_ang=3.0, seed=1).volume
    assert np.array_equal(first, build_phantom(80.0, pixel_size_ang=3.0, seed=1).volume)
    assert np.corrcoef(first.ravel(), build_phantom(80.0, pixel_size_ang=3.0, seed=2).volume.ravel())[0, 1] < 0.95


def test_projections_of_builtin_phantom_differ_by_direction():
    volume = transform_volume(build_phantom(120.0, pixel_size_ang=4.0, seed=2).volume)
    directions = [(0.0, 0.0), (0.0, 90.0), (90.0, 90.0), (0.0, 180.0), (45.0, 50.0)]
    views = [project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=0.0).ravel() for rot, tilt in directions]
    matrix = np.corrcoef(views)
    assert np.all(matrix[~np.eye(len(views), dtype=bool)] < 0.95)


def test_helices_are_right_handed():
    """The torsion of four successive C-alpha atoms is about +50 degrees in a right-handed alpha helix."""
    main_chain = fold_chain(100.0, generator=np.random.default_rng(1)).zyx_ang[::2, ::-1]  # xyz
    a, b, c = (np.diff(main_chain, axis=0)[i : len(main_chain) - 3 + i] for i in range(3))
    n1, n2 = np.cross(a, b), np.cross(b, c)
    torsion = np.arctan2((np.cross(n1, n2) * b).sum(1) / np.linalg.norm(b, axis=1), (n1 * n2).sum(1))
    assert np.rad2deg(np.median(torsion)) == pytest.approx(50.0, abs=8.0)


def test_real_model_has_the_potential_of_protein(shared_data: Path):
    phantom = load_phantom(shared_data / "phantom_models" / "6msm.pdb.bz2", pixel_size_ang=3.0, diameter_ang=150.0, seed=0)
    # 128 kDa at 0.81 Da/Å3 fills 158000 Å3 at about 3.1 V over ice.
    assert phantom.volume.sum() * 27.0 == pytest.approx(3.1 * 158e3, rel=0.25)
    assert 100 < phantom.diameter_ang < 220


def test_model_distance_is_kept_in_the_volume(tmp_path: Path):
    (tmp_path / "two.pdb").write_text(PDB.format(0.0, 24.0))
    phantom = load_phantom(tmp_path / "two.pdb", pixel_size_ang=1.0, diameter_ang=1.0, seed=0)
    line = phantom.volume.sum((0, 1))
    middle = len(line) // 2
    left, right = int(np.argmax(line[:middle])), middle + int(np.argmax(line[middle:]))
    assert right - left == pytest.approx(24, abs=1)


def test_map_is_resampled_centred_and_scaled(tmp_path: Path):
    grid = np.arange(40)
    ball = np.exp(-((grid[:, None, None] - 25) ** 2 + (grid[None, :, None] - 18) ** 2 + (grid[None, None, :] - 20) ** 2) / 50.0)
    with mrcfile.new(tmp_path / "ball.mrc") as handle:
        handle.set_data((7.0 * ball).astype(np.float32))
        handle.voxel_size = 3.0
    phantom = load_phantom(tmp_path / "ball.mrc", pixel_size_ang=2.0, diameter_ang=1.0, seed=0)
    n = phantom.volume.shape[0]
    assert np.unravel_index(int(np.argmax(phantom.volume)), (n, n, n)) == (n // 2, n // 2, n // 2)
    width = (phantom.volume[n // 2, n // 2] > 0.5 * phantom.volume.max()).sum() * 2.0
    assert width == pytest.approx(2 * 3.0 * np.sqrt(50 * np.log(2)), abs=4.0)
    inside = phantom.volume > 0.2 * phantom.volume.max()
    assert phantom.volume[inside].mean() == pytest.approx(PROTEIN_ABOVE_ICE_V, rel=0.1)


def test_real_map_has_a_positive_mass_near_that_of_the_protein(shared_data: Path):
    """Beta-galactosidase: 465 kDa; how much of it the map shows at its threshold is only roughly known."""
    phantom = load_phantom(shared_data / "phantom_maps" / "betaGal.mrc", pixel_size_ang=4.0, diameter_ang=1.0, seed=0)
    kilodalton = phantom.volume.sum() * 64 / PROTEIN_ABOVE_ICE_V * 0.81 / 1000
    assert 200 < kilodalton < 1000
    assert 150 < phantom.diameter_ang < 230


def test_too_large_a_box_is_refused():
    with pytest.raises(ValueError, match="needs a box"):
        build_phantom(900.0, pixel_size_ang=1.0, seed=0)


def test_what_is_no_phantom_is_refused(tmp_path: Path):
    def load(path: Path) -> None:
        load_phantom(path, pixel_size_ang=1.0, diameter_ang=100.0, seed=0)

    with pytest.raises(FileFormatError, match="no such file"):
        load(tmp_path / "missing.pdb")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileFormatError, match="allowed"):
        load(tmp_path / "notes.txt")
    (tmp_path / "empty.pdb").write_text("REMARK\nEND\n")
    with pytest.raises(FileFormatError, match="no atoms"):
        load(tmp_path / "empty.pdb")
    (tmp_path / "cut.pdb.bz2").write_bytes(bz2.compress(PDB.encode() * 50)[:40])
    with pytest.raises(FileFormatError, match="cannot be read"):
        load(tmp_path / "cut.pdb.bz2")
    with mrcfile.new(tmp_path / "sizeless.mrc") as handle:
        handle.set_data(np.ones((8, 8, 8), np.float32))
    with pytest.raises(FileFormatError, match="voxel size"):
        load(tmp_path / "sizeless.mrc")
