"""Training a model of Topaz on the picks of a session."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field as RecordField

from icestream.external import Command, run_program
from icestream.external.topaz.picker import TopazScaleParams
from icestream.external.topaz.program import TOPAZ, device_words, make_small
from icestream.flow import Accumulator, Context, Exposure, Field, FileFormatError, ItemError, Progress, Update, Verdict, step
from icestream.io.picks import positions_of
from icestream.records import BEPLER_2019, Acquisition, FileRef, Method, Micrograph, Picks, Record, Text, TopazModel

_EPOCH = re.compile(r"model_epoch(\d+)\.sav\Z")
_PREFIX = "models/model"


class TopazTrainParams(TopazScaleParams):
    """What Topaz is trained on, and for how long."""

    micrographs: int = Field(20, ge=2, description="Micrographs to wait for; later ones are not trained on")
    expected_particles: float = Field(gt=0, description="Particles that a micrograph has, about; picks may be fewer (-n)")
    architecture: str = Field("resnet8", pattern=r"^(resnet8|resnet16|conv31|conv63|conv127)$", description="Kind of network")
    epochs: int = Field(10, ge=1, le=200, description="Epochs (--num-epochs)")
    epoch_size: int = Field(1000, ge=1, description="Steps of an epoch (--epoch-size)")
    label_radius_px: int = Field(3, ge=0, le=20, description="Pixels around a pick that count as particle, after reduction (-r)")


class HeldForTopaz(Record):
    """A micrograph to train on: its small image, and where its particles are, a line ``x y`` for each, in its pixels."""

    image: FileRef
    places: FileRef
    count: int = RecordField(ge=0)


class TopazTrainState(Record):
    """The micrographs that are held, and the model once there is one."""

    held: list[HeldForTopaz] = RecordField(default_factory=list)
    pixel_size_ang: float | None = None
    model: FileRef | None = None


@step.accumulate(
    "topaz_train",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=6,
    programs=(TOPAZ,),
    method=Method((Text("Topaz was trained on picks of {micrographs} micrographs."),), (BEPLER_2019,)),
)
class TrainTopaz(Accumulator[TopazTrainState, TopazModel]):
    """Train a model of Topaz once, on the first micrographs with picks: those of a consensus, by hand, or of good 2D classes.

    Topaz learns from particles alone, and from how many there are in a micrograph; it is run in its own environment.
    """

    def when(self, progress: Progress, params: TopazTrainParams) -> Verdict:
        """Train as soon as there are enough micrographs, or no more come."""
        return progress.wait_for(params.micrographs if not progress.passed else 1, "micrographs")

    def start(self, params: TopazTrainParams, ctx: Context) -> TopazTrainState:
        """Return the state before the first micrograph."""
        return TopazTrainState()

    def add(
        self,
        state: TopazTrainState,
        exposures: Sequence[Exposure],
        micrograph: Sequence[Micrograph],
        picks: Sequence[Picks],
        *,
        acquisition: Sequence[Acquisition],
        params: TopazTrainParams,
        ctx: Context,
    ) -> Update[TopazTrainState]:
        """Hold micrographs until there are enough, and train.

        Raises
        ------
        ItemError
            The pixel size is unset, no micrograph has a pick, or Topaz fails.
        """
        if state.model is not None:
            return Update(state, {})
        held, pixel_ang = list(state.held), state.pixel_size_ang
        for i, exposure in enumerate(exposures):
            own_ang = acquisition[i].need("pixel_size_ang") * micrograph[i].bin
            pixel_ang = pixel_ang or own_ang * params.factor(own_ang)
            held.append(_hold(exposure, micrograph[i], picks[i], own_ang, params, ctx))
        state = TopazTrainState(held=held, pixel_size_ang=pixel_ang)
        if len(held) < params.micrographs and not ctx.closing:
            return Update(state, {})
        return Update(state.model_copy(update={"model": _train(held, params, ctx)}), {})

    def emit(self, state: TopazTrainState, params: TopazTrainParams, ctx: Context) -> TopazModel:
        """Publish the model.

        Raises
        ------
        ItemError
            There is none yet.
        """
        if state.model is None or state.pixel_size_ang is None:
            raise ItemError(f"Topaz is not trained yet: {len(state.held)} of {params.micrographs} micrographs are there")
        return TopazModel(
            file=state.model,
            pixel_size_ang=state.pixel_size_ang,
            diameter_ang=params.diameter_ang,
            n_micrographs=len(state.held),
            count=sum(one.count for one in state.held),
        )


def _hold(
    exposure: Exposure, micrograph: Micrograph, picks: Picks, pixel_ang: float, params: TopazTrainParams, ctx: Context
) -> HeldForTopaz:
    """Let Topaz reduce a micrograph, and keep it with the places of its picks."""
    name = f"e{exposure.id}"
    small = make_small(micrograph, factor=params.factor(pixel_ang), pixel_size_ang=pixel_ang, name=name, ctx=ctx)
    with ctx.publish(f"_{exposure.id}_topaz.mrc") as image:
        image.path.write_bytes(small.path.read_bytes())
    rows = (positions_of(picks) / small.scale_yx).tolist()
    with ctx.publish(f"_{exposure.id}_topaz.txt") as places:
        places.path.write_text("".join(f"{x:.0f}\t{y:.0f}\n" for y, x in rows), encoding="utf-8")
    return HeldForTopaz(image=image.ref, places=places.ref, count=len(rows))


def _train(held: Sequence[HeldForTopaz], params: TopazTrainParams, ctx: Context) -> FileRef:
    """Train on all that is held; return the model of the last epoch."""
    if not any(one.count for one in held):
        raise ItemError(f"none of {len(held)} micrographs has a pick to train on")
    folder = ctx.work_folder
    images, targets = ["image_name\tpath"], ["image_name\tx_coord\ty_coord"]
    for number, one in enumerate(held):
        (folder / f"train{number:06d}.mrc").symlink_to(ctx.path(one.image))
        images.append(f"train{number:06d}\ttrain{number:06d}.mrc")
        lines = ctx.path(one.places).read_text(encoding="utf-8").splitlines()
        targets += [f"train{number:06d}\t{line}" for line in lines]
    (folder / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
    (folder / "targets.txt").write_text("\n".join(targets) + "\n", encoding="utf-8")
    (folder / _PREFIX).parent.mkdir()
    command = (
        Command()
        .word("train")
        .option("-n", params.expected_particles)
        .option("--train-images", "images.txt")
        .option("--train-targets", "targets.txt")
        .option("-m", params.architecture)
        .option("-r", params.label_radius_px)
        .option("--num-epochs", params.epochs)
        .option("--epoch-size", params.epoch_size)
        .option("--num-workers", 0)
        .option("--save-prefix", _PREFIX)
        .option("-o", "curve.txt")
    )
    run_program(TOPAZ, Command((*command.arguments, *device_words(ctx).arguments)), ctx)
    found = newest_model(folder / _PREFIX)
    with ctx.publish("_topaz.sav") as out:
        out.path.write_bytes(found.read_bytes())
    return out.ref


def newest_model(prefix: Path) -> Path:
    """Return the model of the last epoch that Topaz saved.

    Raises
    ------
    FileFormatError
        There is none.
    """
    known = {int(found.group(1)): path for path in prefix.parent.iterdir() if (found := _EPOCH.search(path.name))}
    if not known:
        raise FileFormatError(prefix.with_suffix(".sav"), "topaz train saved no model")
    return known[max(known)]
