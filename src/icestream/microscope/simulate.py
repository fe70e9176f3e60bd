"""A whole session: movies with known truth, written at the pace of a microscope."""

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.fourier import frequency_radius_2d
from icestream.errors import SessionError
from icestream.files import publish, publish_text
from icestream.microscope.camera import Camera, count_electrons, make_camera
from icestream.microscope.draw import draw_exposure, grid_of, settings_in_hole
from icestream.microscope.exposure import Specimen, counted_frames, draw_ice, expected_frames, render_specimen
from icestream.microscope.faults import assign_faults, exposure_settings, spoil_frames
from icestream.microscope.grid_files import write_epu_grid, write_navigator
from icestream.microscope.ice import flowing_ice, pattern_kept
from icestream.microscope.junk import add_junk
from icestream.microscope.pace import Pace, Wait, write_paced
from icestream.microscope.phantom import Phantom, load_phantom
from icestream.microscope.projection import FourierVolume, transform_volume
from icestream.microscope.scenes import add_scene
from icestream.microscope.settings import Fault, Scene, SidecarFault, SimulationSettings
from icestream.microscope.sidecars import sidecar_name, sidecar_text
from icestream.microscope.truth import ExposureTruth, SessionTruth, save_exposure_truth, save_session_truth
from icestream.microscope.writer import write_movie, write_mrc_array

OnProgress = Callable[[ExposureTruth], None]

_PHANTOM_KEY, _CAMERA_KEY, _EXPOSURE_KEY = 2, 3, 4
_SCRATCH = ".encoding"


@dataclass(frozen=True)
class Studio:
    """What all exposures of a session share, made once in each process."""

    phantom: Phantom
    volume: FourierVolume
    camera: Camera


@lru_cache(maxsize=1)
def _open_studio(settings_json: str) -> Studio:
    settings = SimulationSettings.model_validate_json(settings_json)
    phantom = load_phantom(
        settings.phantom,
        pixel_size_ang=settings.pixel_size_ang,
        diameter_ang=settings.phantom_diameter_ang,
        seed=int(settings.generator(_PHANTOM_KEY).integers(2**31)),
    )
    camera = make_camera(
        (settings.height_px, settings.width_px),
        gain=settings.gain,
        n_dead_pixels=settings.n_dead_pixels,
        n_hot_pixels=settings.n_hot_pixels,
        generator=settings.generator(_CAMERA_KEY),
    )
    return Studio(phantom, transform_volume(phantom.volume), camera)


def open_studio(settings: SimulationSettings) -> Studio:
    """Return phantom and camera of a session; the last one asked for is remembered."""
    return _open_studio(settings.model_dump_json())


def render_movie(path: Path, settings: SimulationSettings, index: int) -> ExposureTruth:
    """Simulate exposure ``index`` into the complete file ``path``; the same whatever was simulated before.

    Faults of the image (no beam, drift, size) and scenes are in it; faults of the file are left to `write_paced`.
    """
    fault = assign_faults(settings).get(index)
    settings = exposure_settings(settings, fault)
    truth, expected, generator = _expose(settings, index, fault)
    shape = (truth.height_px, truth.width_px)
    frames = counted_frames(expected, open_studio(settings).camera.cut(shape), generator=generator)
    frames = spoil_frames(frames, fault, n_frames=truth.n_frames)
    write_movie(path, frames, shape=shape, settings=settings, generator=generator)
    return truth


def render_micrograph(settings: SimulationSettings, index: int) -> tuple[NDArray[np.float32], ExposureTruth]:
    """Simulate exposure ``index`` as the plain sum of its frames, ``(h, w)`` electrons, seen by a perfect camera.

    Motion is not corrected: it blurs the sum. Ask for settings without motion where the sum is to be a good micrograph.
    """
    truth, expected, generator = _expose(settings, index, assign_faults(settings).get(index))
    summed = np.zeros((truth.height_px, truth.width_px), np.float32)
    for frame in expected:
        summed += frame
    return count_electrons(summed, generator=generator).astype(np.float32), truth


def _expose(
    settings: SimulationSettings, index: int, fault: Fault | None
) -> tuple[ExposureTruth, Iterator[NDArray[np.float32]], np.random.Generator]:
    """Return the truth of an exposure, its noiseless frames, and the generator of its camera's noise."""
    studio = open_studio(settings)
    settings = settings_in_hole(settings, index)
    truth = draw_exposure(settings, index, fault=fault, diameter_ang=studio.phantom.diameter_ang)
    generator = settings.generator(_EXPOSURE_KEY, index, 1)
    beam = truth.electrons_per_pixel / settings.dose_per_pixel
    bare = render_specimen(
        truth,
        studio.volume,
        particle_contrast=settings.particle_contrast,
        ice_thickness_ang=0.0 if truth.scene is Scene.NO_ICE else settings.ice_thickness_ang,
        generator=generator,
        ice_slices=settings.ice_slices,
        ice_ring=settings.ice_ring,
        ice_flows=settings.ice_motion_ang2_per_e > 0,
    )
    specimen = add_scene(bare, truth, generator=settings.generator(_EXPOSURE_KEY, index, 2))
    specimen = add_junk(
        specimen,
        truth,
        studio.volume,
        diameter_ang=studio.phantom.diameter_ang,
        particle_contrast=settings.particle_contrast,
        generator=settings.generator(_EXPOSURE_KEY, index, 5),
    )
    dose = settings.dose_per_frame_e_per_ang2 * beam
    flow = None if settings.ice_motion_ang2_per_e == 0 or not bare.ice.any() else _flow(settings, index, truth, bare, dose)
    ice = None if flow is None else (_replace_ice(specimen, bare, pattern) for pattern in flow)
    return truth, expected_frames(truth, specimen, dose_per_frame_e_per_ang2=dose, ice=ice), generator


def _replace_ice(specimen: Specimen, bare: Specimen, pattern: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the ice of a specimen with another pattern; what its scene adds to the bare one stays."""
    ice = specimen.ice.copy()
    ice[: len(pattern)] += pattern - bare.ice
    return ice


def _flow(
    settings: SimulationSettings, index: int, truth: ExposureTruth, bare: Specimen, dose_per_frame_e_per_ang2: float
) -> Iterator[NDArray[np.complex64]]:
    """Yield the pattern of the ice in each frame; what a scene adds to it stays."""
    displacement_ang2 = settings.ice_motion_ang2_per_e * dose_per_frame_e_per_ang2
    kept = pattern_kept(frequency_radius_2d(*bare.canvas) / truth.pixel_size_ang, displacement_ang2=displacement_ang2)
    fresh = draw_ice(
        truth,
        bare.canvas,
        bare.origin_yx,
        ice_thickness_ang=settings.ice_thickness_ang,
        generator=settings.generator(_EXPOSURE_KEY, index, 3),
        ice_slices=settings.ice_slices,
        ice_ring=settings.ice_ring,
        flows=True,
    )
    return flowing_ice(bare.ice, fresh, kept=kept)


def simulate(
    folder: Path,
    *,
    settings: SimulationSettings,
    pace: Pace,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> SessionTruth:
    """Write a simulated session into ``folder``: ``movies/``, ``gain.mrc`` and ``truth/``.

    Parameters
    ----------
    folder
        A new or empty folder.
    settings, pace
        What is simulated, and how it is written.
    workers
        Processes that compute ahead of the writing; 1 computes here, between the movies.
    on_progress
        Called after each movie was written.
    stop
        When set, the movie being written is completed at once and no other is begun.

    Returns
    -------
    truth
        Of the exposures that were written. The truth of an exposure is on disk before its movie appears.

    Raises
    ------
    SessionError
        The folder holds a simulated session already.
    FileFormatError
        The phantom cannot be read.
    """
    if (folder / "truth" / "session.json").exists():
        raise SessionError(f"{folder}: already holds a simulated session; choose an empty folder")
    session = _begin(folder, settings)
    if pace.late_gain_after is None:
        _write_gain(folder, settings)
    flag = stop or threading.Event()
    began_s = time.monotonic()
    rendered = _render_all(folder / _SCRATCH, settings, workers=workers)
    late: list[ExposureTruth] = []
    try:
        for index, (encoded, truth) in enumerate(rendered):
            due_s = began_s + index * pace.seconds_per_movie / pace.speed
            if pace.late_gain_after == index:
                _write_gain(folder, settings)
            if flag.wait(max(due_s - time.monotonic(), 0)):
                break
            session = _deliver(folder, encoded, truth, session=session, pace=pace, wait=flag.wait)
            late = _describe(folder, truth, settings, late=late)
            if on_progress is not None:
                on_progress(truth)
    finally:
        rendered.close()
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    for truth in late:
        _write_sidecar(folder, truth, settings)
    if pace.late_gain_after is not None and not (folder / "gain.mrc").exists():
        _write_gain(folder, settings)
    save_session_truth(session, folder)
    return session


def _describe(
    folder: Path, truth: ExposureTruth, settings: SimulationSettings, *, late: list[ExposureTruth]
) -> list[ExposureTruth]:
    """Write the sidecars that are due after a movie; return the exposures whose sidecar is late."""
    fault = settings.sidecar_faults.get(truth.index)
    due = [*late, *([] if fault in (SidecarFault.LATE, SidecarFault.MISSING) else [truth])]
    for one in due if settings.sidecars != "none" else []:
        _write_sidecar(folder, one, settings)
    return [truth] if fault is SidecarFault.LATE and settings.sidecars != "none" else []


def _write_sidecar(folder: Path, truth: ExposureTruth, settings: SimulationSettings) -> None:
    movie = folder / truth.file
    with publish(sidecar_name(movie, settings)) as temporary:
        temporary.write_bytes(sidecar_text(movie, truth, settings))


def _begin(folder: Path, settings: SimulationSettings) -> SessionTruth:
    """Make the folders, save the phantom and the truth of a session without exposures."""
    studio = open_studio(settings)
    (folder / "movies").mkdir(parents=True, exist_ok=True)
    with publish(folder / "truth" / "phantom.mrc") as temporary:
        write_mrc_array(temporary, studio.phantom.volume, pixel_size_ang=studio.phantom.pixel_size_ang, volume=True)
    grid = grid_of(settings)
    if grid is not None and settings.sidecars == "serialem":
        write_navigator(folder, grid)
    elif grid is not None:
        write_epu_grid(folder, grid, seed=settings.seed)
    session = SessionTruth(
        settings=settings,
        phantom_file="truth/phantom.mrc",
        phantom_diameter_ang=studio.phantom.diameter_ang,
        phantom_pixel_size_ang=studio.phantom.pixel_size_ang,
        gain_file="gain.mrc" if settings.gain else None,
        dead_yx=studio.camera.dead_yx,
        hot_yx=studio.camera.hot_yx,
        faults=assign_faults(settings),
        exposures=(),
    )
    save_session_truth(session, folder)
    return session


def _write_gain(folder: Path, settings: SimulationSettings) -> None:
    """Write the gain reference as such cameras do: frames are multiplied by it, those of EER movies divided."""
    if settings.gain:
        camera = open_studio(settings).camera
        reference = camera.inverse_gain if settings.format == "eer" else camera.gain
        with publish(folder / "gain.mrc") as temporary:
            write_mrc_array(temporary, reference, pixel_size_ang=settings.pixel_size_ang, volume=False)


def _deliver(folder: Path, encoded: Path, truth: ExposureTruth, *, session: SessionTruth, pace: Pace, wait: Wait) -> SessionTruth:
    """Save the truth of one exposure, let its movie appear, and return the session with it."""
    save_exposure_truth(truth, folder)
    write_paced(encoded, folder / truth.file, pace=pace, fault=truth.fault, wait=wait)
    encoded.unlink()
    grown = session.model_copy(update={"exposures": (*session.exposures, truth.name)})
    publish_text(folder / "truth" / "session.json", grown.model_dump_json(indent=1))
    return grown


def _render_all(
    scratch: Path, settings: SimulationSettings, *, workers: int
) -> Generator[tuple[Path, ExposureTruth], None, None]:
    """Yield encoded movies with their truth, in order; with several workers, computed ahead by two movies per worker."""
    scratch.mkdir(parents=True, exist_ok=True)
    paths = [scratch / f"{index:06d}.{settings.format}" for index in range(settings.n_movies)]
    if workers <= 1:
        for index, path in enumerate(paths):
            yield path, render_movie(path, settings, index)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        ahead: dict[int, Future[ExposureTruth]] = {}
        try:
            for index, path in enumerate(paths):
                for later in range(index, min(index + 2 * workers, len(paths))):
                    if later not in ahead:
                        ahead[later] = pool.submit(render_movie, paths[later], settings, later)
                yield path, ahead[index].result()
        finally:
            pool.shutdown(cancel_futures=True)
