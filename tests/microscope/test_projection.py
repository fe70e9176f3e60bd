import numpy as np
import pytest

from icestream.microscope.projection import project_2d, random_angles_deg, rotation_matrix, transform_volume

SIZE = 48
BALLS_XYZ = np.array([[9.0, 0.0, 0.0], [0.0, 11.0, 2.0], [-4.0, -6.0, 8.0], [2.0, 3.0, -10.0]])
WEIGHTS = np.array([1.0, 0.7, 1.4, 0.4])
SIGMA = 2.0


def balls_volume() -> np.ndarray:
    grid = np.arange(SIZE) - SIZE // 2
    volume = np.zeros((SIZE,) * 3)
    for (x, y, z), weight in zip(BALLS_XYZ, WEIGHTS, strict=True):
        along = [np.exp(-0.5 * (grid - p) ** 2 / SIGMA**2) for p in (z, y, x)]
        volume += weight * along[0][:, None, None] * along[1][None, :, None] * along[2][None, None, :]
    return volume.astype(np.float32)


def balls_projection(matrix: np.ndarray, shift_yx: tuple[float, float]) -> np.ndarray:
    """The projection of Gaussian balls is known: their centres turn, and the integral along z is sqrt(2 pi) sigma."""
    grid = np.arange(SIZE) - SIZE // 2
    image = np.zeros((SIZE, SIZE))
    for (x, y, _), weight in zip(BALLS_XYZ @ matrix.T, WEIGHTS, strict=True):
        along_y = np.exp(-0.5 * (grid - y - shift_yx[0]) ** 2 / SIGMA**2)
        along_x = np.exp(-0.5 * (grid - x - shift_yx[1]) ** 2 / SIGMA**2)
        image += weight * np.sqrt(2 * np.pi) * SIGMA * along_y[:, None] * along_x[None, :]
    return image


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 90, 0), (0, 0, 90), (25, 63, -140), (-100, 170, 75)])
def test_projection_of_balls_is_analytic(angles):
    volume = transform_volume(balls_volume())
    rot, tilt, psi = angles
    image = project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=psi, shift_yx_px=(1.3, -2.6))
    expected = balls_projection(rotation_matrix(rot, tilt, psi), (1.3, -2.6))
    assert np.abs(image - expected).max() < 4e-3 * expected.max()


def test_rotation_is_that_of_relion():
    """Elements of the ZYZ matrix as Heymann et al. (2005) write them."""
    rot, tilt, psi = np.deg2rad([20.0, 50.0, -70.0])
    a = rotation_matrix(20.0, 50.0, -70.0)
    assert a[2] == pytest.approx([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)])
    assert a[:, 2] == pytest.approx([-np.cos(psi) * np.sin(tilt), np.sin(psi) * np.sin(tilt), np.cos(tilt)])
    assert a[0, 0] == pytest.approx(np.cos(psi) * np.cos(tilt) * np.cos(rot) - np.sin(psi) * np.sin(rot))
    assert a @ a.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(a) == pytest.approx(1.0)


def test_opposite_views_are_mirror_images():
    volume = transform_volume(balls_volume())
    front = project_2d(volume, rot_deg=40, tilt_deg=70, psi_deg=10)
    back = project_2d(volume, rot_deg=40, tilt_deg=250, psi_deg=-10)
    assert np.abs(front[:, 1:] - back[:, :0:-1]).max() < 1e-3 * front.max()


def test_random_views_are_uniform_on_the_sphere():
    angles = random_angles_deg(4000, generator=np.random.default_rng(1))
    views = np.array([rotation_matrix(*a)[2] for a in angles])
    assert np.abs(views.mean(0)).max() < 0.04
    assert np.abs(np.cov(views.T) - np.eye(3) / 3).max() < 0.02


def test_volume_is_left_alone():
    volume = balls_volume()
    before = volume.copy()
    transform_volume(volume)
    assert np.array_equal(volume, before)
