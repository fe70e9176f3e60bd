"""The steps that make templates, pick with them, train a picker, and pick with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from icestream.errors import FileFormatError, ItemError
from icestream.flow import Exposure, Progress
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.particles import remove_particles
from icestream.records import (
    Acquisition,
    ClassAssignments,
    ClassAverages,
    ClassInfo,
    ClassSelection,
    Micrograph,
    Particles,
    PickerModel,
    Picks,
    PickTemplates,
    SelectedClass,
)
from icestream.steps.picking.template import PickTemplateParams, pick_templates
from icestream.steps.picking.templates import MakeTemplatesParams, make_templates, read_template_file
from icestream.steps.picking.train import TrainPicker, TrainPickerParams, TrainPickerState, find_labels
from icestream.steps.picking.trained import PickTrainedParams, pick_trained
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=5.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)
DIAMETER_ANG, SIDE = 120.0, 240
Y, X = np.indices((40, 40)) - 20


def ring(angle: float = 0.0) -> np.ndarray:
    """A ring with a gap, bright."""
    radius, at = np.hypot(Y, X), np.arctan2(Y, X) - angle
    return np.exp(-0.5 * ((radius - 8) / 2.0) ** 2) * (np.cos(at) < 0.6)


def draw(bench: StepBench, name: str, seed: int) -> tuple[Micrograph, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = 0.8 * rng.normal(size=(SIDE, SIDE))
    centres: list[np.ndarray] = []
    while len(centres) < 24:
        centre = rng.integers(20, SIDE - 20, 2)
        if all(np.hypot(*(centre - other)) > 26 for other in centres):
            centres.append(centre)
            image[tuple(slice(c - 20, c + 20) for c in centre)] -= ring(rng.uniform(0, 2 * np.pi))
    write_mrc(bench.folder / f"{name}.mrc", image.astype(np.float32), pixel_size_ang=5.0, remember=False)
    return Micrograph(image=f"session:{name}.mrc", height_px=SIDE, width_px=SIDE, bin=1.0), np.array(centres, dtype=float)


def as_picks(yx_px: np.ndarray) -> Picks:
    table = np.zeros(len(yx_px), dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(len(table))
    table["y_px"], table["x_px"], table["score"] = yx_px[:, 0], yx_px[:, 1], 0.5
    return Picks(count=len(table), diameter_ang=DIAMETER_ANG, block=to_block(table))


def share_found(picks: Picks, true: np.ndarray) -> float:
    table = from_block(picks.block)
    distance = np.hypot(table["y_px"][:, None] - true[:, 0], table["x_px"][:, None] - true[:, 1])
    return float((distance.min(axis=0) < 7).mean()) if len(table) else 0.0


def class_averages(bench: StepBench) -> ClassAverages:
    write_mrc(
        bench.folder / "classes.mrcs",
        np.stack([ring(), ring(1.0), np.zeros((40, 40)), ring()[::-1]]).astype(np.float32),
        pixel_size_ang=5.0,
    )
    classes = [ClassInfo(id=i, count=n) for i, n in ((4, 300), (5, 200), (6, 400), (9, 3))]
    return ClassAverages(
        stack="session:classes.mrcs", picture="session:classes.png", count=903, box_px=40, bin=1.0, classes=classes
    )


def test_steps_are_declared() -> None:
    assert {port.name for port in step_type_of(make_templates).ports if port.bound} == {"classes", "file", "selection"}
    ports = {port.name: port.optional for port in step_type_of(pick_templates).ports}
    assert ports == {"micrograph": False, "templates": False, "ctf": True}
    ports = {port.name: port.optional for port in step_type_of(TrainPicker).ports}
    assert ports == {"micrograph": False, "picks": False, "ctf": True, "classes": True, "good": True}


def test_templates_of_classes_leave_out_rare_empty_and_turned_ones(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    made = make_templates(class_averages(bench), None, MakeTemplatesParams(diameter_ang=DIAMETER_ANG, alike=0.9), bench)
    assert [(one.source, one.count) for one in made.templates] == [(4, 300)]
    assert made.made_from == "3 of 4 2D classes of 903 particles"
    chosen = MakeTemplatesParams(diameter_ang=DIAMETER_ANG, classes=[5, 9], alike=0.999)
    assert [one.source for one in make_templates(class_averages(bench), None, chosen, bench).templates] == [5, 9]
    with pytest.raises(ItemError, match="there is no class 7; there are 4, 5, 6, 9"):
        make_templates(class_averages(bench), None, MakeTemplatesParams(diameter_ang=DIAMETER_ANG, classes=[7]), bench)
    with pytest.raises(ItemError, match="and not both"):
        make_templates(None, None, MakeTemplatesParams(diameter_ang=DIAMETER_ANG), bench)


def test_templates_are_of_the_classes_that_a_selection_has(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)

    def made(*selected: int) -> PickTemplates:
        chosen = [SelectedClass(id=i, count=300, selected=i in selected, by="score") for i in (4, 5, 6, 9)]
        selection = ClassSelection(picture="session:s.png", n_selected=1, n_particles=903, classes=chosen)
        params = MakeTemplatesParams(diameter_ang=DIAMETER_ANG, alike=0.999)
        return make_templates(class_averages(bench), None, params, bench, selection=selection)

    assert [one.source for one in made(5, 9).templates] == [5]  # the other one is rare
    with pytest.raises(ItemError, match="no class with enough particles is selected"):
        made(9)


def test_a_map_and_images_are_told_apart(tmp_path: Path) -> None:
    write_mrc(tmp_path / "map.mrc", np.stack([ring()] * 40).astype(np.float32), pixel_size_ang=5.0)
    write_mrc(tmp_path / "views.mrcs", np.stack([ring()] * 3).astype(np.float32), pixel_size_ang=5.0)
    write_mrc(tmp_path / "wide.mrcs", np.zeros((2, 8, 9), np.float32), pixel_size_ang=5.0)
    assert read_template_file(tmp_path / "map.mrc", "templates:map.mrc", kind=None, pixel_size_ang=None).kind == "map"
    views = read_template_file(tmp_path / "views.mrcs", "templates:views.mrcs", kind=None, pixel_size_ang=4.0)
    assert (views.kind, views.count, views.box_px, views.pixel_size_ang) == ("images", 3, 40, 4.0)
    with pytest.raises(FileFormatError, match="a map is a cube"):
        read_template_file(tmp_path / "views.mrcs", "templates:views.mrcs", kind="map", pixel_size_ang=None)
    with pytest.raises(FileFormatError, match="templates are square"):
        read_template_file(tmp_path / "wide.mrcs", "templates:wide.mrcs", kind=None, pixel_size_ang=None)
    bench = StepBench(tmp_path)
    file = read_template_file(tmp_path / "map.mrc", "session:map.mrc", kind=None, pixel_size_ang=None)
    made = make_templates(None, file, MakeTemplatesParams(diameter_ang=190.0, most=5), bench)
    assert (made.count, made.made_from) == (5, "120 views of a map")
    assert np.allclose((read_stack(bench.path(made.stack)) ** 2).sum(axis=(1, 2)), 1, atol=1e-4)


def test_picks_say_which_templates_found_them(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph, true = draw(bench, "a", 1)
    templates = make_templates(class_averages(bench), None, MakeTemplatesParams(diameter_ang=DIAMETER_ANG), bench)
    picks = pick_templates(micrograph, templates, None, PickTemplateParams(), ACQUISITION, bench)
    table = from_block(picks.block)
    assert picks.reference == templates.stack
    assert share_found(picks, true) > 0.9
    assert picks.count <= 30
    assert table["pid"].tolist() == list(range(picks.count))
    assert ((table["score"] > 0) & (table["score"] <= 1) & (np.diff(table["score"], prepend=1) <= 0)).all()
    few = pick_templates(micrograph, templates, None, PickTemplateParams(max_picks=5), ACQUISITION, bench)
    assert np.array_equal(from_block(few.block), table[:5])
    assert pick_templates(micrograph, templates, None, PickTemplateParams(), ACQUISITION, bench).block == picks.block
    with pytest.raises(ItemError, match="pixel_size_ang"):
        pick_templates(micrograph, templates, None, PickTemplateParams(), Acquisition(), bench)


def train(bench: StepBench, *, seeds: range, state: TrainPickerState | None = None, junk: int = 12) -> TrainPickerState:
    """Give the trainer micrographs whose picks are all particles, and as many places that classes refused as ``junk``."""
    params = TrainPickerParams(good_classes=[2, 3], first_micrographs=4)
    state = state or TrainPicker().start(params, bench)
    exposures, micrographs, picks, classes = [], [], [], []
    for seed in seeds:
        micrograph, true = draw(bench, f"m{seed}", seed)
        wrong = np.random.default_rng(seed).uniform(20, SIDE - 20, (junk, 2))
        given = as_picks(np.concatenate([true, wrong]))
        table = np.zeros(given.count, dtype=dtype_of(ClassAssignments.block_columns))
        table["pid"] = np.arange(given.count)
        table["class_id"] = np.where(np.arange(given.count) < len(true), 2 + seed % 2, 0)
        exposures.append(Exposure(f"{seed:032x}", f"m{seed}"))
        micrographs.append(micrograph)
        picks.append(given)
        classes.append(ClassAssignments(count=len(table), version=1, block=to_block(table)))
    nothing = [None] * len(exposures)
    acquisition = [ACQUISITION] * len(exposures)
    return (
        TrainPicker()
        .add(
            state,
            exposures,
            micrographs,
            picks,
            nothing,
            classes=classes,
            good=nothing,
            acquisition=acquisition,
            params=params,
            ctx=bench,
        )
        .state
    )


def publish(bench: StepBench, state: TrainPickerState) -> PickerModel:
    return TrainPicker().emit(state, TrainPickerParams(), bench)


def test_a_picker_that_is_better_is_adopted_and_earlier_ones_can_be_used(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = train(bench, seeds=range(8))
    assert [(trial.number, trial.rival, trial.verdict, trial.gain_error) for trial in state.trials] == [(1, 0, "undecided", None)]
    state = train(bench, seeds=range(8, 12), state=state)  # half as many more: three micrographs to try on
    assert [(trial.number, trial.rival, trial.adopted) for trial in state.trials[1:]] == [(2, 0, True)]
    assert state.trials[1].f1 > state.trials[1].rival_f1
    state = train(bench, seeds=range(12, 18), state=state)
    assert len(state.trials) == 2  # one was adopted: the next comes when there are twice as many
    state = train(bench, seeds=range(18, 24), state=state)
    assert [(trial.number, trial.rival) for trial in state.trials[2:]] == [(3, 2)]
    assert (bench.path(state.trials[0].model)).exists()
    model = publish(bench, state)
    micrograph, true = draw(bench, "fresh", 100)
    given = as_picks(true[:4])
    picks = pick_trained(micrograph, model, given, PickTrainedParams(), ACQUISITION, bench)
    assert picks.reference == state.trials[state.adopted - 1].model
    assert share_found(picks, true) > 0.8
    assert picks.count <= 32
    first = pick_trained(micrograph, model, given, PickTrainedParams(model=1), ACQUISITION, bench)
    assert first.reference == state.trials[0].model
    assert pick_trained(micrograph, model, given, PickTrainedParams(model=0), ACQUISITION, bench) is given
    with pytest.raises(ItemError, match="there is no model 4; there are 3 so far"):
        pick_trained(micrograph, model, given, PickTrainedParams(model=4), ACQUISITION, bench)


def test_a_picker_that_is_no_better_is_not_adopted(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = train(bench, seeds=range(12), junk=0)  # the picks that are given are perfect
    assert [(trial.rival, trial.adopted) for trial in state.trials] == [(0, False)]
    micrograph, true = draw(bench, "fresh", 101)
    given = as_picks(true)
    model = publish(bench, state)
    assert model.adopted == 0
    assert pick_trained(micrograph, model, given, PickTrainedParams(), ACQUISITION, bench) is given


def test_what_is_held_does_not_depend_on_the_order(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    params = TrainPickerParams(good_classes=[2, 3], first_micrographs=100, most_micrographs=8)
    kept = []
    for order in (tuple(range(16)), (8, 1, 10, 3, 12, 5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15)):
        state = TrainPicker().start(params, bench)
        for seed in order:
            micrograph, true = draw(bench, f"m{seed}", seed)
            table = np.zeros(len(true), dtype=dtype_of(ClassAssignments.block_columns))
            table["pid"], table["class_id"] = np.arange(len(true)), 2
            classes = ClassAssignments(count=len(table), version=1, block=to_block(table))
            exposure = Exposure(f"{seed:032x}", f"m{seed}")
            state = (
                TrainPicker()
                .add(
                    state,
                    [exposure],
                    [micrograph],
                    [as_picks(true)],
                    [None],
                    classes=[classes],
                    good=[None],
                    acquisition=[ACQUISITION],
                    params=params,
                    ctx=bench,
                )
                .state
            )
        kept.append({one.id for one in state.held})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 8
    assert [sum(int(one, 16) % 8 in places for one in kept[0]) for places in ((3, 7), (1,))] == [2, 1]


def test_training_waits_for_the_first_micrographs_and_then_for_half_as_many_again() -> None:
    params = TrainPickerParams(first_micrographs=8)

    def when(waiting: int, passed: int, *, closed: bool = False) -> bool:
        progress = Progress(waiting=waiting, waiting_weight=waiting, passed=passed, passed_weight=passed, stream_closed=closed)
        return TrainPicker().when(progress, params).accepted

    assert [when(7, 0), when(8, 0), when(7, 16), when(8, 16), when(1, 16, closed=True)] == [False, True, False, True, True]


def test_something_must_say_which_picks_are_good(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph, true = draw(bench, "m", 1)
    given: dict[str, Any] = {"acquisition": [ACQUISITION], "params": TrainPickerParams(), "ctx": bench}
    state = TrainPicker().start(TrainPickerParams(), bench)
    with pytest.raises(ItemError, match="nothing says which picks are good"):
        TrainPicker().add(state, [bench.exposure], [micrograph], [as_picks(true)], [None], classes=[None], good=[None], **given)
    other = ClassAssignments(
        count=0, version=1, picks_key="b" * 32, block=to_block(np.zeros(0, dtype_of(ClassAssignments.block_columns)))
    )
    with pytest.raises(ItemError, match="of other picks"):
        TrainPicker().add(state, [bench.exposure], [micrograph], [as_picks(true)], [None], classes=[other], good=[None], **given)


def test_only_what_says_that_there_is_no_particle_teaches() -> None:
    given = as_picks(np.arange(12.0).reshape(6, 2))
    table = np.zeros(6, dtype=dtype_of(Particles.block_columns))
    table["pid"] = np.arange(6)
    whole = Particles(
        stack="session:a.mrcs",
        micrograph="session:m.mrc",
        count=6,
        box_px=16,
        bin=1.0,
        inverted=True,
        phase_flipped=False,
        block=to_block(table),
    )
    at = np.arange(6)
    removed = {"class 3 has a score of 0.1": at == 1, "at the border": at == 2, "empty": at == 4}
    good = remove_particles(whole, removed, no_particle=["class 3 has a score of 0.1", "empty"])
    is_good, is_refused = find_labels(given, None, good, TrainPickerParams())
    assert is_good.tolist() == [True, False, False, True, False, True]
    assert is_refused.tolist() == [False, True, False, False, True, False]


def test_too_few_micrographs_are_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="most_micrographs"):
        TrainPickerParams(most_micrographs=7)
    with pytest.raises(ValidationError, match="first_micrographs"):
        TrainPickerParams(first_micrographs=3)
