"""Training a picker on the particles that survived 2D classification."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as RecordField

from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, Prepared, prepare_micrograph_2d
from icestream.algorithms.trained_picker.filters import Filters
from icestream.algorithms.trained_picker.model import Labelled, Model, train_model
from icestream.algorithms.trained_picker.trial import Trial, calibrate, try_model
from icestream.flow import (
    Accumulator,
    Angstrom,
    Context,
    Exposure,
    Field,
    ItemError,
    Params,
    Progress,
    Update,
    Verdict,
    before,
    step,
)
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

_CYCLE, _TRIAL, _CALIBRATION = 8, (3, 7), (1,)  # of eight micrographs, in order: two for trials, one to calibrate on
_MIN_DISTANCE = 0.5  # diameters
_FEWEST_PARTICLES = 50


class TrainPickerParams(Params):
    """What a picker is trained on, and when a new one is adopted."""

    good_classes: list[int] | None = Field(
        None, description="Ids of the 2D classes whose particles are good; needed where `classes` is connected"
    )
    first_micrographs: int = Field(
        8,
        ge=4,
        description="Micrographs to wait for before the first training; of fewer than four none is for a trial",
    )
    most_micrographs: int = Field(
        32,
        ge=_CYCLE,
        description="Most micrographs that are trained and tried on, a random part of the stream; of eight, five train, one "
        "calibrates and two are for trials",
    )
    least_gain: float = Field(
        0.0,
        ge=0,
        description="A new model is adopted if its expected F1 is better by more than this",
        json_schema_extra=before(3, 0.005),
    )
    confidence: float | None = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="How sure that must be, by how the difference varies between micrographs; what is not sure either way is "
        "tried again with more of them; unset: the difference itself decides, of however few",
        json_schema_extra=before(3, None),
    )
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
    version=4,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    memory_gb=2,
)
class TrainPicker(Accumulator[TrainPickerState, PickerModel]):
    """Train a picker on particles that survived 2D classification, and adopt it if it is better than the one before.

    Good are the particles of `good` (those that a selection let through), or those of `classes` in ``good_classes``. Picks of
    classes that were refused by their score or by hand are none, and those that are empty; of other picks, which were left out
    for any other reason (a neighbour, a border, a class that is too small), nothing is known.
    A new model is trained whenever the number of micrographs has doubled, or grown by half where the last trial could not decide.
    Of eight micrographs five are for training, one sets the threshold, and two are for trials, for good: there each new model is
    tried beside the one in use or, at first, the picks that are given. All models are kept.
    """

    def when(self, progress: Progress, params: TrainPickerParams) -> Verdict:
        """Train at ``first_micrographs``, whenever there are half as many again, and when the stream has closed."""
        target = max(-(-progress.passed // 2), params.first_micrographs if not progress.passed else 1)
        return progress.wait_for(target, "micrographs")

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
            is_good, is_refused = find_labels(picks[i], classes[i], good[i], params)
            image = _prepare(micrograph[i], ctf[i], acquisition[i], diameter_ang=diameter_ang, dark=params.dark, ctx=ctx)
            held.append(_hold(exposure, image, picks[i], is_good, is_refused, ordinal=state.n_exposures + i, ctx=ctx))
        held = _choose_held(held, seed=state.seed, most=params.most_micrographs)
        changes = {"held": held, "diameter_ang": diameter_ang, "n_exposures": state.n_exposures + len(exposures)}
        state = state.model_copy(update=changes)
        growth = 1.5 if state.trials and state.trials[-1].verdict == "undecided" else 2.0
        due = state.n_exposures >= max(growth * state.n_trained_at, params.first_micrographs) or ctx.closing
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


def find_labels(
    picks: Picks, classes: ClassAssignments | None, good: Particles | None, params: TrainPickerParams
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which picks are good particles, and which were refused: ``(n,)`` each."""
    for what, of in (("good", good), ("classes", classes)):
        if of is not None and not same_picks(picks.numbered_by, of.picks_key):
            raise ItemError(f"`{what}` is of the particles of other picks; link those that were extracted from the same")
    pid = from_block(picks.block)["pid"]
    nothing = np.zeros(len(pid), dtype=bool)
    if good is None and classes is None:
        raise ItemError("nothing says which picks are good: connect `good`, or `classes` with good_classes")
    if good is None and params.good_classes is None:
        raise ItemError("good_classes is unset: name the 2D classes whose particles are good, or connect `good`")
    is_refused = nothing
    is_good = nothing if good is None else np.isin(pid, from_block(good.block)["pid"])
    if good is not None and good.rejected is not None:
        table, refuting = from_block(good.rejected), np.array([one.no_particle for one in good.removed], dtype=bool)
        is_refused = np.isin(pid, table["pid"][refuting[table["reason"]]])
    if classes is not None and params.good_classes is not None:
        table = from_block(classes.block)
        in_good = np.isin(table["class_id"], params.good_classes)
        is_refused = is_refused | np.isin(pid, table["pid"][~in_good])
        is_good = np.isin(pid, table["pid"][in_good]) if good is None else is_good
    return is_good, is_refused & ~is_good


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
    exposure: Exposure,
    prepared: Prepared,
    picks: Picks,
    is_good: NDArray[np.bool_],
    is_refused: NDArray[np.bool_],
    *,
    ordinal: int,
    ctx: Context,
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
            bad=yx_px[is_refused],
            unknown=yx_px[~is_good & ~is_refused],
        )
    return HeldMicrograph(id=exposure.id, file=out.ref, ordinal=ordinal, count=int(np.count_nonzero(is_good)))


def _choose_held(held: list[HeldMicrograph], *, seed: int, most: int) -> list[HeldMicrograph]:
    """Keep at most ``most``, as if drawn from the whole stream: the rank depends on nothing but the id and the seed.

    Each purpose keeps its share, so that there is always something to calibrate and to try on.
    """

    def rank(one: HeldMicrograph) -> bytes:
        return hashlib.blake2b(f"{seed}:{one.id}".encode(), digest_size=8).digest()

    shares = {"trial": len(_TRIAL), "calibration": len(_CALIBRATION)}
    wanted = {purpose: most * share // _CYCLE for purpose, share in shares.items()}
    wanted["training"] = most - sum(wanted.values())
    ranked = sorted(held, key=rank)
    kept = {one.id for purpose, count in wanted.items() for one in [one for one in ranked if purpose_of(one) == purpose][:count]}
    return [one for one in held if one.id in kept]


def _train(state: TrainPickerState, params: TrainPickerParams, ctx: Context) -> TrainPickerState:
    """Train a model and try it beside the one in use; too few particles leave everything as it is.

    Micrographs with less than half of the usual number of good particles are left out: particles that nobody labelled there would
    be taken for background.
    """
    usual = float(np.median([one.count for one in state.held if one.count] or [0]))
    labelled = [one for one in state.held if one.count and one.count >= 0.5 * usual]
    groups: dict[str, list[HeldMicrograph]] = {"training": [], "calibration": [], "trial": []}
    for one in labelled:
        groups[purpose_of(one)].append(one)
    state = state.model_copy(update={"n_trained_at": state.n_exposures})
    if not groups["trial"] or not groups["calibration"] or sum(one.count for one in groups["training"]) < _FEWEST_PARTICLES:
        return state
    distance_px = _MIN_DISTANCE * WORKING_DIAMETER_PX
    ctx.progress(0.1, "training a picker")
    model = train_model([_load(one, ctx) for one in groups["training"]], min_distance_px=distance_px, seed=ctx.seed)
    model = calibrate(model, [_load(one, ctx) for one in groups["calibration"]], min_distance_px=distance_px, seed=ctx.seed)
    trial = [_load(one, ctx) for one in groups["trial"]]
    ctx.progress(0.7, "trying it beside the one in use")
    number = len(state.trials) + 1
    old = load_model(state.trials[state.adopted - 1].model, ctx) if state.adopted else None
    tried = try_model(model, old, trial, min_distance_px=distance_px, seed=ctx.seed)
    verdict = _judge(tried, params)
    done = PickerTrial(
        number=number,
        model=save_model(model, number, ctx),
        rival=state.adopted,
        n_trained=sum(one.count for one in groups["training"]),
        n_micrographs=len(trial),
        f1=round(tried.f1, 4),
        rival_f1=round(tried.rival_f1, 4),
        gain_error=None if tried.error is None else round(tried.error, 4),
        verdict=verdict,
        adopted=verdict == "better",
    )
    return state.model_copy(update={"trials": [*state.trials, done], "adopted": number if done.adopted else state.adopted})


def _judge(tried: Trial, params: TrainPickerParams) -> Literal["better", "not better", "undecided"]:
    if params.confidence is None:
        return "better" if tried.f1 >= tried.rival_f1 + params.least_gain else "not better"
    return tried.judge(least_gain=params.least_gain, confidence=params.confidence)


def purpose_of(held: HeldMicrograph) -> Literal["training", "calibration", "trial"]:
    """Return what a micrograph is for; it never serves for anything else."""
    place = held.ordinal % _CYCLE
    return "trial" if place in _TRIAL else "calibration" if place in _CALIBRATION else "training"


def _load(held: HeldMicrograph, ctx: Context) -> Labelled:
    with np.load(ctx.path(held.file), allow_pickle=False) as stored:
        prepared = Prepared(stored["image"].astype(np.float32), stored["allowed"], stored["scale"])
        return Labelled(prepared, stored["good"], stored["bad"], stored["unknown"])


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
