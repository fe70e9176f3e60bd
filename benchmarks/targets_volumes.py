"""What the benchmarks of volumes are to reach: a part of docs/benchmarks.md; a list for each subject."""

from target import Target

VOLUMES_PART = "Three dimensions"

_REFINED = "64 px of 3.75 Å, SNR 0.05, one in ten junk"
REFINEMENT: tuple[Target, ...] = (
    Target(
        VOLUMES_PART, f"refinement, {_REFINED}: error of the poses, the worst of the sets", "refinement_accuracy",
        "worst_angle_deg", "°", at_most=0.8,
    ),
    Target(
        VOLUMES_PART, "the same: over that of RELION on the same set, the worst", "refinement_accuracy",
        "worst_angle_over_relion", "times", at_most=1.0,
    ),
    Target(
        VOLUMES_PART, "the same: FSC 0.5 with the truth, over that of the volume of true poses, the worst",
        "refinement_accuracy", "worst_of_true_pose", "times", at_most=1.05,
    ),
    Target(
        VOLUMES_PART, "the same: what the half maps say, off from FSC 0.5 with the truth, the worst", "refinement_accuracy",
        "worst_dishonesty", "", at_most=0.1,
    ),
    Target(
        VOLUMES_PART, "the same: CPU seconds of RELION over ours, the least", "refinement_accuracy", "least_times_faster",
        "times", at_least=5.0,
    ),
)  # fmt: skip
INITIAL_VOLUMES: tuple[Target, ...] = (
    Target(
        VOLUMES_PART, "initial volume, three phantoms at SNR 0.05 with 10 % junk: starts of ten that find the shape, fewest",
        "initial_volume", "worst_right_of_10", "", at_least=9,
    ),
    Target(
        VOLUMES_PART, "the same: starts judged wrongly by particles that were held out", "initial_volume", "wrongly_judged", "",
        at_most=0,
    ),
    Target(VOLUMES_PART, "pure noise or random poses called a map", "initial_volume", "false_alarms", "", at_most=0),
    Target(
        VOLUMES_PART, "RELION's initial model over one start: CPU seconds", "initial_volume", "faster_than_relion", "times",
        at_least=10,
    ),
    Target(
        VOLUMES_PART, "consensus: one right candidate in four is found, of 20", "volume_consensus", "found_of_20", "",
        at_least=19,
    ),
    Target(
        VOLUMES_PART, 'consensus: "none" where no candidate is right, of 20', "volume_consensus", "none_of_20", "", at_least=19
    ),
)  # fmt: skip
MAP_QUALITY: tuple[Target, ...] = ()
CLASSES_3D: tuple[Target, ...] = ()

VOLUMES = (*INITIAL_VOLUMES, *REFINEMENT, *MAP_QUALITY, *CLASSES_3D)

VOLUME_SCRIPTS: dict[str, str] = {
    "initial_volume": "--relion",
    "refinement_accuracy": "--relion",
    "volume_consensus": "",
}
"""Every script of these that prints a figure, and the arguments it is run with."""
