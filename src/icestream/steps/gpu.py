"""Where a step computes: on cores, or through CuPy on the GPU that it was granted."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from icestream.algorithms.namespaces import CORES, Place
from icestream.flow import Context, ItemError


def import_cupy() -> Any:
    """Return CuPy.

    Raises
    ------
    ItemError
        It is not installed, or sees no GPU.
    """
    asked = "a GPU was granted, but"
    remedy = "set `resources: {gpu_gb: 0}` for this step to compute on cores"
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise ItemError(f"{asked} CuPy cannot be imported ({error}): install icestream-em[gpu], or {remedy}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        raise ItemError(f"{asked} CuPy {cupy.__version__} cannot reach one ({error}): check the driver, or {remedy}") from error
    if count < 1:
        raise ItemError(f"{asked} CuPy {cupy.__version__} sees none: check the driver, or {remedy}")
    return cupy


@contextmanager
def granted_place(ctx: Context) -> Iterator[Place]:
    """Give the place where large arrays of this call belong; memory on a GPU is handed back at the end.

    Raises
    ------
    ItemError
        A GPU was granted and CuPy cannot use it: nothing is computed on cores in silence.
    """
    if ctx.gpu is None:
        yield CORES
        return
    cupy = import_cupy()
    try:
        yield Place(import_module("array_api_compat.cupy"), cupy.cuda.Device(0))
    finally:
        cupy.get_default_memory_pool().free_all_blocks()
