"""Volumes turned, moved, mirrored, resampled and cut; the centre of the particle stays at voxel ``box // 2``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.volumes.rotations import Rotations

Volume = NDArray[np.float32]
MIRROR = np.diag([1.0, 1.0, -1.0])
"""What `mirror_volume_3d` does to x, y and z."""


def turn_volume_3d(
    volume: NDArray[Any], rotation: Rotations, *, shift_zyx_px: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Volume:
    """Turn a cube about its centre, then move it: what was at ``p`` is at ``rotation @ p + shift`` (cubic splines, 0 outside).

    A view of rotation ``R`` of the old volume is that of ``R @ rotation.T`` of the new one.

    Parameters
    ----------
    volume
        ``(n, n, n)``, zyx.
    rotation
        ``(3, 3)``, of x, y, z.
    shift_zyx_px
        In the new frame.
    """
    back = rotation.T[::-1, ::-1]  # of z, y, x
    centre = np.full(3, volume.shape[0] // 2, dtype=np.float64)
    offset = centre - back @ (centre + np.asarray(shift_zyx_px))
    turned: Volume = ndimage.affine_transform(np.asarray(volume, dtype=np.float32), back, offset=offset, order=3)
    return turned


def shift_volume_3d(volume: NDArray[Any], shift_zyx_px: tuple[float, float, float]) -> Volume:
    """Move the content of a cube, around its borders, by a phase ramp."""
    size = volume.shape[0]
    z, y = (np.exp(-2j * np.pi * s * np.fft.fftfreq(size)) for s in shift_zyx_px[:2])
    x = np.exp(-2j * np.pi * shift_zyx_px[2] * np.fft.rfftfreq(size))
    spectrum = fft.rfftn(np.asarray(volume, dtype=np.float32)) * (z[:, None, None] * y[None, :, None] * x[None, None, :])
    moved: Volume = fft.irfftn(spectrum.astype(np.complex64), s=volume.shape)
    return moved


def mirror_volume_3d(volume: NDArray[Any]) -> Volume:
    """Return the other hand of an even cube: z becomes -z about the centre.

    A view of rotation ``R`` of the old volume is that of `mirror_rotations` of ``R`` of the new one. The first section, which has
    no partner, stays.
    """
    return np.ascontiguousarray(np.roll(np.asarray(volume, dtype=np.float32)[::-1], 1, axis=0))


def mirror_rotations(rotations: Rotations) -> Rotations:
    """Return the rotations ``(n, 3, 3)`` at which the other hand of a volume shows the same views."""
    return MIRROR @ rotations @ MIRROR


def resize_volume_3d(volume: NDArray[Any], *, new_size: int) -> Volume:
    """Resample an even cube to another even size over the same extent by Fourier cropping or padding; grey values are kept."""
    size = volume.shape[0]
    if new_size == size:
        return np.array(volume, dtype=np.float32)
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(np.asarray(volume, dtype=np.float32))))
    half = min(size, new_size) // 2
    out = np.zeros((new_size,) * 3, spectrum.dtype)
    # The Nyquist planes are left out: they have no partner of the opposite sign.
    old, new = (slice(n // 2 - half + 1, n // 2 + half) for n in (size, new_size))
    out[new, new, new] = spectrum[old, old, old]
    resized = fft.fftshift(fft.ifftn(fft.ifftshift(out)).real) * (new_size / size) ** 3
    return np.ascontiguousarray(resized, dtype=np.float32)


def rescale_volume_3d(volume: NDArray[Any], *, zoom: float, new_size: int) -> Volume:
    """Bring a cube to another pixel and box: ``zoom`` new voxels are one of the old ones; grey values are kept.

    Finer detail than the new voxels hold is removed before; outside the old box is 0.
    """
    old = np.asarray(volume, dtype=np.float32)
    size = old.shape[0]
    if size % 2:
        old = np.pad(old, ((0, 1),) * 3)
    if zoom < 1:
        smaller = max(4, 2 * round(len(old) * zoom / 2))
        zoom *= len(old) / smaller
        old = resize_volume_3d(old, new_size=smaller)
    if abs(zoom - 1) < 1e-6:
        return cut_volume_3d(old, new_size=new_size)
    offset = len(old) // 2 - (new_size // 2) / zoom
    shape = (new_size,) * 3
    scaled: Volume = ndimage.affine_transform(old, np.full(3, 1 / zoom), np.full(3, offset), output_shape=shape, order=3)
    return scaled


def cut_volume_3d(volume: NDArray[Any], *, new_size: int) -> Volume:
    """Cut a cube to a smaller even size, or put it into a larger one filled with zeros."""
    size = volume.shape[0]
    out = np.zeros((new_size,) * 3, np.float32)
    few = min(size, new_size)
    old, new = (slice(n // 2 - few // 2, n // 2 - few // 2 + few) for n in (size, new_size))
    out[new, new, new] = volume[old, old, old]
    return out


def symmetrise_volume_3d(volume: NDArray[Any], group: Rotations) -> Volume:
    """Return the mean of a cube over the rotations ``(g, 3, 3)`` of a group."""
    total = np.array(volume, dtype=np.float32)
    for operation in group[1:]:
        total += turn_volume_3d(volume, operation)
    return total / np.float32(len(group))
