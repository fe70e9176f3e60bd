"""Training a picker on the particles that survived 2D classification."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as RecordField

from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, Prepared, prepare_micrograph_2d
from icestream.algorithms.trained_picker.filters import Filters
from icestream.algorithms.trained_picker.model import Labelled, Model, train_model
from icestream.algorithms.trained_picker.trial import calibrate, try_model
from icestream.errors import ItemError
from icestream.flow import Accumulator, Context, Exposure, Field, Params, Progress, Update, Verdict, keep, step, wait
from icestream.io.blocks import from_block
from icestream.io.image import read_image
from icestream.io.preview import write_mosaic
from icestream.records import (
    Acquisition,
    ClassAssignments,
    CtfFit,
    FileRef,
    Micrograph,
    Particles,
    PickerModel,
    PickerTrial,
    Picks,
    Record,
    same_picks,
)
from icestream.steps.picking.template import check_diameter, contrast_of
from icestream.units import Angstrom

_TRIAL_EVERY = 4  # one in so many micrographs is kept for trials
_MIN_DISTANCE = 0.5  # diameters
_FEWEST_PARTICLES = 50


class TrainPickerParams(Params):
    """What a picker is trained on, and when a new one is adopted."""

    good_classes: list[int] | None = Field(
        None, description="Ids of the 2D classes whose particles are good; needed where `classes` is connected"
    )
    first_micrographs: int = Field(8, ge=4, description="Micrographs to wait for before the first training")
    most_micrographs: int = Field(
        32, ge=4, description="Most micrographs that are trained and tried on, a random part of the stream"
    )
    least_gain: float = Field(0.005, ge=0, description="A new model is adopted if its expected F1 is better by this much")
    dark: bool = Field(True, description="Protein is darker than the ice; used where there is no CTF, which says it otherwise")


class HeldMicrograph(Record):
    """A micrograph to train or to try on; ``file`` has the small image and the places, ``.npz`` without pickles."""

    id: str
    file: FileRef
    ordinal: int = RecordField(ge=0)
    count: int = RecordField(ge=0, description="Good particles")


class TrainPickerState(Record):
    """The micrographs that are held, and the models so far."""

    seed: int
    n_exposures: int = 0
    n_trained_at: int = 0
    diameter_ang: Angstrom | None = None
    held: list[HeldMicrograph] = RecordField(default_factory=list)
    trials: list[PickerTrial] = RecordField(default_factory=list)
    adopted: int = 0


@step.accumulate(
    "train_picker",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    memory_gb=2,
)
class TrainPicker(Accumulator[TrainPickerState, PickerModel]):
    """Train a picker on particles that survived 2D classification, and adopt it if it is better than the one before.

    Good are the particles of `good` (those that a selection let through), or those of `classes` in ``good_classes``; the other
    picks are none. A new model is trained whenever the number of micrographs has doubled. It is tried on every fourth
    micrograph, which it was not trained on, beside the model in use or, at first, the picks that are given. All models are
    kept.
    """

    def when(self, progress: Progress, params: TrainPickerParams) -> Verdict:
        """Train at ``first_micrographs``, at each doubling, and when the stream has closed."""
        target = max(progress.passed, params.first_micrographs)
        if progress.stream_closed or progress.waiting >= target:
            return keep()
        return wait(f"{progress.waiting} of {target} micrographs")

    def start(self, params: TrainPickerParams, ctx: Context) -> TrainPickerState:
        """Return the state before the first micrograph."""
        return TrainPickerState(seed=ctx.seed)

    def add(
        self,
        state: TrainPickerState,
        exposures: Sequence[Exposure],
        micrograph: Sequence[Micrograph],
        picks: Sequence[Picks],
        ctf: Sequence[CtfFit | None],
        *,
        classes: Sequence[ClassAssignments | None],
        good: Sequence[Particles | None],
        acquisition: Sequence[Acquisition],
        params: TrainPickerParams,
        ctx: Context,
    ) -> Update[TrainPickerState]:
        """Hold new micrographs with their particles, and train and try a model if there are enough.

        Raises
        ------
        ItemError
            If an acquisition value is unset, the particles do not fit the image, or nothing says which are good.
        """
        held = list(state.held)
        diameter_ang = state.diameter_ang
        for i, exposure in enumerate(exposures):
            diameter_ang = diameter_ang or picks[i].diameter_ang
            is_good = _find_good(picks[i], classes[i], good[i], params)
            image = _prepare(micrograph[i], ctf[i], acquisition[i], diameter_ang=diameter_ang, dark=params.dark, ctx=ctx)
            held.append(_hold(exposure, image, picks[i], is_good, ordinal=state.n_exposures + i, ctx=ctx))
        held = _choose_held(held, seed=state.seed, most=params.most_micrographs)
        changes = {"held": held, "diameter_ang": diameter_ang, "n_exposures": state.n_exposures + len(exposures)}
        state = state.model_copy(update=changes)
        due = state.n_exposures >= max(2 * state.n_trained_at, params.first_micrographs) or ctx.closing
        if due and state.n_exposures > state.n_trained_at:
            state = _train(state, params, ctx)
        return Update(state, {})

    def emit(self, state: TrainPickerState, params: TrainPickerParams, ctx: Context) -> PickerModel:
        """Publish the model in use, and the table of all trials."""
        pictures = np.zeros((1, 16, 16), dtype=np.float32)
        if state.adopted:
            pictures = load_model(state.trials[state.adopted - 1].model, ctx).filters.real
        with ctx.publish("_filters.png") as picture:
            write_mosaic(picture.path, pictures, columns=8)
        return PickerModel(
            adopted=state.adopted,
            diameter_ang=state.diameter_ang,
            count=sum(one.count for one in state.held),
            picture=picture.ref,
            trials=state.trials,
        )


def _find_good(
    picks: Picks, classes: ClassAssignments | None, good: Particles | None, params: TrainPickerParams
) -> NDArray[np.bool_]:
    """Tell which picks are good particles: ``(n,)``."""
    for what, of in (("good", good), ("classes", classes)):
        if of is not None and not same_picks(picks.numbered_by, of.picks_key):
            raise ItemError(f"`{what}` is of the particles of other picks; link those that were extracted from the same")
    pid = from_block(picks.block)["pid"]
    if good is not None:
        return np.isin(pid, from_block(good.block)["pid"])
    if classes is None:
        raise ItemError("nothing says which picks are good: connect `good`, or `classes` with good_classes")
    if params.good_classes is None:
        raise ItemError("good_classes is unset: name the 2D classes whose particles are good, or connect `good`")
    table = from_block(classes.block)
    return np.isin(pid, table["pid"][np.isin(table["class_id"], params.good_classes)])


def _prepare(
    micrograph: Micrograph, ctf: CtfFit | None, acquisition: Acquisition, *, diameter_ang: float, dark: bool, ctx: Context
) -> Prepared:
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    check_diameter(diameter_ang, image.shape, pixel_size_ang=pixel_ang)
    return prepare_micrograph_2d(
        image, pixel_size_ang=pixel_ang, diameter_ang=diameter_ang, transfer=contrast_of(ctf, acquisition, dark=dark)
    )


def _hold(
    exposure: Exposure, prepared: Prepared, picks: Picks, is_good: NDArray[np.bool_], *, ordinal: int, ctx: Context
) -> HeldMicrograph:
    """Write down all that is needed to train on a micrograph."""
    table = from_block(picks.block)
    yx_px = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64) / prepared.scale
    with ctx.publish(f"_{exposure.name}_{exposure.id[:8]}_training.npz") as out, out.path.open("wb") as handle:
        np.savez(
            handle,
            image=prepared.image.astype(np.float16),
            allowed=prepared.allowed,
            scale=prepared.scale,
            good=yx_px[is_good],
            bad=yx_px[~is_good],
        )
    return HeldMicrograph(id=exposure.id, file=out.ref, ordinal=ordinal, count=int(np.count_nonzero(is_good)))


def _choose_held(held: list[HeldMicrograph], *, seed: int, most: int) -> list[HeldMicrograph]:
    """Keep at most ``most``, as if drawn from the whole stream: the rank depends on nothing but the id and the seed."""

    def rank(one: HeldMicrograph) -> bytes:
        return hashlib.blake2b(f"{seed}:{one.id}".encode(), digest_size=8).digest()

    kept = {one.id for one in sorted(held, key=rank)[:most]}
    return [one for one in held if one.id in kept]


def _train(state: TrainPickerState, params: TrainPickerParams, ctx: Context) -> TrainPickerState:
    """Train a model and try it beside the one in use; too few particles leave everything as it is.

    Micrographs with less than half of the usual number of good particles are left out: particles that nobody labelled there would
    be taken for background.
    """
    usual = float(np.median([one.count for one in state.held if one.count] or [0]))
    labelled = [one for one in state.held if one.count and one.count >= 0.5 * usual]
    apart = labelled[_TRIAL_EVERY - 1 :: _TRIAL_EVERY]
    training = [one for one in labelled if one not in apart]
    state = state.model_copy(update={"n_trained_at": state.n_exposures})
    if not apart or sum(one.count for one in training) < _FEWEST_PARTICLES:
        return state
    distance_px = _MIN_DISTANCE * WORKING_DIAMETER_PX
    ctx.progress(0.1, "training a picker")
    model = train_model([_load(one, ctx) for one in training], min_distance_px=distance_px, seed=ctx.seed)
    trial = [_load(one, ctx) for one in apart]
    model = calibrate(model, trial, min_distance_px=distance_px)
    ctx.progress(0.7, "trying it beside the one in use")
    number = len(state.trials) + 1
    old = load_model(state.trials[state.adopted - 1].model, ctx) if state.adopted else None
    f1, rival_f1 = try_model(model, old, trial, min_distance_px=distance_px, seed=ctx.seed)
    adopted = f1 >= rival_f1 + params.least_gain
    done = PickerTrial(
        number=number,
        model=save_model(model, number, ctx),
        rival=state.adopted,
        n_trained=sum(one.count for one in training),
        n_micrographs=len(trial),
        f1=round(f1, 4),
        rival_f1=round(rival_f1, 4),
        adopted=adopted,
    )
    return state.model_copy(update={"trials": [*state.trials, done], "adopted": number if adopted else state.adopted})


def _load(held: HeldMicrograph, ctx: Context) -> Labelled:
    with np.load(ctx.path(held.file), allow_pickle=False) as stored:
        prepared = Prepared(stored["image"].astype(np.float32), stored["allowed"], stored["scale"])
        return Labelled(prepared, stored["good"], stored["bad"])


def save_model(model: Model, number: int, ctx: Context) -> FileRef:
    """Publish a model, ``.npz`` without pickles."""
    with ctx.publish(f"_model_{number}.npz") as out, out.path.open("wb") as handle:
        np.savez(
            handle,
            real=model.filters.real,
            imaginary=model.filters.imaginary,
            order=model.filters.order,
            mean=model.mean,
            deviation=model.deviation,
            weights=model.weights,
            decision=np.array([model.threshold, model.slope, model.offset]),
        )
    return out.ref


def load_model(ref: FileRef, ctx: Context) -> Model:
    """Read a model, bit for bit as it was."""
    with np.load(ctx.path(ref), allow_pickle=False) as stored:
        filters = Filters(stored["real"], stored["imaginary"], stored["order"])
        decision = [float(number) for number in stored["decision"]]
        return Model(filters, stored["mean"], stored["deviation"], stored["weights"], *decision)
