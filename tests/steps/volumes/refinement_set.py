"""A small set of particles for refinement: what they are of, and how they are seen."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.volumes import project_volume_2d, random_rotations, transform_volume
from icestream.io.blocks import to_block
from icestream.io.image import write_mrc
from icestream.records import Acquisition, Particles
from icestream.testing.context import StepBench

BOX, PIXEL_ANG, COUNT, EXPOSURES = 32, 5.0, 240, 4
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG / 2, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
OPTICS = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
SCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


def make_volume() -> NDArray[np.float32]:
    rng = np.random.default_rng(20)
    along = np.arange(BOX) - BOX // 2
    points, heights = rng.normal(0, 3.3, (18, 3)), rng.uniform(0.5, 1.5, 18)
    points *= np.minimum(1, 7.5 / np.linalg.norm(points, axis=1, keepdims=True))
    lines = np.exp(-((along[None, :, None] - points[:, None]) ** 2) / 2)
    return np.einsum("s,sz,sy,sx->zyx", heights, *lines.transpose(2, 0, 1)).astype(np.float32)


VOLUME = make_volume()
ROTATIONS = random_rotations(COUNT, generator=np.random.default_rng(1))
SHIFT = np.clip(np.random.default_rng(2).normal(0, 0.8, (COUNT, 2)), -1.5, 1.5)


def expose(bench: StepBench, index: int, *, noise_only: bool = False, bright: bool = False) -> Particles:
    """Write the particles of one exposure and their record."""
    rng = np.random.default_rng([3, index])
    rows = np.arange(index, COUNT, EXPOSURES)
    table = np.zeros(len(rows), dtype=[("pid", "<i8"), *((name, "<f8") for name in OPTICS)])
    table["pid"] = 100 + rows
    u = rng.uniform(8000, 16000)
    table["defocus_u_ang"], table["defocus_v_ang"], table["astigmatism_angle_deg"] = u, u - 150, 30.0
    lens = {"defocus_u_ang": u, "defocus_v_ang": u - 150, "astigmatism_angle_deg": 30.0}
    clean = project_volume_2d(transform_volume(VOLUME), ROTATIONS[rows], shift_yx_px=SHIFT[rows])
    seen = np.fft.irfft2(np.fft.rfft2(clean) * ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **lens, **SCOPE), s=(BOX, BOX))
    seen *= 0 if noise_only else 0.55 / seen.std()
    seen *= -1 if bright else 1
    stack = f"session:stacks/{index}.mrcs"
    bench.path(stack).parent.mkdir(exist_ok=True)
    write_mrc(bench.path(stack), (seen + rng.normal(size=seen.shape)).astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=stack, count=len(rows), box_px=BOX, bin=2.0, inverted=bright, phase_flipped=False,
        micrograph=f"session:m{index}.mrc", origin=f"{index:032x}", picks_key="p", block=to_block(table),
    )  # fmt: skip
