"""Frame, hand and resolution of maps over five milestones, each refined from the one before.

Run ``python benchmarks/milestones.py [SEEDS [FIRST [LAST]]]``. Prints one JSON line. Particles of a phantom without symmetry
and of one with C7, at 64 px of 3.75 Å, SNR 0.05, one in ten junk, are refined when there are a sixteenth, an eighth, a quarter,
half and all of LAST (4,800): the first time from the truth at 40 Å, then by `refine_again` from what the milestone before has
come to.

Of each map after the first, ``turn_deg`` and ``move_px`` say by how much its frame differs from that of the first map, by the
poses of the particles that both have. A map has the hand if it agrees with the truth better than with its mirror image, in
place, to half its own resolution. ``angle_deg`` is the median error of the poses of the last milestone in the frame of the
truth, and ``of_true_pose`` its resolution (FSC 0.5 with the truth) over that of the true poses.

"""

import json
import sys
import time
from functools import partial

import numpy as np

from icestream.algorithms.refine3d import Last, PoseTable, frame_since, refine_again
from icestream.algorithms.volumes import fourier_shell_correlation_3d, mirror_volume_3d
from particle_volumes import make_particles, masked, pose_errors, resolution_ang, true_pose_volumes
from refinement_accuracy import portions_of, refine, setting_for

SETS, MILESTONES = (("4zxb", "C1"), ("powerfit", "C7")), 5


def first_of(poses, count):
    """Return the poses of the first particles."""
    return PoseTable(*(getattr(poses, name)[:count] for name in ("rotations", "shift_yx_px", "score", "probability")))


def has_hand(given, whole):
    """Tell whether a map is like the truth, and not like its mirror image, where it stands."""
    shells = slice(3, len(given.volume) // 4)
    alike = [
        fourier_shell_correlation_3d(masked(given, whole), masked(given, one))[1][shells].mean()
        for one in (given.volume, mirror_volume_3d(given.volume))
    ]
    return bool(alike[0] > alike[1] + 0.05)


def measure(name, symmetry, seed, last):
    """Refine one set at all milestones."""
    given = make_particles(name, n=last, snr=0.05, seed=seed, symmetry=symmetry, junk=0.1)
    setting, rows = setting_for(given), []
    first: PoseTable | None = None
    before: Last | None = None
    for count in (last >> step for step in reversed(range(MILESTONES))):
        some, began = given.take(np.arange(count)), time.process_time()
        if before is None:
            done, _ = refine(some)
        else:
            done = refine_again(before, partial(portions_of, some, setting), setting=setting, count=count, seed=seed)
        poses = done.progress.poses
        if poses is None:
            raise ValueError(f"{count} particles were refined without an iteration")
        first = poses if first is None else first
        frame = frame_since(first, done.progress, setting=setting)
        before = Last(done.progress.model, first_of(poses, count))
        rows.append(
            {
                "particles": count, "turn_deg": round(frame.turn_deg, 3), "cpu_s": round(time.process_time() - began, 1),
                "move_px": round(float(np.linalg.norm(frame.move_xyz_px)), 3), "hand": has_hand(some, done.maps.whole),
                "angle_deg": round(float(np.median(pose_errors(some, poses.rotations, poses.shift_yx_px, in_frame=True)[0])), 3),
                "truth_ang": round(resolution_ang(some, done.maps.whole, some.volume, 0.5), 2),
                "iterations": done.progress.iteration, "verdict": done.verdict.kind,
            }
        )  # fmt: skip
    true = resolution_ang(given, true_pose_volumes(given)[0], given.volume, 0.5)
    return {"set": f"{name} {symmetry}", "seed": seed, "of_true_pose": round(rows[-1]["truth_ang"] / true, 3), "maps": rows}


def main(count=2, first=1000, last=4800):
    sets = [measure(*one, seed, last) for seed in range(first, first + count) for one in SETS]
    maps = [row for one in sets for row in one["maps"]]
    print(
        json.dumps(
            {
                "sets": len(sets),
                "milestones": MILESTONES,
                "worst_turn_deg": max(row["turn_deg"] for row in maps),
                "worst_move_px": max(row["move_px"] for row in maps),
                "hands_kept": float(np.mean([row["hand"] for row in maps])),
                "worst_angle_deg": max(one["maps"][-1]["angle_deg"] for one in sets),
                "worst_of_true_pose": max(one["of_true_pose"] for one in sets),
                "rows": sets,
            }
        )
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
