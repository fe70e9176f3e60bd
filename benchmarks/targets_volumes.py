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
INITIAL_VOLUMES: tuple[Target, ...] = ()
_SHARED = "Halves were compared as they are, and with what a mask or a radial profile explains taken out."
MAP_QUALITY: tuple[Target, ...] = (
    Target(
        VOLUMES_PART, "half maps of five phantoms: 0.143 against 0.5 with the truth, largest difference", "map_quality",
        "honest.worst_off_percent", "%", at_most=10.0,
    ),
    Target(
        VOLUMES_PART, "half maps from particles at their true poses: the same", "map_quality",
        "honest_particles.worst_off_percent", "%", at_most=10.0,
    ),
    Target(
        VOLUMES_PART, "halves of noise, of eight kinds, that are given a resolution", "map_quality", "noise.reported", "",
        at_most=0.0, tried=_SHARED,
    ),
    *(
        Target(
            VOLUMES_PART, f"symmetry suggested for noisy halves of {group} in any orientation: right of 20", "map_quality",
            f"symmetry.{group}.right", "", at_least=19.0,
        )
        for group in ("C1", "C7", "D7", "O")
    ),
    Target(
        VOLUMES_PART, "angular efficiency from poses with errors and junk, less the truth: largest", "map_quality",
        "views.worst_off", "", at_most=0.05,
        tried="A tenth of the particles is junk that is seen from everywhere, which makes strongly preferred views look even. "
        "The variance over directions is taken between two halves of the views, so that their number does not matter.",
    ),
    Target(
        VOLUMES_PART, "resolution beside `relion_postprocess` on the same halves and mask", "map_quality",
        "beside_relion.resolution_off_percent", "%", at_most=5.0,
    ),
    Target(
        VOLUMES_PART, "local resolution of maps of two parts: voxels of the finer part that are finer", "map_quality",
        "local.finer_side_is_finer", "", at_least=0.95,
    ),
)  # fmt: skip
CLASSES_3D: tuple[Target, ...] = ()

VOLUMES = (*INITIAL_VOLUMES, *REFINEMENT, *MAP_QUALITY, *CLASSES_3D)

VOLUME_SCRIPTS: dict[str, str] = {
    "refinement_accuracy": "--relion",
    "map_quality": "--seed 1000 --count 20",
}
"""Every script of these that prints a figure, and the arguments it is run with."""
