"""Real apoferritin to a map: python benchmarks/apoferritin_map.py <empiar10146_apoferritin> <new folder> [<picture>].

Eight frame averages of EMPIAR-10146 go through the template `movies_to_map` with O symmetry: CTF, picks, 2D classes, good
particles, two initial volumes and their consensus, refinement, quality. They were not corrected for motion; their pixel size is
not known for certain, so no fine map is to be expected; that it is apoferritin is what is asked.

The map is compared with a shell of 39 to 61 Å, which is what a map of apoferritin is at low resolution, by their correlation
within 80 Å of the centre, both to 15 Å. The same is measured of its twins, with the same power at each frequency and phases at
random, made to have O symmetry; and of what the same refinement makes of as many images of noise, each with the power of a
particle of the session, from the same initial volume. Prints one JSON line.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.map_quality.shells import low_pass_3d
from icestream.algorithms.volumes import symmetrise_volume_3d, symmetry_group
from icestream.flow.storage.session import open_session
from icestream.io.image import read_stack, write_mrc
from icestream.observe.queries import open_view
from icestream.records import Acquisition, Particles, Volume
from icestream.steps.volumes.refine import Refine3DParams, refine_particles
from icestream.testing.context import StepBench

N = 8
INNER_ANG, OUTER_ANG, WITHIN_ANG, TO_ANG = 39.0, 61.0, 80.0, 15.0
OPTICS = {"voltage_kv": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07, "pixel_size_ang": 1.5}
NEW = (
    "--template movies_to_map --voltage 300 --cs 0.01 --amplitude-contrast 0.07 --pixel-size 1.5 --diameter 100 135 "
    f"--set symmetry=O --set box=64 --set first_particles=500 --set finest=8 --set micrographs.max_files={N} "
    "--set micrographs.stable_s=1 --set classes.n_classes=8"
)


def icestream(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "icestream", *map(str, arguments)], check=True, stdout=sys.stderr)


def shell_of(size: int, pixel_ang: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a shell with soft edges, and where it is compared."""
    along = (np.arange(size) - size // 2) * pixel_ang
    radius = np.sqrt(along[:, None, None] ** 2 + along[None, :, None] ** 2 + along**2)
    edges = [1 / (1 + np.exp((radius - edge) / 3.0)) for edge in (OUTER_ANG, INNER_ANG)]
    return edges[0] - edges[1], radius <= WITHIN_ANG


def shell_correlation(volume: NDArray[np.float32], pixel_ang: float) -> float:
    """Return the correlation of a volume with a shell, both to 15 Å."""
    shell, inside = shell_of(len(volume), pixel_ang)
    seen = [low_pass_3d(np.asarray(one, np.float32), pixel_size_ang=pixel_ang, resolution_ang=TO_ANG) for one in (volume, shell)]
    return float(np.corrcoef(seen[0][inside], seen[1][inside])[0, 1])


def twins_of(volume: NDArray[np.float32], count: int) -> list[NDArray[np.float32]]:
    """Return volumes of the same power and O symmetry, whose phases are those of noise."""
    made = []
    for seed in range(count):
        phases = np.fft.rfftn(np.random.default_rng(1000 + seed).normal(size=volume.shape))
        twin = np.fft.irfftn(np.abs(np.fft.rfftn(volume)) * phases / np.abs(phases), s=volume.shape)
        made.append(symmetrise_volume_3d(twin.astype(np.float32), symmetry_group("O")))
    return made


def noise_like(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return images with the power of these at each frequency and phases of noise."""
    phases = np.fft.rfft2(rng.normal(size=images.shape))
    return np.fft.irfft2(np.abs(np.fft.rfft2(images)) * phases / np.abs(phases), s=images.shape[1:]).astype(np.float32)


def refine_noise(folder: Path, session: Path, particles: list[Particles], initial: Volume, refined: Volume) -> Volume:
    """Refine as many images of noise as the session has particles, from the same volume, by the same parameters."""
    bench, rng, made = StepBench(folder), np.random.default_rng(1000), []
    for number, one in enumerate(particles):
        images = read_stack(session / str(one.stack).removeprefix("session:"))
        stack = f"session:noise_{number}.mrcs"
        write_mrc(bench.path(stack), noise_like(images, rng), pixel_size_ang=OPTICS["pixel_size_ang"] * one.bin)
        made.append(one.model_copy(update={"stack": stack}))
    shutil.copy(session / initial.map.removeprefix("session:"), bench.path("session:initial.mrc"))
    start = initial.model_copy(update={"map": "session:initial.mrc"})
    params = Refine3DParams(symmetry=refined.symmetry, limit_ang=8)
    return refine_particles(made, start, params, Acquisition(**OPTICS), bench)


def main(data: Path, folder: Path, drawn: Path | None) -> None:
    watched, session = folder / "watched", folder / "session"
    watched.mkdir(parents=True)
    for path in sorted((data / "averages").glob("*.png"))[:N]:
        shutil.copy(path, watched)
    began_s, before = time.monotonic(), os.times()
    icestream("new", session, "--micrographs", watched, *NEW.split())
    icestream("run", session, "--quiet")
    seconds, after = time.monotonic() - began_s, os.times()
    with open_view(open_session(session)) as view:
        stored = {name: view.snapshots(name, limit=1)[0].record for name in ("initial", "refined", "quality")}
        kept = [Particles.model_validate({**one.record, **one.tables}) for one in view.records("good_particles")]
        failed = [f"{item.step}: {item.reason}" for item in view.failed()]
    initial, refined = Volume.model_validate(_plain(stored["initial"])), Volume.model_validate(stored["refined"])
    volume = read_stack(session / refined.map.removeprefix("session:"))
    pixel_ang = OPTICS["pixel_size_ang"] * refined.bin
    noise = refine_noise(folder, session, [one for one in kept if one.count], initial, refined)
    of_noise = read_stack(folder / noise.map.removeprefix("session:"))
    twins = [shell_correlation(twin, pixel_ang) for twin in twins_of(volume, 20)]
    if drawn is not None:
        shutil.copy(session / stored["quality"]["picture"].removeprefix("session:"), drawn)
    quality = stored["quality"]
    line = {
        "benchmark": "apoferritin_map",
        "particles": refined.count,
        "initial": {name: stored["initial"][name] for name in ("verdict", "explained", "explained_error", "n_right")},
        "verdict": refined.verdict,
        "resolution_ang": quality["resolution_ang"],
        "resolution_half_ang": quality["resolution_half_ang"],
        "quality": quality["verdict"],
        "shell_correlation": round(shell_correlation(volume, pixel_ang), 4),
        "twins_shell_correlation": round(max(twins), 4),
        "noise_shell_correlation": round(shell_correlation(of_noise, OPTICS["pixel_size_ang"] * noise.bin), 4),
        "noise_verdict": noise.verdict,
        "failed": failed,
        "seconds": round(seconds, 1),
        "cpu_s": round(after.children_user + after.children_system - before.children_user - before.children_system, 1),
    }
    line["above_noise_and_twins"] = round(
        line["shell_correlation"] - max(line["twins_shell_correlation"], line["noise_shell_correlation"]), 4
    )
    print(json.dumps(line))


def _plain(record: Mapping[str, object] | None) -> dict[str, object]:
    """Return what a judged volume has in common with every volume."""
    return {name: value for name, value in (record or {}).items() if name in Volume.model_fields}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
