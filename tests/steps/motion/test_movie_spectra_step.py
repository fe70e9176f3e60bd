"""From a movie and its micrograph to power spectra of groups of frames, and to a CTF."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from icestream.algorithms.spectra.spectrum import power_spectra
from icestream.errors import ItemError
from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.flow.scheduling.joins import join_inputs
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from icestream.io.image import image_header, read_image, read_stack, write_mrc
from icestream.io.movie import movie_header, open_movie
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.truth import ExposureTruth, load_exposure_truth
from icestream.records import Acquisition, CtfFit, GainReference, Micrograph, Movie, PowerSpectra
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.motion.movie_spectra import MovieSpectraParams, average_movie_spectra, read_power_spectra
from icestream.steps.motion.reading import HeldFrames, Reading, look_at_frames
from icestream.steps.motion.recorded_frames import rebuild_detector
from icestream.testing.context import StepBench

SIDE, PIXEL_ANG, DOSE = 512, 1.2, 1.5
ACQUISITION = Acquisition(
    voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, pixel_size_ang=PIXEL_ANG, dose_per_frame_e_per_ang2=DOSE
)


@dataclass(frozen=True)
class Shot:
    """A simulated movie with what belongs to it."""

    bench: StepBench
    movie: Movie
    gain: GainReference
    truth: ExposureTruth

    def correct(self, **params: object) -> Micrograph:
        return correct_motion(self.movie, self.gain, MotionParams(**params), ACQUISITION, self.bench)

    def spectra(self, micrograph: Micrograph, acquisition: Acquisition = ACQUISITION, **params: object) -> PowerSpectra:
        return average_movie_spectra(self.movie, micrograph, MovieSpectraParams(**params), acquisition, self.bench)


def take(folder: Path, **changes: object) -> Shot:
    values = {
        "n_movies": 1, "height_px": SIDE, "width_px": SIDE, "n_frames": 24, "pixel_size_ang": PIXEL_ANG, "n_particles": 12,
        "dose_per_frame_e_per_ang2": DOSE, "format": "mrc", "defocus_um": (1.4, 1.4), "phantom_diameter_ang": 100.0, "seed": 5,
        "local_motion_px": 0.0,
    }  # fmt: skip
    settings = SimulationSettings.model_validate({**values, **changes})
    session = simulate(folder, settings=settings, pace=Pace())
    truth = load_exposure_truth(folder, session.exposures[0])
    header = movie_header(folder / truth.file)
    movie = Movie(
        file=f"session:{truth.file}",
        n_frames=header.n_frames,
        height_px=header.height_px,
        width_px=header.width_px,
        format=header.format,
        size_bytes=header.path.stat().st_size,
    )
    gain = GainReference(file="session:gain.mrc", height_px=settings.height_px, width_px=settings.width_px)
    return Shot(StepBench(folder), movie, gain, truth)


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> Shot:
    """A movie whose specimen drifts, and whose ice flows."""
    return take(tmp_path_factory.mktemp("shot"), ice_motion_ang2_per_e=1.1)


@pytest.fixture(scope="module")
def micrograph(shot: Shot) -> Micrograph:
    return shot.correct(local=False)


def test_frames_are_grouped_by_dose_and_the_files_hold_the_spectra(shot: Shot, micrograph: Micrograph) -> None:
    found = shot.spectra(micrograph)
    assert (found.n_groups, found.frames_per_group, found.group_e_per_ang2) == (8, 3.0, 4.5)
    assert (found.bin, found.tile_px * PIXEL_ANG <= 1000, found.fine_px <= SIDE) == (1.0, True, True)
    spectra, fine = read_power_spectra(found, micrograph, shot.bench)
    assert spectra.shape == (2, found.tile_px, found.tile_px // 2 + 1)
    assert fine.shape == (found.fine_px, found.fine_px // 2 + 1)
    assert image_header(shot.bench.path(found.spectra)).pixel_size_ang == pytest.approx(PIXEL_ANG, rel=1e-5)
    counted = 3 * DOSE * PIXEL_ANG**2  # electrons in a pixel of a group: the variance of what is noise
    beyond_the_rings = np.s_[:, found.tile_px // 4 : found.tile_px // 3, found.tile_px // 4 : found.tile_px // 3]
    assert spectra[beyond_the_rings].mean() == pytest.approx(counted, rel=0.1)
    assert PowerSpectra.restore(found.model_dump_json(), version=1, block=None) == found


def test_without_a_dose_the_stated_number_of_frames_makes_a_group(shot: Shot, micrograph: Micrograph) -> None:
    unknown = ACQUISITION.model_copy(update={"dose_per_frame_e_per_ang2": None})
    found = shot.spectra(micrograph, unknown, group_frames=6)
    assert (found.n_groups, found.frames_per_group, found.group_e_per_ang2) == (4, 6.0, None)
    assert shot.spectra(micrograph, group_frames=6).n_groups == 8
    with pytest.raises(ItemError, match="pixel_size_ang is unset"):
        shot.spectra(micrograph, ACQUISITION.model_copy(update={"pixel_size_ang": None}))


@pytest.mark.parametrize("params", [{}, {"bin": 1.5}, {"crop_offset_yx_px": (40, 64), "crop_size_yx_px": (400, 440)}])
def test_one_group_of_all_frames_has_the_spectra_of_the_micrograph(shot: Shot, params: dict[str, object]) -> None:
    """But for where it lies, and so for how it was interpolated and what is at its border."""
    made = shot.correct(local=False, first_frame=2, last_frame=20, **params)
    found = shot.spectra(made, group_e_per_ang2=1000)
    assert (found.n_groups, found.frames_per_group, found.bin) == (1, 19.0, made.bin)
    assert made.unweighted is not None
    expected = power_spectra(read_image(shot.bench.path(made.unweighted)), tile_px=found.tile_px, n_sets=2)
    spectra = read_stack(shot.bench.path(found.spectra))
    low = np.s_[:, 2 : found.tile_px // 4, 2 : found.tile_px // 4]
    assert np.corrcoef(np.log(spectra[low]).ravel(), np.log(expected[low]).ravel())[0, 1] > 0.95
    assert spectra[low].mean() == pytest.approx(expected[low].mean(), rel=0.05)


@pytest.mark.parametrize("crop", [{}, {"crop_offset_yx_px": (40, 64), "crop_size_yx_px": (400, 440)}])
def test_the_detector_is_that_of_motion_correction(shot: Shot, crop: dict[str, object], tmp_path: Path) -> None:
    (shot.bench.folder / "list.txt").write_text("100 120 3 2\n")
    turned = GainReference(file="session:turned.mrc", height_px=SIDE, width_px=SIDE)
    stored = read_image(shot.bench.path(shot.gain.file))
    write_mrc(shot.bench.path(turned.file), np.rot90(1 / np.where(stored > 0, stored, np.inf)), pixel_size_ang=1.0)
    params = MotionParams(local=False, defects="session:list.txt", **crop)
    use = correct_motion(shot.movie, turned, params, ACQUISITION, shot.bench).frames
    assert use is not None
    assert (use.gain_operation, use.gain_orientation) == ("divide", "rot270")
    assert use.n_known_defects >= 6
    assert use.n_hot_px > 0
    with open_movie(shot.bench.path(shot.movie.file)) as reader:
        frames = HeldFrames(reader, 0, reader.n_frames)
        looked, _, _ = look_at_frames(
            frames, turned, reader=reader, reading=Reading(0, reader.n_frames), orientation="auto", defects="session:list.txt",
            movie=shot.movie, ctx=shot.bench,
        )  # fmt: skip
    rebuilt = rebuild_detector(use, defects="session:list.txt", movie_format="mrc", ctx=shot.bench)
    part = np.s_[40:440, 64:504] if crop else np.s_[:, :]
    np.testing.assert_array_equal(rebuilt.factor, looked.factor[part])
    np.testing.assert_array_equal(rebuilt.defects, looked.defects[part])
    np.testing.assert_array_equal(rebuilt.positions, np.argwhere(looked.defects[part]))
    with pytest.raises(ItemError, match="give `defects` the list that motion has"):
        rebuild_detector(use, defects=None, movie_format="mrc", ctx=shot.bench)


def _error_ang(fit: CtfFit, truth: ExposureTruth) -> float:
    return abs(fit.defocus_u_ang + fit.defocus_v_ang - truth.defocus_u_ang - truth.defocus_v_ang) / 2


def test_rings_of_flowing_ice_are_plainer_in_groups_of_frames(shot: Shot, micrograph: Micrograph) -> None:
    """Around 3.7 Å, where ice scatters most and where a sum of all frames has forgotten it."""
    params = CtfParams(resolution_ang=(30.0, 3.2))
    whole = estimate_ctf(micrograph, params, ACQUISITION, shot.bench)
    grouped = estimate_ctf(micrograph, params, ACQUISITION, shot.bench, spectra=shot.spectra(micrograph))
    plain = [
        np.mean(np.array(fit.correlation)[(frequency > 1 / 4.2) & (frequency < 1 / 3.3)])
        for fit in (whole, grouped)
        for frequency in (np.array(fit.frequency_per_ang),)
    ]
    assert plain[1] > 1.5 * plain[0]
    assert _error_ang(grouped, shot.truth) < 40
    assert grouped.defocus_error_ang is not None and whole.defocus_error_ang is not None
    assert grouped.defocus_error_ang < whole.defocus_error_ang
    assert grouped.spectrum is not None
    assert shot.bench.path(grouped.spectrum).read_bytes().startswith(b"\x89PNG")


def test_the_ctf_of_a_movie_that_was_not_aligned_is_better_in_groups_of_frames(shot: Shot, micrograph: Micrograph) -> None:
    """Within a group little moves; the sum of all is smeared."""
    assert micrograph.motion is not None
    still = micrograph.motion.model_copy(update={"global_yx_px": [(0.0, 0.0)] * 24})
    smeared = micrograph.model_copy(update={"motion": still})
    params = CtfParams(resolution_ang=(30.0, 3.2))
    whole, grouped = (
        estimate_ctf(smeared, params, ACQUISITION, shot.bench, spectra=shot.spectra(smeared, group_e_per_ang2=dose))
        for dose in (1000.0, 4.0)
    )
    assert grouped.resolution_ang < 0.8 * whole.resolution_ang
    assert grouped.score > whole.score
    assert _error_ang(grouped, shot.truth) < min(60.0, _error_ang(whole, shot.truth) + 10)


def test_what_does_not_belong_together_is_named(shot: Shot, micrograph: Micrograph) -> None:
    with pytest.raises(ItemError, match="no motion and frames are on record"):
        shot.spectra(micrograph.model_copy(update={"frames": None}))
    other = shot.movie.model_copy(update={"file": "session:movies/other.mrc"})
    with pytest.raises(ItemError, match=r"was made of session:movies/mic_0001.mrc, not of session:movies/other.mrc"):
        average_movie_spectra(other, micrograph, MovieSpectraParams(), ACQUISITION, shot.bench)
    found = shot.spectra(micrograph)
    with pytest.raises(ItemError, match="binned by 1, those of the micrograph by 2"):
        estimate_ctf(micrograph.model_copy(update={"bin": 2.0}), CtfParams(), ACQUISITION, shot.bench, spectra=found)


def test_camera_frames_of_an_eer_movie_are_grouped_twice(tmp_path: Path) -> None:
    few = {"n_frames": 4, "eer_frames_per_frame": 8, "dose_per_frame_e_per_ang2": 4.0, "height_px": 256, "width_px": 256}
    shot = take(tmp_path, format="eer", n_particles=2, **few)
    known = ACQUISITION.model_copy(update={"dose_per_frame_e_per_ang2": 0.5})
    params = MotionParams(local=False, eer_group=4, eer_upsampling=2, bin=2.0)
    made = correct_motion(shot.movie, shot.gain, params, known, shot.bench)
    assert (made.bin, made.width_px) == (1.0, 256)
    found = shot.spectra(made, known)
    assert (found.n_groups, found.frames_per_group, found.group_e_per_ang2, found.bin) == (4, 2.0, 4.0, 1.0)
    spectra, _ = read_power_spectra(found, made, shot.bench)
    assert np.isfinite(spectra).all()


def test_the_step_is_declared() -> None:
    declared = step_type_of(average_movie_spectra)
    assert (declared.kind, [(port.name, port.record) for port in declared.ports]) == (
        Kind.MAP,
        [("movie", Movie), ("micrograph", Micrograph)],
    )
    assert declared.reads == {"pixel_size_ang", "dose_per_frame_e_per_ang2"}


def test_a_ctf_without_spectra_keeps_its_key() -> None:
    """Nothing of an input that is not connected is in what the key is made of."""
    steps = {
        "movies": {"use": "import_movies"},
        "aligned": {"use": "motion", "in": {"movie": "movies"}},
        "spectra": {"use": "movie_spectra", "in": {"movie": "movies", "micrograph": "aligned"}},
        "plain": {"use": "ctf", "in": {"micrograph": "aligned"}},
        "grouped": {"use": "ctf", "in": {"micrograph": "aligned", "spectra": "spectra"}},
    }
    graph = build_graph(Workflow.model_validate({"steps": steps}))
    done = {name: Outcome(Status.ITEM, {"out": f"key of {name}"}) for name in ("aligned", "spectra")}
    plain, grouped = (join_inputs(graph.nodes[name], done) for name in ("plain", "grouped"))
    assert plain is not None and grouped is not None
    assert plain.inputs == {"micrograph": ("key of aligned",)}
    assert grouped.inputs == {"micrograph": ("key of aligned",), "spectra": ("key of spectra",)}
