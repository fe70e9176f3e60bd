"""How thick the ice is: by what the beam loses relative to the session's beam without ice, and by the ring at 3.7 Å."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.micrograph.transmission import (
    COMPANIONS,
    brightest_plausible,
    mean_free_paths,
    mean_intensity_2d,
    vacuum_of_empty,
)
from icestream.algorithms.micrograph.water_ring import COARSEST_PX_ANG, RING_ANG, measure_water_ring
from icestream.algorithms.spectra.spectrum import power_spectrum, spectrum_tile_px
from icestream.flow import Accumulator, Context, Exposure, Field, ItemError, Params, Progress, Update, Verdict, step
from icestream.io.image import read_image
from icestream.records import (
    Acquisition,
    BeamIntensity,
    IceRing,
    IceTransmission,
    JunkMask,
    Method,
    Micrograph,
    MicrographQuality,
    PowerSpectra,
    Record,
    Text,
    VacuumOrigin,
    VacuumReference,
)
from icestream.steps.motion.movie_spectra import read_power_spectra

TILE_ANG = 400.0
TOLERANCE = 0.03
"""How much brighter than others an exposure may be by chance, as a fraction."""

_CERTAINTY: tuple[VacuumOrigin, ...] = ("brightest", "empty_hole", "stated")
_MOST_KEPT = 64
_DIGITS = 5


class VacuumReferenceParams(Params):
    """From how many exposures the beam without ice is learnt, or what it is."""

    vacuum_counts_per_px_frame: float | None = Field(
        None, gt=0, description="Counts in a raw pixel and stored frame without ice, if somebody measured them; unset: learnt"
    )
    n_samples: int = Field(20, ge=1, le=500, description="Exposures to wait for; all others wait for them")
    window: int = Field(50, ge=1, le=500, description="Exposures between two looks for a brighter one")


class VacuumReferenceState(Record):
    """The brightest exposures and the empty holes so far, and the reference that was learnt from them."""

    brightest: list[float] = Field(default_factory=list)
    empty: list[float] = Field(default_factory=list)
    reference: float | None = None
    origin: VacuumOrigin = "brightest"
    n_measured: int = 0
    n_empty: int = 0
    n_updates: int = 0
    before: float | None = None


@step.map("measure_intensity", version=1)
def measure_intensity(micrograph: Micrograph, mask: JunkMask | None, ctx: Context) -> BeamIntensity:
    """Measure how many counts a micrograph has in a raw pixel and frame, where it is clean.

    With a `mask`, what lies under carbon, crystals, dirt or aggregates is left out. Exposures of a session compare if a frame has
    the same dose in all of them, and if their grey values are counts, as they are after motion correction.

    Raises
    ------
    ItemError
        If nothing is clean, the mean is not above zero, or the mask is of an image of another size.
    """
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    labels: NDArray[np.uint8] | None = None
    if mask is not None:
        if (mask.height_px, mask.width_px) != image.shape:
            raise ItemError(
                f"{mask.labels}: is of {mask.height_px} x {mask.width_px} px, the image of {image.shape[0]} x {image.shape[1]}"
            )
        labels = read_image(ctx.path(mask.labels)).astype(np.uint8)  # (h', w')
    try:
        mean, clean = mean_intensity_2d(image, labels=labels, box_px=1 if mask is None else mask.box_px)
    except ValueError as error:
        raise ItemError(f"{ref}: its intensity cannot be measured: {error}") from error
    summed = micrograph.n_frames or 1
    stored = 1 if micrograph.frames is None else micrograph.frames.stored_frames or 1
    weighted = micrograph.dose_weighted and micrograph.unweighted is None
    if weighted:
        mean *= summed**0.5  # such a sum is divided by the root of the sum of its squared weights, which are 1 at frequency zero
    return BeamIntensity(
        counts_per_px_frame=mean / (summed * stored), n_frames=max(round(summed * stored), 1), clean_share=round(clean, 4)
    )


@step.accumulate("vacuum_reference", version=1, memory_gb=0.1)
class VacuumReferences(Accumulator[VacuumReferenceState, VacuumReference]):
    """Learn how bright the beam of a session is without ice.

    What a person stated counts; else the median of empty holes, where `quality` is connected and names some; else the brightest
    exposure that two others confirm. The reference changes only if something more certain was found, or something brighter by
    more than what chance makes: all exposures should be compared with one and the same.
    """

    portion = 500

    def when(self, progress: Progress, params: VacuumReferenceParams) -> Verdict:
        """Wait for the first ``n_samples`` exposures, then for whole windows, or the end."""
        return progress.wait_for(params.window if progress.passed else params.n_samples, "exposures")

    def start(self, params: VacuumReferenceParams, ctx: Context) -> VacuumReferenceState:
        """Return the state before the first exposure."""
        return VacuumReferenceState()

    def add(
        self,
        state: VacuumReferenceState,
        exposures: Sequence[Exposure],
        intensity: Sequence[BeamIntensity],
        quality: Sequence[MicrographQuality | None],
        params: VacuumReferenceParams,
        ctx: Context,
    ) -> Update[VacuumReferenceState]:
        """Take the intensity of new exposures."""
        empty = [
            one.counts_per_px_frame
            for one, judged in zip(intensity, quality, strict=True)
            if judged is not None and judged.kind == "no_ice"
        ]
        others = [
            one.counts_per_px_frame
            for one, judged in zip(intensity, quality, strict=True)
            if judged is None or judged.kind != "no_ice"
        ]
        state = state.model_copy(
            update={
                "brightest": sorted([*state.brightest, *others], reverse=True)[:_MOST_KEPT],
                "empty": [*state.empty, *empty][-_MOST_KEPT:],
                "n_measured": state.n_measured + len(intensity),
                "n_empty": state.n_empty + len(empty),
            }
        )
        return Update(_renew(state, params))

    def emit(self, state: VacuumReferenceState, params: VacuumReferenceParams, ctx: Context) -> VacuumReference:
        """Return the reference as it is now."""
        if state.reference is None:
            raise ItemError("no exposure was measured, at least 1 is needed for a reference")
        return VacuumReference(
            counts_per_px_frame=state.reference,
            origin=state.origin,
            n_measured=state.n_measured,
            n_empty=state.n_empty,
            n_updates=state.n_updates,
            warning=_warn_of_change(state),
        )


def _renew(state: VacuumReferenceState, params: VacuumReferenceParams) -> VacuumReferenceState:
    """Replace the reference by a more certain one, or by one that is brighter by more than chance makes it."""
    found, origin = _find_vacuum(state, params)
    if found is None:
        return state
    if state.reference is None:
        return state.model_copy(update={"reference": found, "origin": origin})
    rank, old = _CERTAINTY.index(origin), _CERTAINTY.index(state.origin)
    if rank < old or (rank == old and found <= (1 + TOLERANCE) * state.reference):
        return state
    changes = {"reference": found, "origin": origin, "n_updates": state.n_updates + 1, "before": state.reference}
    return state.model_copy(update=changes)


def _find_vacuum(state: VacuumReferenceState, params: VacuumReferenceParams) -> tuple[float | None, VacuumOrigin]:
    if params.vacuum_counts_per_px_frame is not None:
        return params.vacuum_counts_per_px_frame, "stated"
    bright = brightest_plausible(state.brightest, tolerance=TOLERANCE)
    empty = vacuum_of_empty(state.empty, brightest=bright)
    if empty is not None:
        return empty, "empty_hole"
    if bright is None and state.reference is None and state.brightest:  # too few, or too different, to confirm each other
        bright = state.brightest[min(COMPANIONS, len(state.brightest) - 1)]
    return bright, "brightest"


def _warn_of_change(state: VacuumReferenceState) -> str | None:
    """Say that exposures were compared with different references, and what to do; or None."""
    if state.before is None or state.reference is None:
        return None
    apart = mean_free_paths(state.before, vacuum=state.reference)
    return (
        f"the beam without ice changed from {state.before:.4g} to {state.reference:.4g} counts in a pixel and frame, so earlier "
        f"exposures have {abs(apart):.3f} mean free paths too {'little' if apart > 0 else 'much'}; restart `ice_transmission` to "
        "compare all of them with the newest"
    )


@step.map(
    "ice_transmission",
    version=1,
    method=Method(
        (Text("The relative thickness of the ice was measured from its transmission, in mean free paths of the electrons."),), ()
    ),
)
def compare_transmission(intensity: BeamIntensity, reference: VacuumReference) -> IceTransmission:
    """Compare the intensity of an exposure with that of the session's beam without ice.

    This is one of three measures of the ice that are kept apart: it is relative, the nodes of the Thon rings (`ctf_local`) give a
    thickness where they show, and the ring at 3.7 Å (`ice_ring`) is an indicator.
    """
    vacuum = reference.counts_per_px_frame
    return IceTransmission(
        mean_free_paths=round(mean_free_paths(intensity.counts_per_px_frame, vacuum=vacuum), _DIGITS),
        transmission=intensity.counts_per_px_frame / vacuum,
        vacuum_counts_per_px_frame=vacuum,
        vacuum_origin=reference.origin,
    )


@step.map(
    "ice_ring",
    version=1,
    reads=("pixel_size_ang",),
    method=Method((Text("The ring of vitreous ice at 3.7 Å was measured in the power spectrum of each micrograph."),), ()),
)
def measure_ice_ring(
    micrograph: Micrograph, acquisition: Acquisition, ctx: Context, *, spectra: PowerSpectra | None = None
) -> IceRing:
    """Measure how strong the ring of vitreous ice at 3.7 Å is over the noise of the camera.

    With `spectra` of groups of frames, in which the ice has moved less, the ring is stronger. The sum without dose weighting is
    used where there is one. Where pixels are too coarse for the ring, a note says so.

    Raises
    ------
    ItemError
        If the pixel size is unset, or the image is too small, shows nothing, or was filtered.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    if pixel_ang > COARSEST_PX_ANG:
        return IceRing(note=f"pixels of {pixel_ang:.3g} Å do not reach the ring of ice at {RING_ANG} Å with its surroundings")
    ref = micrograph.unweighted or micrograph.image
    try:
        if spectra is None:
            image = read_image(ctx.path(ref))  # (h, w)
            tile_px = spectrum_tile_px(image.shape, pixel_size_ang=pixel_ang, tile_ang=TILE_ANG)
            spectrum = power_spectrum(image, tile_px=tile_px)  # (tile, tile // 2 + 1)
        else:
            spectrum = read_power_spectra(spectra, micrograph, ctx)[0].mean(axis=0)  # (tile, tile // 2 + 1)
        strength, error = measure_water_ring(spectrum, pixel_size_ang=pixel_ang)
    except ValueError as error_found:
        raise ItemError(f"{ref}: the ring of ice cannot be measured: {error_found}") from error_found
    return IceRing(strength=round(strength, _DIGITS), error=round(error, _DIGITS))
