"""How good a map is: mask, Fourier shell correlation, sharpening, local resolution, views, symmetry.

Maps are ``(z, y, x)``, particle bright, centre at voxel ``box // 2`` of each axis, cubes of an even side.
"""
