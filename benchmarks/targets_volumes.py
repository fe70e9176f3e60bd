"""What the benchmarks of volumes are to reach: a part of docs/benchmarks.md; a list for each subject."""

from target import Target

VOLUMES_PART = "Three dimensions"

REFINEMENT: tuple[Target, ...] = ()
INITIAL_VOLUMES: tuple[Target, ...] = ()
MAP_QUALITY: tuple[Target, ...] = ()
CLASSES_3D: tuple[Target, ...] = ()

VOLUMES = (*INITIAL_VOLUMES, *REFINEMENT, *MAP_QUALITY, *CLASSES_3D)

VOLUME_SCRIPTS: dict[str, str] = {}
"""Every script of these that prints a figure, and the arguments it is run with."""
