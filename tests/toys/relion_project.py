"""Exposures for a RELION project, made without any processing, and how they are added to it."""

from collections.abc import Sequence

import numpy as np

from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.records import Acquisition, CtfFit, Micrograph, Motion, Particles, Picks
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=1.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1)
CTF = CtfFit(defocus_u_ang=15000, defocus_v_ang=14000, astigmatism_angle_deg=20, score=0.3, resolution_ang=5)
Data = tuple[Exposure, Micrograph, CtfFit | None, Particles | None]


def make_exposure(bench: StepBench, number: int, *, ctf: CtfFit | None = CTF, n_particles: int | None = 3) -> Data:
    name = f"mic_{number}"
    rng = np.random.default_rng(number)
    write_mrc(bench.folder / f"{name}.mrc", rng.normal(size=(64, 96)).astype(np.float32), pixel_size_ang=2.0)
    motion = Motion(global_yx_px=[(0.0, 0.0), (1.5, -0.5)], total_px=1.6, early_px=0.4)
    micrograph = Micrograph(image=f"session:{name}.mrc", height_px=64, width_px=96, bin=2.0, motion=motion)
    particles = None
    if n_particles is not None:
        table = np.zeros(n_particles, dtype=dtype_of(Particles.block_columns))
        table["pid"], table["y_px"], table["x_px"] = np.arange(n_particles), 20 + number, 30 + np.arange(n_particles)
        table["slice"] = np.arange(n_particles)
        for column in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg"):
            table[column] = np.nan if ctf is None else getattr(ctf, column)
        if n_particles:
            stack = rng.normal(size=(n_particles, 16, 16)).astype(np.float32)
            write_mrc(bench.folder / f"{name}.mrcs", stack, pixel_size_ang=4.0)
        particles = Particles(
            stack=f"session:{name}.mrcs" if n_particles else None,
            count=n_particles,
            box_px=16,
            bin=4.0,
            inverted=True,
            phase_flipped=False,
            micrograph=micrograph.image,
            block=to_block(table),
        )
    return Exposure(f"{number:032x}"[::-1], name), micrograph, ctf, particles


def add(
    bench: StepBench,
    state: ExportState,
    data: Sequence[Data],
    params: ExportRelionParams | None = None,
    picks: Sequence[Picks | None] | None = None,
    acquisition: Acquisition = ACQUISITION,
) -> ExportState:
    exposures, micrographs, ctfs, particles = zip(*data, strict=True)
    given = (exposures, micrographs, ctfs, particles, [acquisition] * len(data), picks or [None] * len(data))
    return ExportRelion().add(state, *given, params or ExportRelionParams(), bench).state


def make_picks(*yx_px: tuple[float, float]) -> Picks:
    table = np.zeros(len(yx_px), dtype=dtype_of(Picks.block_columns))
    table["pid"], table["score"] = np.arange(len(yx_px)), 0.5
    if yx_px:
        table["y_px"], table["x_px"] = np.transpose(yx_px)
    return Picks(count=len(yx_px), diameter_ang=20, block=to_block(table))
