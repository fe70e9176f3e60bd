"""Each single program against the consensus of all: python benchmarks/programs_consensus.py FIRST SEEDS [--topaz PATH].

Picking: sessions of ``--micrographs`` simulated micrographs, plain, weak, crowded and blurred by drift in turn, are picked by
icestream's `pick_blob` and `pick_matched`, by RELION's LoG filter and, with ``--topaz`` (its executable), by Topaz's pretrained
model; every picker as its step runs it, with the true diameter to 10 %. The consensus is that of the step, with the quality of
the pickers learnt over the session. ``wrecked`` is the same with the first picker's picks turned upside down on a fifth of the
micrographs. A pick is right within 0.3 diameters. Prints one JSON line. Seeds below 100 served for development.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from icestream.external.relion.log_picker import RelionLogPickerParams, pick_with_relion_log
from icestream.external.topaz.picker import TopazPickParams, pick_with_topaz
from icestream.flow import Exposure, ProgramSettings
from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.records import Acquisition, Micrograph, Picks
from icestream.steps.picking.blob import PickBlobParams, pick_blobs
from icestream.steps.picking.matched import PickMatchedParams, pick_matched
from icestream.testing.context import StepBench
from picking_consensus import Found, agree, f1
from picking_simulated import DIAMETER_ANG, KINDS, PIXEL_ANG, PLAIN

MIXED = ("plain", "weak", "crowded", "drift")
"""Kinds of `picking_simulated` that the micrographs of a session are, in turn."""
SIDE_PX = PLAIN["height_px"]
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
RANGE_ANG = (0.9 * DIAMETER_ANG, 1.1 * DIAMETER_ANG)
WRECKED = 0.2

Picker = Callable[[Micrograph, StepBench], Picks]


def pickers_of(topaz: Path | None) -> dict[str, Picker]:
    """Return every picker that takes part."""
    relion = RelionLogPickerParams(diameter_ang=RANGE_ANG, shrink=1.0)
    found: dict[str, Picker] = {
        "pick_blob": lambda one, bench: pick_blobs(one, PickBlobParams(diameter_ang=RANGE_ANG), ACQUISITION, bench),
        "pick_matched": lambda one, bench: pick_matched(one, PickMatchedParams(diameter_ang=RANGE_ANG), ACQUISITION, bench),
        "relion_log": lambda one, bench: pick_with_relion_log(one, relion, ACQUISITION, bench),
    }
    if topaz is not None:
        params = TopazPickParams(diameter_ang=DIAMETER_ANG)
        found["topaz"] = lambda one, bench: pick_with_topaz(one, None, params, ACQUISITION, bench)
    return found


def draw(seed: int, number: int, folder: Path) -> tuple[Micrograph, np.ndarray]:
    """Write a micrograph and return it with the true positions."""
    changes = KINDS[MIXED[number % len(MIXED)]]
    settings = SimulationSettings(**{**PLAIN, **changes, "seed": 1000 * seed + number})
    image, truth = render_micrograph(settings, 0)
    write_mrc(folder / f"{number}.mrc", image.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
    return Micrograph(image=f"session:{number}.mrc", height_px=SIDE_PX, width_px=SIDE_PX, bin=1.0), truth.positions_yx_px


def pick_session(
    seed: int, n_micrographs: int, pickers: dict[str, Picker], topaz: Path | None
) -> tuple[list[list[Found]], list[np.ndarray], dict[str, float]]:
    """Return the picks of each micrograph and picker, the true positions, and the seconds of a core that each picker took."""
    session, truths, seconds = [], [], dict.fromkeys(pickers, 0.0)
    programs = {} if topaz is None else {"topaz": ProgramSettings(path=str(topaz))}
    with tempfile.TemporaryDirectory() as name:
        for number in range(n_micrographs):
            bench = StepBench(Path(name), programs=programs, exposure=Exposure(f"{number:032x}", f"m{number}"), seed=seed)
            micrograph, truth = draw(seed, number, bench.folder)
            found = []
            for key, picker in pickers.items():
                begin_s = time.perf_counter()
                table = from_block(picker(micrograph, bench).block)
                seconds[key] += time.perf_counter() - begin_s
                found.append(
                    (np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64), table["score"].astype(np.float64))
                )
                shutil.rmtree(bench.work_folder)
            session.append(found)
            truths.append(truth)
    return session, truths, seconds


def wreck(session: list[list[Found]], seed: int) -> list[list[Found]]:
    """Return a session in which the first picker's picks are upside down on some of the micrographs."""
    chosen = set(np.random.default_rng(seed).permutation(len(session))[: max(1, round(WRECKED * len(session)))].tolist())
    turned = [(np.stack([SIDE_PX - 1 - one[0][0][:, 0], one[0][0][:, 1]], axis=1), one[0][1]) for one in session]
    return [[turned[i], *one[1:]] if i in chosen else one for i, one in enumerate(session)]


def measure(session: list[list[Found]], truths: list[np.ndarray], names: list[str]) -> dict[str, float]:
    """F1 of each picker and of the consensus."""
    diameter_px = DIAMETER_ANG / PIXEL_ANG
    told = {name: f1([one[k][0] for one in session], truths, radius_px=0.3 * diameter_px) for k, name in enumerate(names)}
    told["consensus"] = f1(agree(session, diameter_px=diameter_px), truths, radius_px=0.3 * diameter_px)
    return told


def summarise(results: list[dict[str, float]], names: list[str]) -> dict[str, Any]:
    gains = [one["consensus"] - max(one[name] for name in names) for one in results]
    medians = {name: round(float(np.median([one[name] for one in results])), 4) for name in [*names, "consensus"]}
    return {**medians, "gain": round(float(np.median(gains)), 4), "least_gain": round(min(gains), 4)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--micrographs", type=int, default=12)
    parser.add_argument("--topaz", type=Path)
    asked = parser.parse_args()
    pickers = pickers_of(asked.topaz)
    plain, wrecked, costs = [], [], []
    for seed in range(asked.first, asked.first + asked.seeds):
        session, truths, seconds = pick_session(seed, asked.micrographs, pickers, asked.topaz)
        plain.append(measure(session, truths, list(pickers)))
        wrecked.append(measure(wreck(session, seed), truths, list(pickers)))
        costs.append(seconds)
    line = {
        "benchmark": "programs_consensus",
        "seeds": [asked.first, asked.first + asked.seeds - 1],
        "micrographs": asked.micrographs,
        "picking": summarise(plain, list(pickers)),
        "picking_wrecked": summarise(wrecked, list(pickers)),
        "seconds_a_micrograph": {
            name: round(float(np.mean([one[name] for one in costs])) / asked.micrographs, 2) for name in pickers
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
