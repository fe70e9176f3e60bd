"""Volumes: poses and symmetry of particles, views of a volume, the volume of posed particles, and how far volumes agree.

A volume is ``(z, y, x)`` float32, the particle bright, its centre at voxel ``box // 2`` of each axis. What a pose says is in
`rotations`: RELION's rot, tilt and psi, and the shift, by which the centre of the view is beyond pixel ``box // 2`` of the image
(RELION's origins are its negatives). `projection` makes references for the scoring kernel, whose turn is then `turn_in_plane`.
"""

from icestream.algorithms.volumes.alignment import (
    Alignment,
    align_volume_3d,
    apply_alignment_3d,
    orient_to_symmetry_3d,
)
from icestream.algorithms.volumes.fsc import (
    filter_shells_3d,
    fourier_shell_correlation_3d,
    soft_sphere_3d,
    spread_shells,
    sum_shells,
)
from icestream.algorithms.volumes.projection import (
    FourierVolume,
    project_volume_2d,
    slice_polar_2d,
    slice_spectra_2d,
    transform_volume,
    view_orders_2d,
)
from icestream.algorithms.volumes.reconstruction import (
    PoseList,
    VolumeSums,
    mean_weights,
    no_sums,
    reconstruct_volume,
    single_poses,
    sum_particles,
)
from icestream.algorithms.volumes.resample import (
    cut_volume_3d,
    mirror_rotations,
    mirror_volume_3d,
    rescale_volume_3d,
    resize_volume_3d,
    shift_volume_3d,
    symmetrise_volume_3d,
    turn_volume_3d,
)
from icestream.algorithms.volumes.rotations import (
    Rotations,
    angles_from_rotations,
    mean_rotation,
    nearest_equivalent,
    random_rotations,
    rotation_distance_deg,
    rotations_about,
    rotations_from_angles,
    turn_between,
    turn_in_plane,
)
from icestream.algorithms.volumes.symmetry import is_symmetry, symmetry_group
from icestream.algorithms.volumes.views import (
    Views,
    all_views,
    asymmetric_views,
    child_views,
    order_for_spacing,
    view_spacing_deg,
    views_within,
)

__all__ = [
    "Alignment",
    "FourierVolume",
    "PoseList",
    "Rotations",
    "Views",
    "VolumeSums",
    "align_volume_3d",
    "all_views",
    "angles_from_rotations",
    "apply_alignment_3d",
    "asymmetric_views",
    "child_views",
    "cut_volume_3d",
    "filter_shells_3d",
    "fourier_shell_correlation_3d",
    "is_symmetry",
    "mean_rotation",
    "mean_weights",
    "mirror_rotations",
    "mirror_volume_3d",
    "nearest_equivalent",
    "no_sums",
    "order_for_spacing",
    "orient_to_symmetry_3d",
    "project_volume_2d",
    "random_rotations",
    "reconstruct_volume",
    "rescale_volume_3d",
    "resize_volume_3d",
    "rotation_distance_deg",
    "rotations_about",
    "rotations_from_angles",
    "shift_volume_3d",
    "single_poses",
    "slice_polar_2d",
    "slice_spectra_2d",
    "soft_sphere_3d",
    "spread_shells",
    "sum_particles",
    "sum_shells",
    "symmetrise_volume_3d",
    "symmetry_group",
    "transform_volume",
    "turn_between",
    "turn_in_plane",
    "turn_volume_3d",
    "view_orders_2d",
    "view_spacing_deg",
    "views_within",
]
