"""Where arrays live: NumPy arrays on cores, those of other libraries on their device.

Functions that carry the weight of motion correction take arrays of NumPy or of any library that speaks the array API standard
(CuPy, PyTorch), and compute where their input lives. For NumPy they call compiled kernels and SciPy's transforms; for the others
the same steps in words of the standard. Nothing is copied between host and device unless `Place.put` or `to_numpy` says so.
"""

from dataclasses import dataclass
from typing import Any, cast

import array_api_compat
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray
from scipy import fft

Array = Any
"""An array of any library; its shape and type are in the docstrings."""


@dataclass(frozen=True)
class Place:
    """A library of arrays ``xp`` (a namespace of the array API standard) and a device of it (None: the library's own choice)."""

    xp: Any
    device: Any = None

    @property
    def on_cores(self) -> bool:
        """Whether this is NumPy, for which there are compiled kernels."""
        return bool(array_api_compat.is_numpy_namespace(self.xp))

    def put(self, host: NDArray[Any]) -> Array:
        """Return a NumPy array here; of NumPy itself it is the same array."""
        return host if self.on_cores else self.xp.asarray(host, device=self.device, copy=True)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return zeros here; ``dtype`` is a name such as ``"float32"``."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=None if self.on_cores else self.device)


CORES = Place(array_namespace(np.empty(0)))


def place_of(array: Array) -> Place:
    """Return where ``array`` lives.

    Raises
    ------
    TypeError
        It is no array of a library that is known.
    """
    if isinstance(array, np.ndarray):
        return CORES
    return Place(array_namespace(array), array_api_compat.device(array))


def to_numpy(array: Array) -> NDArray[Any]:
    """Return ``array`` as one of NumPy; it is copied from its device if it is on one."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_cupy_array(array) or array_api_compat.is_torch_array(array):
        array = array_api_compat.to_device(array, "cpu")
    if isinstance(array, np.ndarray):
        return array
    host = cast("NDArray[Any]", np.from_dlpack(array))
    return host if host.flags.writeable else host.copy()


def rfft2(image: Array) -> Array:
    """Return the transform of real ``(..., h, w)`` images: ``(..., h, w // 2 + 1)``."""
    if isinstance(image, np.ndarray):
        return fft.rfft2(image)
    return array_namespace(image).fft.rfftn(image, axes=(-2, -1))


def irfft2(spectrum: Array, *, shape: tuple[int, int], overwrite: bool = False) -> Array:
    """Return the real images of ``shape`` behind half spectra ``(..., h, w // 2 + 1)``, which may be overwritten if so said."""
    if isinstance(spectrum, np.ndarray):
        return fft.irfft2(spectrum, s=shape, overwrite_x=overwrite)
    return array_namespace(spectrum).fft.irfftn(spectrum, s=shape, axes=(-2, -1))
