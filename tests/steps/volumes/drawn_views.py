"""A toy step whose particles are views of one volume in noise, and the record that such images become."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.volumes import project_volume_2d, random_rotations, transform_volume
from icestream.flow import Context, Params, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.records import Particles
from toys.steps import Number

DRAWN = __name__
EACH, BOX, PIXEL_ANG = 24, 24, 6.0
SCOPE = {"pixel_size_ang": PIXEL_ANG, "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


class DrawParams(Params):
    """Nothing."""


def make_volume() -> NDArray[np.float32]:
    """Return five blobs without any symmetry."""
    along = np.arange(BOX) - BOX // 2
    points = np.array([[0, 0, 4], [3, 0, -3], [-3, 3, 0], [-2, -4, -1], [4, 3, 2]])
    lines = np.exp(-((along[None, :, None] - points[:, None]) ** 2) / 2)
    return np.einsum("sz,sy,sx->zyx", *lines.transpose(2, 0, 1)).astype(np.float32)


def particles_of(images: NDArray[np.floating], number: int, ctx: Context) -> Particles:
    """Publish bright images ``(n, h, w)`` of an exposure without a CTF."""
    count, box_px, _ = images.shape
    table = np.zeros(count, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"], table["defocus_u_ang"] = np.arange(count), np.arange(count), np.nan
    with ctx.publish("_p.mrcs") as out:
        write_mrc(out.path, images.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=out.ref, count=count, box_px=box_px, bin=1.0, inverted=True, phase_flipped=False, origin=ctx.exposure.id,
        picks_key="p", micrograph=f"session:m{number}.mrc", block=to_block(table),
    )  # fmt: skip


@step.map("toy_views", version=1)
def draw_views(number: Number, params: DrawParams, ctx: Context) -> Particles:
    """Draw views of a volume in noise."""
    rng = np.random.default_rng(number.value)
    clean = project_volume_2d(transform_volume(make_volume()), random_rotations(EACH, generator=rng))
    return particles_of(clean / clean.std() + rng.normal(size=clean.shape), number.value, ctx)
