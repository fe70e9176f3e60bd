"""Which projection of the phantom a class average shows, and to what resolution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.optimize import minimize

from icestream.algorithms.fourier import crop_fourier_2d, frequency_grid_2d, frequency_radius_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d
from icestream.microscope.projection import FourierVolume, project_2d, transform_volume

Image = NDArray[np.float32]

_DIRECTION_STEP_DEG = 12.0
_SEARCH_PX = 48
_REFINED = 6
_EDGE_FRACTION = 0.12


@dataclass(frozen=True)
class ProjectionSet:
    """The phantom ready for comparison: at the pixel size of the averages, and a coarse set of its projections.

    Attributes
    ----------
    volume
        For exact projections at ``pixel_size_ang``.
    diameter_px
        Of the particle at that pixel size; the mask is a little larger.
    angles_deg
        ``(d, 2)`` rot and tilt of directions over the whole sphere.
    spectra
        ``(d, s, s // 2 + 1)`` transforms of masked, normalised projections at the search size.
    """

    volume: FourierVolume
    pixel_size_ang: float
    diameter_px: float
    angles_deg: NDArray[np.float64]
    spectra: NDArray[np.complex64]


@dataclass(frozen=True)
class ClassScore:
    """The best projection for one class average, and how they correlate ring by ring.

    ``resolution_ang`` is where the FRC first falls below 0.5 (Nyquist if it never does).
    """

    resolution_ang: float
    frequency_per_ang: NDArray[np.float64]
    frc: NDArray[np.float64]
    correlation: float
    rot_deg: float
    tilt_deg: float
    psi_deg: float
    shift_yx_px: tuple[float, float]


def sphere_directions_deg(step_deg: float) -> NDArray[np.float64]:
    """Return rot and tilt of directions spread evenly over the sphere, ``(d, 2)`` (a Fibonacci spiral)."""
    count = int(np.ceil(4 * np.pi / np.deg2rad(step_deg) ** 2))
    index = np.arange(count) + 0.5
    tilt = np.rad2deg(np.arccos(1 - 2 * index / count))
    rot = np.mod(np.rad2deg(np.pi * (1 + 5**0.5) * index), 360.0) - 180.0
    return np.stack([rot, tilt], axis=1)


def prepare_projections(
    phantom: NDArray[np.float32], *, phantom_pixel_size_ang: float, pixel_size_ang: float, diameter_ang: float, box_px: int
) -> ProjectionSet:
    """Prepare a phantom ``(n, n, n)`` for `score_class_average` of averages with ``pixel_size_ang`` and ``box_px``.

    Raises
    ------
    ValueError
        The box is smaller than the particle.
    """
    diameter_px = diameter_ang / pixel_size_ang
    if box_px < diameter_px:
        raise ValueError(f"box of {box_px} px is smaller than the particle of {diameter_px:.0f} px")
    size = 2 * round(box_px / 2)
    volume = transform_volume(_resample(phantom, zoom=phantom_pixel_size_ang / pixel_size_ang, size=size))
    angles_deg = sphere_directions_deg(_DIRECTION_STEP_DEG)
    mask = soft_disc(_SEARCH_PX, diameter_px=diameter_px * _SEARCH_PX / size)
    images = [project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=0.0) for rot, tilt in angles_deg]
    small = np.stack([_normalise(crop_fourier_2d(i, new_shape=(_SEARCH_PX, _SEARCH_PX)), mask) for i in images])  # (d, s, s)
    return ProjectionSet(volume, pixel_size_ang, diameter_px, angles_deg, fft.rfft2(small).astype(np.complex64))


def _resample(phantom: NDArray[np.float32], *, zoom: float, size: int) -> NDArray[np.float32]:
    """Bring a cube to another pixel size and box; centres stay at ``n // 2``. ``zoom`` < 1 makes voxels larger."""
    source = ndimage.gaussian_filter(phantom, 0.5 / zoom * 0.7) if zoom < 0.8 else phantom
    matrix = np.full(3, 1 / zoom)
    offset = np.full(3, phantom.shape[0] // 2 - (size // 2) / zoom)
    resampled: NDArray[np.float32] = ndimage.affine_transform(
        source.astype(np.float32), matrix, offset, (size,) * 3, order=3, mode="constant"
    )
    return resampled


def soft_disc(size: int, *, diameter_px: float) -> Image:
    """Return a disc a little larger than the particle with a soft edge: ``(size, size)``."""
    grid = np.arange(size) - size // 2
    radius = np.hypot(grid[:, None], grid[None, :])
    edge_px = max(_EDGE_FRACTION * diameter_px, 2.0)
    outer = min(diameter_px / 2 + 1.5 * edge_px, size / 2 - 1)
    ramp = np.clip((outer - radius) / edge_px, 0, 1)
    disc: Image = (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)
    return disc


def _normalise(image: Image, mask: Image) -> Image:
    """Mask an image about its mean under the mask, and scale it to norm 1."""
    masked: Image = (image - (image * mask).sum() / mask.sum()) * mask
    norm = float(np.sqrt((masked**2).sum()))
    return masked / np.float32(norm) if norm > 0 else masked


def score_class_average(average: Image, reference: ProjectionSet) -> ClassScore:
    """Find the projection that a class average shows and their Fourier ring correlation.

    The average must be CTF-corrected with bright protein, at the pixel size of the reference. All directions of the sphere and
    all in-plane angles are searched at 48 px, the best are refined; the image is never mirrored.

    Parameters
    ----------
    average
        ``(h, h)``; cut or padded to the box of the reference.
    reference
        From `prepare_projections`.
    """
    size = reference.volume.size
    image = _fit_box(average, size)
    mask = soft_disc(size, diameter_px=reference.diameter_px)
    starts = _search(image, reference)
    fits = [_refine(image, start, reference) for start in starts]
    correlation, pose = max(fits, key=lambda fit: fit[0])
    projection = _project(reference, pose)
    shifted_mask = ndimage.shift(mask, (pose[3], pose[4]), order=1)
    frequency, frc = fourier_ring_correlation_2d(_normalise(image, shifted_mask), _normalise(projection, shifted_mask))
    resolution_ang = resolution_at_half(frequency, frc, pixel_size_ang=reference.pixel_size_ang)
    rot, tilt, psi, dy, dx = (float(value) for value in pose)
    return ClassScore(resolution_ang, frequency / reference.pixel_size_ang, frc, correlation, rot, tilt, psi, (dy, dx))


def class_average_frc(
    average: Image, phantom: NDArray[np.float32], *, phantom_pixel_size_ang: float, pixel_size_ang: float, diameter_ang: float
) -> ClassScore:
    """Score one class average against a phantom; for many averages prepare the projections once."""
    reference = prepare_projections(
        phantom,
        phantom_pixel_size_ang=phantom_pixel_size_ang,
        pixel_size_ang=pixel_size_ang,
        diameter_ang=diameter_ang,
        box_px=average.shape[-1],
    )
    return score_class_average(average, reference)


def _fit_box(image: Image, size: int) -> Image:
    """Cut or pad with the mean of the border so that the centre stays at ``size // 2``."""
    before = size // 2 - image.shape[0] // 2
    edge = float(np.mean([image[0].mean(), image[-1].mean(), image[:, 0].mean(), image[:, -1].mean()]))
    out = np.full((size, size), edge, np.float32)
    low, high = max(before, 0), min(before + image.shape[0], size)
    out[low:high, low:high] = image[low - before : high - before, low - before : high - before]
    return out


def _search(image: Image, reference: ProjectionSet) -> list[NDArray[np.float64]]:
    """Return the poses ``(rot, tilt, psi, dy, dx)`` of the best directions of the coarse grid, with best psi and shift."""
    size = reference.volume.size
    small = crop_fourier_2d(image, new_shape=(_SEARCH_PX, _SEARCH_PX))
    mask = soft_disc(_SEARCH_PX, diameter_px=reference.diameter_px * _SEARCH_PX / size * 1.15)
    angles = np.arange(0.0, 360.0, _DIRECTION_STEP_DEG / 2)
    turned = np.stack([_normalise(_turn(small, angle), mask) for angle in angles])  # (p, s, s)
    spectra = np.conj(fft.rfft2(turned)).astype(np.complex64)  # (p, s, s // 2 + 1)
    best = np.empty((len(reference.spectra), 4))
    for direction, spectrum in enumerate(reference.spectra):
        correlation = fft.irfft2(spectrum[None] * spectra, s=(_SEARCH_PX, _SEARCH_PX))  # (p, s, s)
        psi, dy, dx = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        best[direction] = correlation[psi, dy, dx], angles[psi], dy, dx
    poses = []
    for direction in np.argsort(-best[:, 0])[:_REFINED]:
        _, angle, dy, dx = best[direction]
        shift = -(np.mod(np.array([dy, dx]) + _SEARCH_PX / 2, _SEARCH_PX) - _SEARCH_PX / 2) * size / _SEARCH_PX
        # The image was turned by -angle to meet a projection with psi 0, so the shift turns back with it.
        turn = np.deg2rad(angle)
        y = np.cos(turn) * shift[0] - np.sin(turn) * shift[1]
        x = np.sin(turn) * shift[0] + np.cos(turn) * shift[1]
        poses.append(np.array([*reference.angles_deg[direction], angle, y, x]))
    return poses


def _turn(image: Image, psi_deg: float) -> Image:
    """Turn an image so that a projection with ``psi_deg`` comes to lie as one with psi 0."""
    c, s = np.cos(np.deg2rad(psi_deg)), np.sin(np.deg2rad(psi_deg))
    # A view at psi shows at q what the view at psi 0 shows at R(psi)⁻¹ q; in yx order.
    matrix = np.array([[c, -s], [s, c]])
    centre = np.full(2, image.shape[0] // 2)
    turned: Image = ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1, mode="nearest")
    return turned


def _project(reference: ProjectionSet, pose: NDArray[np.float64]) -> Image:
    rot, tilt, psi, dy, dx = (float(value) for value in pose)
    return project_2d(reference.volume, rot_deg=rot, tilt_deg=tilt, psi_deg=psi, shift_yx_px=(dy, dx))


def _refine(image: Image, start: NDArray[np.float64], reference: ProjectionSet) -> tuple[float, NDArray[np.float64]]:
    """Climb from one pose to the best correlation under the mask; return it with the pose."""
    size = reference.volume.size
    mask = soft_disc(size, diameter_px=reference.diameter_px)
    ky, kx = frequency_grid_2d(size, size)
    # Correlate up to the search size's Nyquist frequency: finer detail is noise in most averages.
    smooth = np.exp(-0.5 * (frequency_radius_2d(size, size) / (0.3 * _SEARCH_PX / size)) ** 2)
    image_spectrum = fft.rfft2(image) * smooth

    def loss(step: NDArray[np.float64]) -> float:
        pose = start + step
        back = np.exp(2j * np.pi * (pose[3] * ky + pose[4] * kx))  # (n, n // 2 + 1)
        centred = fft.irfft2(image_spectrum * back, s=(size, size))
        projection = _project(reference, np.array([*pose[:3], 0.0, 0.0]))
        blurred = fft.irfft2(fft.rfft2(projection) * smooth, s=(size, size))
        return -float((_normalise(centred, mask) * _normalise(blurred, mask)).sum())

    first = np.diag([4.0, 4.0, 4.0, 1.0, 1.0])
    simplex = np.concatenate([np.zeros((1, 5)), first])
    found = minimize(
        loss, np.zeros(5), method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 0.05, "fatol": 1e-5, "maxfev": 160}
    )
    return -float(found.fun), start + found.x


def resolution_at_half(frequency: NDArray[np.float64], frc: NDArray[np.float64], *, pixel_size_ang: float) -> float:
    """Return where ``frc`` first falls below 0.5, interpolated, in Å; twice the pixel size if it never does.

    The first two rings are passed over: the mask alone decides them.
    """
    below = np.flatnonzero(frc[2:] < 0.5) + 2
    if not len(below):
        return 2 * pixel_size_ang
    after = int(below[0])
    before = after - 1
    fraction = (frc[before] - 0.5) / (frc[before] - frc[after]) if frc[before] > 0.5 else 0.0
    crossing = frequency[before] + fraction * (frequency[after] - frequency[before])
    return float(pixel_size_ang / crossing)
