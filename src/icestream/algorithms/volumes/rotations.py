"""Rotations of particles: RELION's angles and matrices, how far apart rotations are, and random ones.

A rotation is a ``(3, 3)`` matrix ``R`` that acts on columns ``(x, y, z)``; many are ``(n, 3, 3)``. It takes the volume to the
view: the transform of an image at ``(kx, ky)`` is that of the volume at ``R.T @ (kx, ky, 0)``. It is RELION's matrix of rot,
tilt and psi (Heymann, Chagoyen & Belnap 2005, J. Struct. Biol. 151, 196), so psi turns an image from y towards x; a turn of the
scoring kernel goes from x towards y.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rotations = NDArray[np.float64]


def rotations_from_angles(angles_deg: NDArray[Any]) -> Rotations:
    """Return the matrices ``(n, 3, 3)`` of RELION's rot, tilt and psi ``(n, 3)``: about z, the new y and the new z."""
    rot, tilt, psi = np.deg2rad(np.asarray(angles_deg, dtype=np.float64)).T  # (n,)
    out = np.empty((len(rot), 3, 3))
    (ca, sa), (cb, sb), (cg, sg) = ((np.cos(angle), np.sin(angle)) for angle in (rot, tilt, psi))
    out[:, 0, 0], out[:, 0, 1], out[:, 0, 2] = cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb
    out[:, 1, 0], out[:, 1, 1], out[:, 1, 2] = -sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb
    out[:, 2, 0], out[:, 2, 1], out[:, 2, 2] = sb * ca, sb * sa, cb
    return out


def angles_from_rotations(rotations: Rotations) -> NDArray[np.float64]:
    """Return rot, tilt and psi in degrees ``(n, 3)``; where tilt is 0 or 180, psi is 0."""
    tilt = np.arctan2(np.hypot(rotations[:, 2, 0], rotations[:, 2, 1]), rotations[:, 2, 2])
    rot = np.arctan2(rotations[:, 2, 1], rotations[:, 2, 0])
    psi = np.arctan2(rotations[:, 1, 2], -rotations[:, 0, 2])
    polar = np.sin(tilt) < 1e-9
    sign = np.sign(rotations[:, 2, 2])
    flat = np.arctan2(sign * rotations[:, 0, 1], sign * rotations[:, 0, 0])
    angles: NDArray[np.float64] = np.rad2deg(np.stack([np.where(polar, flat, rot), tilt, np.where(polar, 0.0, psi)], axis=1))
    return angles


def random_rotations(count: int, *, generator: np.random.Generator) -> Rotations:
    """Draw rotations ``(count, 3, 3)``, all equally likely (unit quaternions with normal parts)."""
    parts = generator.normal(size=(count, 4))
    w, x, y, z = (parts / np.linalg.norm(parts, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.array(rows).transpose(2, 0, 1))


def rotations_about(vectors_rad: NDArray[Any]) -> Rotations:
    """Return the rotations ``(n, 3, 3)`` about the vectors ``(n, 3)`` by their lengths, right-handed (Rodrigues)."""
    vectors = np.asarray(vectors_rad, dtype=np.float64)
    angle = np.linalg.norm(vectors, axis=1)
    x, y, z = (vectors / np.maximum(angle, 1e-300)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)  # (n, 3, 3)
    sine, versed = np.sin(angle)[:, None, None], (1 - np.cos(angle))[:, None, None]
    rotations: Rotations = np.eye(3) + sine * cross + versed * (cross @ cross)
    return rotations


def rotation_distance_deg(a: Rotations, b: Rotations, *, group: Rotations | None = None) -> NDArray[np.float64]:
    """Return the least angle between ``a`` and ``b``, both ``(n, 3, 3)``: ``(n,)``, in degrees.

    Of a particle with the symmetry ``group`` ``(g, 3, 3)`` the views of ``R`` and ``R @ group[i]`` are the same; the nearest
    counts.
    """
    operations = np.eye(3)[None] if group is None else group
    relative = np.swapaxes(b, -1, -2) @ a  # (n, 3, 3)
    trace = np.einsum("nij,gij->ng", relative, operations).max(axis=1)
    apart: NDArray[np.float64] = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0)))
    return apart


def nearest_equivalent(rotations: Rotations, targets: Rotations, *, group: Rotations) -> Rotations:
    """Return, of all ``rotations[i] @ group[j]``, the one nearest to ``targets[i]``: ``(n, 3, 3)``."""
    relative = np.swapaxes(rotations, -1, -2) @ targets  # (n, 3, 3)
    best = np.einsum("nij,gij->ng", relative, group).argmax(axis=1)
    nearest: Rotations = rotations @ group[best]
    return nearest


def mean_rotation(rotations: Rotations) -> Rotations:
    """Return the rotation ``(3, 3)`` with the least mean squared distance (of the matrices) to all."""
    u, _, vt = np.linalg.svd(rotations.sum(axis=0))
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt)


def turn_in_plane(rotations: Rotations, turn_rad: NDArray[Any]) -> Rotations:
    """Return the rotations of views whose image is turned from x towards y: ``(n, 3, 3)``; psi becomes less by the turn."""
    cosine, sine = np.cos(turn_rad)[:, None], np.sin(turn_rad)[:, None]
    out = np.array(np.broadcast_to(rotations, (len(cosine), 3, 3)))
    first, second = out[:, 0].copy(), out[:, 1].copy()
    out[:, 0], out[:, 1] = cosine * first - sine * second, sine * first + cosine * second
    return out


def turn_between(views: Rotations, rotations: Rotations) -> NDArray[np.float64]:
    """Return the turns in the plane, in radians, that take ``views`` nearest to ``rotations``, both ``(..., 3, 3)``."""
    w = views @ np.swapaxes(rotations, -1, -2)
    turns: NDArray[np.float64] = np.arctan2(w[..., 0, 1] - w[..., 1, 0], w[..., 0, 0] + w[..., 1, 1])
    return turns
