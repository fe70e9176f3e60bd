"""A session on paper in which every type of record occurs, for the test that lists what its report shows."""

import numpy as np
from paper_session import PaperSession, new_session, picks_block, write_png

from icestream.records import (
    BeamIntensity,
    ClassAverages,
    ClassInfo,
    CtfAgreement,
    CtfFit,
    CtfLocal,
    DenoisedMicrograph,
    DoseReference,
    ExposureMetadata,
    FrameUse,
    GainMonitor,
    GainReference,
    IceRing,
    IceTransmission,
    JunkMask,
    Micrograph,
    MicrographQuality,
    Motion,
    MotionAgreement,
    Movie,
    MovieDose,
    Particles,
    Picks,
    PowerSpectra,
    Record,
    RelionProject,
    TiltMeasure,
    Unevenness,
    VacuumReference,
)

STEPS: dict[str, tuple[str, str, dict[str, str]]] = {
    "movies": ("source", "import_movies", {}),
    "dose": ("map", "measure_dose", {"movie": "movies"}),
    "usual": ("accumulate", "dose_reference", {"dose": "dose"}),
    "gain": ("accumulate", "estimate_gain", {"movie": "movies"}),
    "align": ("map", "motion", {"movie": "movies", "gain": "gain"}),
    "align_b": ("map", "motion", {"movie": "movies"}),
    "moved": ("map", "compare_motion", {"first": "align", "second": "align_b"}),
    "spectra": ("map", "movie_spectra", {"movie": "movies", "micrograph": "align"}),
    "tilted": ("map", "measure_tilt", {"micrograph": "align"}),
    "quality": ("map", "measure_quality", {"micrograph": "align"}),
    "junk": ("map", "mask_junk", {"micrograph": "align"}),
    "bright": ("map", "measure_intensity", {"micrograph": "align"}),
    "vacuum": ("accumulate", "vacuum_reference", {"intensity": "bright"}),
    "passing": ("map", "ice_transmission", {"intensity": "bright", "reference": "vacuum"}),
    "water": ("map", "ice_ring", {"micrograph": "align"}),
    "ctf_a": ("map", "ctf", {"micrograph": "align"}),
    "ctf_b": ("map", "ctf_equiphase", {"micrograph": "align"}),
    "agree": ("map", "compare_ctfs", {"ctf": "ctf_a", "second": "ctf_b"}),
    "local": ("map", "ctf_local", {"micrograph": "align", "ctf": "ctf_a"}),
    "denoised": ("map", "denoise_preview", {"micrograph": "align", "ctf": "ctf_a"}),
    "find": ("map", "pick_blob", {"micrograph": "align"}),
    "cut": ("map", "extract", {"micrograph": "align", "picks": "find", "ctf": "ctf_a"}),
    "classes": ("accumulate", "classify2d", {"particles": "cut"}),
    "relion": ("accumulate", "export_relion", {"particles": "cut"}),
}
N_EXPOSURES = 8
HEIGHT, WIDTH = 400, 600


def describe_class(place: int, version: int) -> ClassInfo:
    """Return the numbers of one of three classes; the last came with the second version and has no resolution yet."""
    return ClassInfo(
        id=place,
        count=(place + 1) * 10 * version,
        resolution_ang=None if place == 2 else 7.0 + place,
        effective_count=(place + 1) * 9.5 * version,
        score=0.25 * (place + 1),
        born=1 + (place == 2),
    )


def write_every_record(folder, *, gain: str = "movies:gain.mrc") -> PaperSession:
    """Store eight exposures, with a record of every type, two versions of every whole, and every picture."""
    document = {
        step: {"use": use, "in": inputs, "label": step.replace("_", " ").title()} for step, (_, use, inputs) in STEPS.items()
    }
    paper = PaperSession(
        new_session(folder, document, name="Every record", acquisition={"pixel_size_ang": 0.8, "voltage_kv": 300.0})
    )
    for step, (kind, _, inputs) in STEPS.items():
        paper.revise(step, kind, links={port: [target] for port, target in inputs.items()})
    for picture in ("thumbnail", "spectrum", "windows", "quality", "surface", "gain", "residual", "board", "junk", "denoised"):
        write_png(folder / f"steps/{picture}.png", np.full((8, 8), 90, np.uint8))
    rng = np.random.default_rng(11)
    for index in range(1, N_EXPOSURES + 1):
        paper.now += 60.0
        unit = paper.expose(f"FoilHole_{index:04d}", index)
        for step, record in _records_of(index, rng, gain).items():
            paper.make(step, unit, record, block=getattr(record, "block", None))
    for version in (1, 2):
        paper.now += 60.0
        for step, record in _wholes(version).items():
            paper.publish(step, version, record)
    return paper


def _records_of(index: int, rng, gain: str) -> dict[str, Record]:
    grown = 1.0 + 0.1 * index
    place = ExposureMetadata(stage_y_um=10.0 * index, stage_x_um=-5.0 * index)
    movie = Movie(
        file=f"raw:m{index}.tif", n_frames=4, height_px=HEIGHT, width_px=WIDTH, format="tiff", size_bytes=9, metadata=place
    )
    yx = [(float(y), float(x)) for y, x in rng.uniform(30, (HEIGHT - 30, WIDTH - 30), size=(5 + index, 2))]
    picks = Picks(count=len(yx), diameter_ang=24.0, block=picks_block(yx))
    particles = Particles(
        stack="session:steps/cut/a.mrcs",
        count=len(yx) - 1,
        n_left_out=1,
        n_padded=index,
        box_px=64,
        bin=2.0,
        inverted=True,
        phase_flipped=False,
        micrograph="session:steps/align/a.mrc",
        block=picks_block(yx[1:]),
    )
    spectra = PowerSpectra(
        spectra="session:steps/s.mrc",
        fine_spectrum="session:steps/f.mrc",
        tile_px=512,
        fine_px=1024,
        bin=1.0,
        n_groups=4,
        frames_per_group=1.0,
    )
    return {
        "movies": movie,
        "dose": MovieDose(counts_per_px_frame=grown, zero_fraction=0.1 * grown, drift=-0.01 * grown, n_frames=4),
        "align": _micrograph(index, grown, place, gain),
        "align_b": _micrograph(index, 1.2 * grown, place, gain),
        "spectra": spectra,
        **_judged(grown),
        "ctf_a": _fit(grown, phase_shift_deg=30.0 * grown),
        "ctf_b": _fit(1.1 * grown, phase_shift_deg=0.0),
        "find": picks,
        "cut": particles,
    }


def _micrograph(index: int, grown: float, place: ExposureMetadata, gain: str) -> Micrograph:
    motion = Motion(
        global_yx_px=[(0.0, 0.0), (grown, 0.0), (grown, 2 * grown), (2 * grown, 3 * grown)],
        local_coefficients=[[0.1 * grown] * 18, [0.05 * grown] * 18],
        total_px=5 * grown,
        early_px=2 * grown,
        note="global only: 2 images are too few",
    )
    frames = FrameUse(
        movie=f"raw:m{index}.tif",
        movie_frames=4,
        height_px=HEIGHT,
        width_px=WIDTH,
        gain=gain,
        gain_residual=0.02 * grown,
        gain_note="the gain is flat",
    )
    return Micrograph(
        image=f"session:steps/align/{index}.mrc",
        height_px=HEIGHT // 2,
        width_px=WIDTH // 2,
        bin=2.0,
        motion=motion,
        frames=frames,
        dose_note="not weighted by dose: unset are cs_mm",
        thumbnail="session:steps/thumbnail.png",
        metadata=place,
    )


def _fit(grown: float, *, phase_shift_deg: float) -> CtfFit:
    return CtfFit(
        defocus_u_ang=12000 * grown,
        defocus_v_ang=11500 * grown,
        astigmatism_angle_deg=20.0,
        phase_shift_deg=phase_shift_deg,
        score=0.3 * grown,
        resolution_ang=3.0 * grown,
        spectrum="session:steps/spectrum.png",
        frequency_per_ang=[0.01, 0.1, 0.2, 0.3],
        profile=[0.1, 0.9, 0.2, 0.4],
        profile_fit=[0.0, 1.0, 0.1, 0.5],
    )


def _judged(grown: float) -> dict[str, Record]:
    quality = MicrographQuality(
        kind="bare_ice",
        score=0.5,
        reason="nothing but ice",
        probability={"bare_ice": 1.0},
        signal_to_noise=4 * grown,
        mottle=1.0,
        anisotropy=0.1,
        film_share=0.03 * grown,
        dark_share=0.02 * grown,
        skewness=0.0,
        usable_share=0.9,
        picture="session:steps/quality.png",
    )
    local = CtfLocal(
        model="plane",
        coefficients_ang=[0.0, 1.0, 2.0],
        height_px=HEIGHT,
        width_px=WIDTH,
        range_ang=300 * grown,
        error_ang=20 * grown,
        shift_ang=5.0,
        shift_error_ang=1.0,
        tilt_deg=3 * grown,
        ice_ring_significance=2 * grown,
        thickness_ang=400 * grown,
        reversal=0.0,
        n_windows=9,
        picture="session:steps/surface.png",
    )
    tilt = TiltMeasure(
        window_px=512,
        n_windows=9,
        significance=8 * grown,
        mean_correlation=0.4 * grown,
        std_correlation=0.05 * grown,
        picture="session:steps/windows.png",
    )
    moved = MotionAgreement(
        n_frames=4,
        rms_px=0.3 * grown,
        largest_px=0.6 * grown,
        field_rms_px=0.4 * grown,
        field_largest_px=0.9 * grown,
        correlation=0.45 * grown,
        range_px=3.0,
        path_px=5 * grown,
        second_path_px=6 * grown,
    )
    agree = CtfAgreement(
        agreement_ang=4 * grown,
        defocus_difference_ang=1200 * grown,
        astigmatism_difference_ang=60 * grown,
        least_confidence=0.4 * grown,
        least_score=0.2,
    )
    return {"quality": quality, "local": local, "tilted": tilt, "moved": moved, "agree": agree, **_seen(grown)}


def _seen(grown: float) -> dict[str, Record]:
    junk = JunkMask(
        labels="session:steps/labels.png",
        box_px=8,
        bin=16.0,
        height_px=HEIGHT // 2,
        width_px=WIDTH // 2,
        carbon_share=0.05 * grown,
        crystalline_ice_share=0.02 * grown,
        dirt_share=0.03 * grown,
        aggregate_share=0.01 * grown,
        any_share=0.11 * grown,
        note="pixels of 2 Å are too coarse",
        picture="session:steps/junk.png",
    )
    denoised = DenoisedMicrograph(
        image="session:steps/denoised.mrc",
        height_px=100,
        width_px=150,
        bin=4.0,
        method="halves",
        seen_ang=9 * grown,
        picture="session:steps/denoised.png",
    )
    return {"junk": junk, "denoised": denoised, **_ice(grown)}


def _ice(grown: float) -> dict[str, Record]:
    passing = IceTransmission(
        mean_free_paths=0.2 * grown, transmission=0.8, vacuum_counts_per_px_frame=1.5, vacuum_origin="empty_hole"
    )
    return {
        "bright": BeamIntensity(counts_per_px_frame=1.2 * grown, n_frames=40, clean_share=0.9),
        "passing": passing,
        "water": IceRing(strength=0.1 * grown, error=0.01),
    }


def _wholes(version: int) -> dict[str, Record]:
    uneven = Unevenness(total=0.1 / version, rows=0.02, columns=0.03, blocks=0.01, spread_ratio=1.5, peak_ratio=2.0 + version)
    monitor = GainMonitor(
        n_movies=20 * version,
        n_skipped=2,
        skipped="m7 is empty",
        noise=0.02 / version,
        n_defects=3,
        raw=uneven,
        residual=uneven.model_copy(update={"total": 0.01 / version}),
        slope=0.9 + 0.01 * version,
        picture="session:steps/gain.png",
        residual_picture="session:steps/residual.png",
        warning="the given gain leaves rows",
    )
    averages = ClassAverages(
        stack="session:steps/classes/a.mrcs",
        picture="session:steps/board.png",
        count=60 * version,
        box_px=64,
        bin=2.0,
        classes=[describe_class(k, version) for k in range(3)],
    )
    usual = DoseReference(
        counts_per_px_frame=1.4,
        source="median",
        dose_per_frame_e_per_ang2=1.1,
        n_measured=8,
        n_samples=7,
        n_updates=version,
        deviating_share=0.25,
        warning="25% of the last 50 movies lay far from the reference",
    )
    return {
        "usual": usual,
        "vacuum": VacuumReference(
            counts_per_px_frame=1.5, origin="brightest", n_measured=8, n_updates=version, warning="the beam without ice changed"
        ),
        "gain": GainReference(file="session:steps/gain.mrc", height_px=HEIGHT, width_px=WIDTH, monitor=monitor),
        "classes": averages,
        "relion": RelionProject(folder="session:exports/relion", n_micrographs=8, n_particles=70),
    }
