"""How good a map is: mask, Fourier shell correlation, sharpening, local resolution, views, symmetry.

Maps are ``(z, y, x)``, particle bright, centre at voxel ``box // 2`` of each axis, cubes of an even side.
"""

from icestream.algorithms.map_quality.local_resolution import LocalResolution, measure_local_resolution
from icestream.algorithms.map_quality.mask import FoundMask, find_mask_3d
from icestream.algorithms.map_quality.orientations import ConicalFsc, ViewCoverage, measure_conical_fsc, measure_coverage
from icestream.algorithms.map_quality.pictures import draw_local_resolution, draw_sections, draw_views, scale_bar_ang
from icestream.algorithms.map_quality.resolution import MapResolution, measure_resolution
from icestream.algorithms.map_quality.sharpening import SharpenedMap, sharpen_3d
from icestream.algorithms.map_quality.symmetry import SuggestedSymmetry, suggest_symmetry

__all__ = [
    "ConicalFsc",
    "FoundMask",
    "LocalResolution",
    "MapResolution",
    "SharpenedMap",
    "SuggestedSymmetry",
    "ViewCoverage",
    "draw_local_resolution",
    "draw_sections",
    "draw_views",
    "find_mask_3d",
    "measure_conical_fsc",
    "measure_coverage",
    "measure_local_resolution",
    "measure_resolution",
    "scale_bar_ang",
    "sharpen_3d",
    "suggest_symmetry",
]
