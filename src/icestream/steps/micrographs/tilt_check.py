"""Finding micrographs of a specimen that is tilted or bent."""

import numpy as np

from icestream.algorithms.ctf.tilt import TiltStatistics, choose_window_px, correlate_windows
from icestream.flow import Angstrom, Context, Field, ItemError, Params, Verdict, WholePixels, keep, limits, reject, step
from icestream.io.image import read_image
from icestream.io.preview import write_mosaic
from icestream.records import Acquisition, FileRef, Micrograph, TiltMeasure


class MeasureTiltParams(Params):
    """How the image is cut up and what of the spectra is compared."""

    window_px: WholePixels | None = Field(
        None,
        ge=128,
        le=4096,
        multiple_of=4,
        description="Side of the windows; unset: the largest power of two, at most 4096, that fits 2.5 times into the image",
    )
    objective_resolution_ang: Angstrom = Field(3.0, gt=0, lt=20, description="Finest resolution that is compared")


class TiltCheckParams(Params):
    """How alike the windows must be."""

    min_mean: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="The mean of the correlations must be above this",
        json_schema_extra=limits("tilt_likeness_mean", "least"),
    )
    max_std: float = Field(
        0.1,
        gt=0,
        description="The spread of the correlations must be below this",
        json_schema_extra=limits("tilt_likeness_spread", "most"),
    )
    keep_faint: bool = Field(True, description="Keep a micrograph whose rings are too faint to tell")


@step.map("measure_tilt", version=1, reads=("pixel_size_ang",))
def measure_tilt(micrograph: Micrograph, params: MeasureTiltParams, acquisition: Acquisition, ctx: Context) -> TiltMeasure:
    """Compare the power spectra of the windows of a micrograph: on a slope the Thon rings change over the field.

    The sum without dose weighting is used where there is one, for its stronger rings at high frequency.

    Raises
    ------
    ItemError
        If the pixel size is unset, or the image is too small or shows nothing.
    """
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    try:
        window_px = params.window_px or choose_window_px((image.shape[0], image.shape[1]))
        found = correlate_windows(
            image,
            window_px=window_px,
            pixel_size_ang=pixel_size_ang,
            objective_resolution_ang=params.objective_resolution_ang,
        )
    except ValueError as error:
        raise ItemError(f"{ref}: the windows cannot be compared: {error}") from error
    measure = TiltMeasure(
        window_px=window_px,
        n_windows=len(found.spectra),
        significance=round(found.significance, 2),
        picture=_draw(found, columns=image.shape[1] // window_px, ctx=ctx),
    )
    if found.correlation is None or found.spread is None:
        return measure
    low, high = float(found.correlation.min()), float(found.correlation.max())
    return measure.model_copy(
        update={
            "mean_correlation": round(float(found.correlation.mean()), 4),
            "std_correlation": round(found.spread, 4),
            "min_correlation": round(low, 4),
            "max_correlation": round(high, 4),
        }
    )


def _draw(found: TiltStatistics, *, columns: int, ctx: Context) -> FileRef:
    """Publish the logarithm of the spectra, zero frequency at the left in the middle; the first row of windows is the lowest."""
    rows = len(found.spectra) // columns
    shifted = np.fft.fftshift(np.log(np.maximum(found.spectra, np.finfo(np.float32).tiny)), axes=1)  # (n, tile, tile // 2 + 1)
    upwards = shifted.reshape(rows, columns, *shifted.shape[1:])[::-1].reshape(shifted.shape)
    with ctx.publish("_tilt.png") as out:
        write_mosaic(out.path, upwards, columns=columns, max_px=128, percentiles=(5, 99))
    return out.ref


@step.filter("tilt_check", version=1)
def check_tilt(micrograph: Micrograph, tilt: TiltMeasure, params: TiltCheckParams) -> Verdict:  # noqa: ARG001 - the micrograph is passed on
    """Keep micrographs whose windows have the same Thon rings: those of a level specimen."""
    if tilt.mean_correlation is None or tilt.std_correlation is None:
        faint = f"rings are too faint to tell a tilt ({tilt.significance:.1f} standard deviations of noise)"
        return keep() if params.keep_faint else reject(faint)
    failures = []
    if not tilt.mean_correlation > params.min_mean:
        failures.append(f"mean correlation of the windows {tilt.mean_correlation:.3f} is not above {params.min_mean:g}")
    if not tilt.std_correlation < params.max_std:
        failures.append(f"spread of the correlations {tilt.std_correlation:.3f} is not below {params.max_std:g}")
    return reject("; ".join(failures)) if failures else keep()
