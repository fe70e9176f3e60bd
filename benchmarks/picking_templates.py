"""Template, trained and blob picking side by side: python benchmarks/picking_templates.py <data> [--seeds 1000 8].

Simulated: four particles (the atomic models of ``data/phantom_models``, 150 to 270 Å, one of 171 kDa) in crowded ice of 300 Å,
40 e/Å², 1 to 2 µm of defocus, contrast 0.6, a tenth of the area under balls of ice. Templates are views of a map at 6 Å per
pixel. The picker is trained on the first five of the micrographs of each particle: good are the template picks that are
particles, less one in ten that the classes are taken to lose; so it is tried on the rest, as all three are. Particles under a
ball count neither way.

Real: apoferritin (manual picks, as `picking_f1` counts) and beta-galactosidase (discs drawn by experts), in both without a CTF;
templates and good particles are from a 2D classification of all blob picks of the set. ``--topaz`` runs the pretrained model of
Topaz in an environment of its own, given by the path of its ``topaz``. A pick matches within 0.3 diameters. Prints one JSON
line. Seeds below 100 served for development.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

import picking_f1
from icestream.algorithms.classes.ranking import GENEROUS
from icestream.algorithms.particles.pick_blob import pick_particles_2d
from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_image, write_mrc
from icestream.microscope.phantom import load_phantom
from icestream.microscope.score import match_picks
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio, render_micrograph
from icestream.records import Acquisition, ClassAssignments, CtfFit, Micrograph, Particles, PickerModel, Picks, PickTemplates
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.streaming import Classify2D
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.picking.template import PickTemplateParams, pick_templates
from icestream.steps.picking.templates import MakeTemplatesParams, make_templates, read_template_file
from icestream.steps.picking.train import TrainPicker, TrainPickerParams
from icestream.steps.picking.trained import PickTrainedParams, pick_trained
from icestream.testing.context import StepBench

MODELS = {"groel": "1MNF.pdb.gz", "ribosome": "powerfit_ribosome.pdb.gz", "receptor": "4zxb.cif.gz", "peptidase": "1gyt.pdb.gz"}
PIXEL_ANG, SIDE_PX = 1.5, 1536
N_TRAIN = 5
Places = NDArray[np.float64]


class Shot:
    """A micrograph with its truth: ``true`` ``(n, 2)``, and which of them count."""

    def __init__(
        self, name: str, image: NDArray[np.float32], true: Places, counts: NDArray[np.bool_], ctf: CtfFit | None
    ) -> None:
        self.name, self.image, self.true, self.counts, self.ctf = name, image, true, counts, ctf


class Session:
    """Steps called on a folder, and the processor time of each picker."""

    def __init__(self, folder: Path, acquisition: Acquisition, diameter_ang: float, searched: tuple[float, float]) -> None:
        self.bench = StepBench(folder)
        self.acquisition, self.diameter_ang, self.searched = acquisition, diameter_ang, searched
        self.seconds: dict[str, float] = {}

    def at(self, shot: Shot) -> Micrograph:
        """Write the micrograph; return its record."""
        path = self.bench.folder / f"{shot.name}.mrc"
        if not path.exists():
            write_mrc(path, shot.image, pixel_size_ang=self.acquisition.need("pixel_size_ang"), remember=False)
        self.bench.exposure = Exposure(f"{abs(hash(shot.name)):032x}"[:32], shot.name)
        return Micrograph(image=f"session:{path.name}", height_px=shot.image.shape[0], width_px=shot.image.shape[1], bin=1.0)

    def clock(self, name: str, began_s: float) -> None:
        """Add up processor time."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began_s

    def blob(self, shot: Shot) -> Picks:
        """Return the picks of the blob picker."""
        began_s = time.process_time()
        pixel_ang = self.acquisition.need("pixel_size_ang")
        diameter_px = (self.searched[0] / pixel_ang, self.searched[1] / pixel_ang)
        found = pick_particles_2d(-shot.image, diameter_px=diameter_px, min_distance_px=0.5 * self.diameter_ang / pixel_ang)
        self.clock("blob", began_s)
        table = np.zeros(len(found.score), dtype=dtype_of(Picks.block_columns))
        table["pid"] = np.arange(len(table))
        table["y_px"], table["x_px"], table["score"] = found.yx_px[:, 0], found.yx_px[:, 1], found.score
        return Picks(count=len(table), diameter_ang=self.diameter_ang, block=to_block(table))

    def template(self, shot: Shot, templates: PickTemplates) -> Picks:
        """Return what templates find."""
        micrograph = self.at(shot)
        began_s = time.process_time()
        picks = pick_templates(micrograph, templates, shot.ctf, PickTemplateParams(), self.acquisition, self.bench)
        self.clock("template", began_s)
        return picks

    def trained(self, shot: Shot, model: PickerModel, picks: Picks, number: int | None = None) -> Picks:
        """Return what a trained model finds."""
        micrograph = self.at(shot)
        began_s = time.process_time()
        params = PickTrainedParams(model=number)
        found = pick_trained(micrograph, model, picks, params, self.acquisition, self.bench, ctf=shot.ctf)
        self.clock("trained", began_s)
        return found

    def train(self, shots: list[Shot], picks: list[Picks], good: list[Particles]) -> PickerModel:
        """Train a picker on micrographs with their picks and the good ones of these."""
        began_s = time.process_time()
        params = TrainPickerParams(first_micrographs=4)
        state = TrainPicker().start(params, self.bench)
        micrographs = [self.at(shot) for shot in shots]
        exposures = [Exposure(f"{index:032x}", shot.name) for index, shot in enumerate(shots)]
        self.bench.closing = True
        nothing: list[ClassAssignments | None] = [None] * len(shots)
        update = TrainPicker().add(
            state, exposures, micrographs, picks, [shot.ctf for shot in shots], classes=nothing, good=good,
            acquisition=[self.acquisition] * len(shots), params=params, ctx=self.bench,
        )  # fmt: skip
        self.bench.closing = False
        self.clock("training", began_s)
        return TrainPicker().emit(update.state, params, self.bench)


def add_balls(image: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Put balls of ice, 200 to 800 Å wide, over a tenth of the image; also say where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(image.shape, dtype=np.float32)
    passed = np.ones(image.shape, np.float32)
    while (passed < 1).mean() < 0.1:
        centre, radius = rng.uniform(0, image.shape), rng.uniform(100, 400) / PIXEL_ANG
        height = np.sqrt(np.clip(1 - ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2, 0, None))
        passed = np.minimum(passed, np.exp(-rng.uniform(0.15, 0.4) * height))
    return image * ndimage.gaussian_filter(passed, 2.0), passed < 1


def simulate(model: Path, seed: int) -> tuple[Shot, float]:
    """Return a simulated micrograph and the diameter of its particles."""
    settings = SimulationSettings(
        seed=1, n_movies=seed + 1, gain=False, height_px=SIDE_PX, width_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, n_frames=1,
        dose_per_frame_e_per_ang2=40.0, drift_px=(0, 0), local_motion_px=0, phantom=model, n_particles=120,
        spacing_diameters=0.6, particle_contrast=0.6, ice_thickness_ang=300, defocus_um=(1.0, 2.0),
    )  # fmt: skip
    image, truth = render_micrograph(settings, seed)
    image, under = add_balls(image, seed)
    true = truth.positions_yx_px
    at = np.clip(true.round().astype(int), 0, SIDE_PX - 1)
    names = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
    ctf = CtfFit(**{name: getattr(truth, name) for name in names}, score=1.0, resolution_ang=4.0)
    shot = Shot(f"seed{seed}", image.astype(np.float32), true, ~under[at[:, 0], at[:, 1]], ctf)
    return shot, open_studio(settings).phantom.diameter_ang


def places(picks: Picks) -> Places:
    table = from_block(picks.block)
    return np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)


def count(shot: Shot, found: Places, radius_px: float) -> NDArray[np.int64]:
    """Return hits, picks and particles that count."""
    hits = match_picks(found, shot.true[shot.counts], radius_px=radius_px).n_matched
    hidden = match_picks(found, shot.true, radius_px=radius_px).n_matched - hits
    return np.array([hits, len(found) - max(hidden, 0), np.count_nonzero(shot.counts)])


def summarise(counts: list[NDArray[np.int64]]) -> dict[str, float]:
    hits, found, true = np.sum(counts, axis=0)
    return {
        "f1": round(float(2 * hits / max(found + true, 1)), 4),
        "precision": round(float(hits / max(found, 1)), 4),
        "recall": round(float(hits / true), 4),
    }


def choose_good(picks: Picks, shot: Shot, radius_px: float, rng: np.random.Generator) -> Particles:
    """Return the picks that are particles, less a tenth, as if 2D classification had kept them."""
    table = from_block(picks.block)
    near = cKDTree(shot.true).query(places(picks))[0] <= radius_px
    lost = rng.random(len(table)) <= 0.1
    return kept_particles(table["pid"][near & ~lost], table["pid"][~near & ~lost])


def kept_particles(pid: NDArray[np.int32], refused: NDArray[np.int32]) -> Particles:
    rows = np.zeros(len(pid), dtype=dtype_of(Particles.block_columns))
    rows["pid"] = pid
    rejected = np.zeros(len(refused), dtype=dtype_of(Particles.further_columns["rejected"]))
    rejected["pid"] = refused
    return Particles(
        stack=None, count=len(rows), box_px=2, bin=1.0, inverted=True, phase_flipped=False, micrograph="session:none.mrc",
        block=to_block(rows), rejected=to_block(rejected),
    )  # fmt: skip


def run_simulated(name: str, data: Path, *, first: int, seeds: int, topaz: Path | None) -> dict[str, Any]:
    model = data / "phantom_models" / MODELS[name]
    drawn = [simulate(model, seed) for seed in range(first, first + seeds)]
    shots, diameter_ang = [shot for shot, _ in drawn], drawn[0][1]
    acquisition = Acquisition(pixel_size_ang=PIXEL_ANG, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
    rng = np.random.default_rng(first)
    radius_px = 0.3 * diameter_ang / PIXEL_ANG
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), acquisition, diameter_ang, (0.85 * diameter_ang, 1.12 * diameter_ang))
        phantom = load_phantom(model, pixel_size_ang=6.0, diameter_ang=diameter_ang, seed=1)
        write_mrc(Path(folder) / "map.mrc", phantom.volume, pixel_size_ang=6.0, remember=False)
        session.bench.exposure = Exposure("0" * 32, "templates")
        file = read_template_file(Path(folder) / "map.mrc", "session:map.mrc", kind="map", pixel_size_ang=6.0)
        templates = make_templates(None, file, MakeTemplatesParams(diameter_ang=diameter_ang), session.bench)
        blob = [session.blob(shot) for shot in shots]
        given = [session.template(shot, templates) for shot in shots]
        good = [choose_good(picks, shot, radius_px, rng) for picks, shot in zip(given, shots, strict=True)]
        trained = session.train(shots[:N_TRAIN], given[:N_TRAIN], good[:N_TRAIN])
        found: dict[str, list[Places]] = {
            "blob": [places(picks) for picks in blob[N_TRAIN:]],
            "template": [places(picks) for picks in given[N_TRAIN:]],
            "trained": [places(session.trained(s, trained, p)) for s, p in zip(shots[N_TRAIN:], given[N_TRAIN:], strict=True)],
        }
        last = len(trained.trials)
        if last:
            found["trained_whether_adopted_or_not"] = [
                places(session.trained(s, trained, p, last)) for s, p in zip(shots[N_TRAIN:], given[N_TRAIN:], strict=True)
            ]
        if topaz is not None:
            found["topaz"] = pick_with_topaz(shots[N_TRAIN:], topaz, session)
        rest = shots[N_TRAIN:]
        line: dict[str, Any] = {
            key: summarise([count(s, yx, radius_px) for s, yx in zip(rest, of, strict=True)]) for key, of in found.items()
        }
        line["trials"] = [trial.model_dump(include={"f1", "rival_f1", "adopted", "n_trained"}) for trial in trained.trials]
        line["cpu_s"] = {key: round(value / len(shots), 2) for key, value in session.seconds.items()}
        return line


def pick_with_topaz(shots: list[Shot], topaz: Path, session: Session) -> list[Places]:
    """Return the picks of Topaz's pretrained model at its threshold of 0, images reduced until a particle is 32 pixels wide."""
    pixel_ang = session.acquisition.need("pixel_size_ang")
    factor = max(round(session.diameter_ang / pixel_ang / 32), 1)
    inputs = [str(session.bench.path(session.at(shot).image)) for shot in shots]
    work = session.bench.folder / "topaz"
    work.mkdir(exist_ok=True)
    subprocess.run([topaz, "preprocess", "-s", str(factor), "-o", work, *inputs], check=True, capture_output=True)
    radius = max(int(0.25 * session.diameter_ang / pixel_ang / factor), 1)
    small = [str(work / Path(name).name) for name in inputs]
    told = subprocess.run(
        [topaz, "extract", "-d", "-1", "-r", str(radius), "-t", "0", "-j", "1", *small],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split("\t") for line in told.splitlines()[1:]]
    return [
        np.array([[float(row[2]), float(row[1])] for row in rows if row[0] == shot.name], dtype=np.float64).reshape(-1, 2)
        * factor
        for shot in shots
    ]


def load_apoferritin(folder: Path) -> list[Shot]:
    shots = []
    for path in sorted((folder / "averages").glob("*.png")):
        image, true = picking_f1.load(path)
        shots.append(Shot(path.name.split(".bin")[0].replace(".", "_"), image, true, np.ones(len(true), dtype=bool), None))
    return shots


def load_galactosidase(folder: Path) -> list[Shot]:
    """Return the micrographs, the centres of their discs (joined discs: where the distance to the border peaks)."""
    shots = []
    for path in sorted((folder / "images").glob("*.jpg")):
        image = read_image(path).astype(np.float32)
        mask = imagecodecs.png_decode((folder / "masks" / f"{path.stem}_mask.png").read_bytes())
        mask = np.asarray(mask)[::-1] if mask.ndim == 2 else np.asarray(mask)[::-1, :, 0]
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask[::2, ::2] > 0), 2.0)
        tops = (ndimage.maximum_filter(depth, size=25) == depth) & (depth > 15)
        labels, n = ndimage.label(tops)
        true = 2.0 * np.array(ndimage.center_of_mass(tops, labels, range(1, n + 1))).reshape(-1, 2)
        shots.append(Shot(path.stem, image, true, np.ones(n, dtype=bool), None))
    return shots


def classify(session: Session, shots: list[Shot], picked: list[Picks]) -> tuple[PickTemplates, list[Particles]]:
    """Classify all picks; return templates of the good classes, and the particles in these."""
    params = Classify2DParams(n_classes=10, limit_ang=20.0, first_iterations=8)
    particles, exposures = [], []
    for index, (shot, picks) in enumerate(zip(shots, picked, strict=True)):
        micrograph = session.at(shot)
        particles.append(
            extract_particles(
                micrograph, picks, shot.ctf, ExtractParams(scaled_box_px=48, at_border="pad"), session.acquisition, session.bench
            )
        )
        exposures.append(Exposure(f"{index:032x}", shot.name))
    session.bench.exposure, session.bench.closing = Exposure("1" * 32, "classes"), True
    acquisition = [session.acquisition] * len(shots)
    state = Classify2D().start(params, session.bench)
    update = Classify2D().add(state, exposures, particles, acquisition=acquisition, params=params, ctx=session.bench)
    averages = Classify2D().emit(update.state, params, session.bench)
    session.bench.closing = False
    session.bench.exposure = Exposure(f"{len(list(session.bench.folder.rglob('*_templates.mrcs'))):08x}{0:024x}", "templates")
    templates = make_templates(averages, None, MakeTemplatesParams(diameter_ang=session.diameter_ang), session.bench)
    least = 0.25 * averages.count / len(averages.classes)
    kept = [one.id for one in averages.classes if one.count >= least and (one.score is None or one.score >= GENEROUS)]
    good = []
    for exposure in exposures:
        table = from_block(update.assignments[exposure.id].block)  # type: ignore[attr-defined]
        whole = np.isin(table["class_id"], kept)
        good.append(kept_particles(table["pid"][whole], table["pid"][~whole]))
    return templates, good


def run_real(
    shots: list[Shot], *, pixel_ang: float, diameter_ang: float, searched: tuple[float, float], match: float, topaz: Path | None
) -> dict[str, Any]:
    """Pick blobs, classify, pick with the classes, classify again; ``match`` is the radius of a match in diameters."""
    acquisition = Acquisition(pixel_size_ang=pixel_ang, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), acquisition, diameter_ang, searched)
        blob = [session.blob(shot) for shot in shots]
        first, _ = classify(session, shots, blob)
        given = [session.template(shot, first) for shot in shots]
        templates, good = classify(session, shots, given)
        again = [session.template(shot, templates) for shot in shots]
        model = session.train(shots, given, good)
        last = len(model.trials)
        found = {
            "blob": [places(picks) for picks in blob],
            "template": [places(picks) for picks in given],
            "template_again": [places(picks) for picks in again],
            "trained": [places(session.trained(s, model, p)) for s, p in zip(shots, given, strict=True)],
            "trained_whether_adopted_or_not": [
                places(session.trained(s, model, p, last or None)) for s, p in zip(shots, given, strict=True)
            ],
        }
        if topaz is not None:
            found["topaz"] = pick_with_topaz(shots, topaz, session)
        line: dict[str, Any] = {name: judge(of, shots, match * diameter_ang / pixel_ang) for name, of in found.items()}
        line["made_from"] = f"{first.count} templates, {first.made_from}; then {templates.count}, {templates.made_from}"
        line["trials"] = [trial.model_dump(include={"f1", "rival_f1", "adopted", "n_trained"}) for trial in model.trials]
        line["cpu_s"] = {name: round(value / len(shots), 2) for name, value in session.seconds.items()}
        return line


def judge(found: list[Places], shots: list[Shot], radius_px: float) -> dict[str, float]:
    """Compare with picks by hand, as `picking_f1` does."""
    counts = [picking_f1.count(yx, s.true, s.image.shape, radius_px / 0.3) for s, yx in zip(shots, found, strict=True)]
    hits, false, missed = np.sum(counts, axis=0)
    each = [2 * h / max(2 * h + f + m, 1) for h, f, m in counts]
    return {
        "f1": round(float(2 * hits / (2 * hits + false + missed)), 4), "mean_f1": round(float(np.mean(each)), 4),
        "precision": round(float(hits / max(hits + false, 1)), 4), "recall": round(float(hits / (hits + missed)), 4),
    }  # fmt: skip


def time_large() -> dict[str, float]:
    """Return processor seconds of one micrograph of 4096² at 1 Å with 48 templates and with a model, particles of 160 Å."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4096, 4096)).astype(np.float32)
    y, x = np.indices((80, 80)) - 40
    with tempfile.TemporaryDirectory() as folder:
        acquisition = Acquisition(pixel_size_ang=1.0, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
        session = Session(Path(folder), acquisition, 160.0, (150.0, 170.0))
        ctf = CtfFit(defocus_u_ang=15000, defocus_v_ang=14800, astigmatism_angle_deg=20, score=0.3, resolution_ang=5)
        true = rng.uniform(100, 3996, (300, 2))
        for row, column in true.astype(int):
            image[row - 40 : row + 40, column - 40 : column + 40] -= 0.7 * (np.hypot(y, x) < 40)
        views = np.stack(
            [
                ndimage.gaussian_filter(rng.normal(size=(64, 64)), 4) * (np.hypot(*(np.indices((64, 64)) - 32)) < 20)
                for _ in range(48)
            ]
        )
        write_mrc(Path(folder) / "views.mrcs", views.astype(np.float32), pixel_size_ang=4.0, remember=False)
        file = read_template_file(Path(folder) / "views.mrcs", "session:views.mrcs", kind="images", pixel_size_ang=4.0)
        templates = make_templates(None, file, MakeTemplatesParams(diameter_ang=160.0, alike=1.0), session.bench)
        shots = [Shot(f"large{i}", image, true, np.ones(len(true), dtype=bool), ctf) for i in range(4)]
        table = np.zeros(len(true), dtype=dtype_of(Picks.block_columns))
        table["pid"], table["y_px"], table["x_px"] = np.arange(len(true)), true[:, 0], true[:, 1]
        picks = Picks(count=len(table), diameter_ang=160.0, block=to_block(table))
        model = session.train(shots, [picks] * 4, [kept_particles(table["pid"], table["pid"][:0])] * 4)
        session.seconds.clear()
        session.template(shots[0], templates)
        session.trained(shots[0], model, picks, len(model.trials))
        return {name: round(value, 2) for name, value in session.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 8), help="the first, and how many; the first five train")
    parser.add_argument("--particles", nargs="*", default=list(MODELS))
    parser.add_argument("--topaz", type=Path)
    parser.add_argument("--real", choices=("all", "none", "only"), default="all")
    arguments = parser.parse_args()
    line: dict[str, Any] = {"benchmark": "picking_templates", "first": arguments.seeds[0], "seeds": arguments.seeds[1]}
    if arguments.real != "only":
        simulated = {
            name: run_simulated(name, arguments.data, first=arguments.seeds[0], seeds=arguments.seeds[1], topaz=arguments.topaz)
            for name in arguments.particles
        }
        line["simulated"] = simulated
        pickers = [name for name in next(iter(simulated.values())) if name not in ("trials", "cpu_s")]
        line["simulated_f1"] = {p: round(float(np.mean([of[p]["f1"] for of in simulated.values()])), 4) for p in pickers}
        line["cpu_s_4096"] = time_large()
    if arguments.real != "none":
        line["apoferritin"] = run_real(
            load_apoferritin(arguments.data / "empiar10146_apoferritin"), pixel_ang=1.5, diameter_ang=120.0, searched=(100.0,
            135.0), match=0.3, topaz=arguments.topaz,
        )  # fmt: skip
        line["galactosidase"] = run_real(
            load_galactosidase(arguments.data / "empiar10017_betagal"), pixel_ang=1.77, diameter_ang=191.0, searched=(150.0,
            215.0), match=0.5, topaz=arguments.topaz,
        )  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
