"""Picking with a picker that was trained in the session."""

from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, prepare_micrograph_2d
from icestream.algorithms.trained_picker.trial import pick_with_model_2d
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.image import read_image
from icestream.records import BEPLER_2019, Acquisition, CtfFit, Method, Micrograph, PickerModel, Picks, Text
from icestream.steps.picking.template import check_diameter, contrast_of, record_picks
from icestream.steps.picking.train import load_model


class PickTrainedParams(Params):
    """Which model picks, and how many of the places that it finds are taken."""

    model: int | None = Field(
        None, ge=0, description="Number of the model; unset: the one in use; 0: the picks that are given, without a model"
    )
    dark: bool = Field(True, description="Protein is darker than the ice; used where there is no CTF, which says it otherwise")
    threshold: float | None = Field(None, gt=0, lt=1, description="Least probability of a pick; unset: decided by the model")
    false_fraction: float = Field(0.05, gt=0, lt=1, description="Accepted fraction of picks that are noise")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, those with the best scores; unset: all")
    min_distance_ang: Angstrom | None = Field(None, gt=0, description="Smallest distance of two picks; unset: half the diameter")


@step.map(
    "pick_trained",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    memory_gb=2.0,
    method=Method(
        (Text("Particles were picked by a picker that was trained in the session on particles of good classes."),), (BEPLER_2019,)
    ),
)
def pick_trained(
    micrograph: Micrograph,
    model: PickerModel,
    picks: Picks,
    params: PickTrainedParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    ctf: CtfFit | None = None,
) -> Picks:
    """Find particles with the picker that was trained in the session; where none was adopted, pass on the picks that are given.

    ``score`` is the probability of a particle, so that the picks of different models compare. ``reference`` is the model that was
    used.

    Raises
    ------
    ItemError
        If there is no such model, an acquisition value that is needed is unset, or the particles do not fit the image.
    """
    number = model.adopted if params.model is None else params.model
    if not number:
        return picks
    if number > len(model.trials):
        raise ItemError(f"there is no model {number}; there are {len(model.trials)} so far")
    diameter_ang = model.diameter_ang or picks.diameter_ang
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    check_diameter(diameter_ang, image.shape, pixel_size_ang=pixel_ang)
    prepared = prepare_micrograph_2d(
        image, pixel_size_ang=pixel_ang, diameter_ang=diameter_ang, transfer=contrast_of(ctf, acquisition, dark=params.dark)
    )
    ref = model.trials[number - 1].model
    distance = (params.min_distance_ang or 0.5 * diameter_ang) / diameter_ang
    found = pick_with_model_2d(
        prepared,
        load_model(ref, ctx),
        min_distance_px=distance * WORKING_DIAMETER_PX,
        seed=ctx.seed,
        false_discovery_rate=params.false_fraction,
        threshold=params.threshold,
    )
    return record_picks(
        found.yx_px * prepared.scale,
        found.probability,
        diameter_ang=diameter_ang,
        reference=ref,
        max_picks=params.max_picks,
    )
