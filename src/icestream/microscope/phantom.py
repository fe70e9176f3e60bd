"""What lies in the ice: a density volume from an atomic model, from a map, or built from a seed.

A phantom is ``(n, n, n)`` float32, zyx, in volts above the ice around it; its centre is voxel ``n // 2``.
"""

import bz2
import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import gemmi
import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.errors import FileFormatError
from icestream.microscope.chain import fold_chain
from icestream.microscope.potential import PROTEIN_ABOVE_ICE_V, VOLT_ANG2_PER_ANG, potential_above_ice_3d

_MODEL_SUFFIXES = {".pdb", ".ent", ".cif", ".mmcif"}
_MAP_SUFFIXES = {".mrc", ".map", ".ccp4"}
_LARGEST_MAP_VOXELS = 1024**3
_LARGEST_BOX = 512
_LARGEST_MODEL_BYTES = 512 << 20
_HYDROGEN_FACTOR_ANG = 0.529
_ROOM = 1.3


@dataclass(frozen=True)
class Phantom:
    """A volume in volts above ice, with its pixel size and the diameter of the sphere that holds it."""

    volume: NDArray[np.float32]
    pixel_size_ang: float
    diameter_ang: float


def box_for(diameter_ang: float, *, pixel_size_ang: float) -> int:
    """Return an even, FFT-friendly box that leaves room around a particle.

    Raises
    ------
    ValueError
        The box would be larger than 512 pixels, whose padded transform takes 4 GB.
    """
    size = 2 * int(fft.next_fast_len(max(math.ceil(_ROOM * diameter_ang / pixel_size_ang / 2), 8), real=True))
    if size > _LARGEST_BOX:
        raise ValueError(
            f"a particle of {diameter_ang:.0f} Å at {pixel_size_ang} Å/px needs a box of {size} px; allowed {_LARGEST_BOX}"
        )
    return size


def load_phantom(source: Path | str, *, pixel_size_ang: float, diameter_ang: float, seed: int) -> Phantom:
    """Return the phantom named in the settings.

    Parameters
    ----------
    source
        ``"builtin"``, or the path of an atomic model or a density map, possibly compressed.
    pixel_size_ang
        Of the volume that is returned.
    diameter_ang, seed
        For the built-in phantom only.

    Raises
    ------
    FileFormatError
        The path is neither a model nor a map that can be read.
    """
    if source == "builtin":
        return build_phantom(diameter_ang, pixel_size_ang=pixel_size_ang, seed=seed)
    path = Path(source)
    if not path.is_file():
        raise FileFormatError(path, "no such file")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() in {".gz", ".bz2"} else path.suffix.lower()
    if suffix in _MODEL_SUFFIXES:
        return phantom_from_model(path, pixel_size_ang=pixel_size_ang)
    if suffix in _MAP_SUFFIXES:
        return phantom_from_map(path, pixel_size_ang=pixel_size_ang)
    raise FileFormatError(
        path, f"suffix {suffix!r} is not that of a phantom; allowed: {sorted(_MODEL_SUFFIXES | _MAP_SUFFIXES)} (.gz, .bz2)"
    )


def build_phantom(diameter_ang: float, *, pixel_size_ang: float, seed: int) -> Phantom:
    """Build a protein-like particle without symmetry from ``seed``.

    A chain of helices and loops is folded into a few domains of different sizes around an off-centre cavity
    (`chain.fold_chain`), one main-chain and one side-chain bead per residue, so that the density shows rods, gaps and a hand.
    """
    size = box_for(diameter_ang, pixel_size_ang=pixel_size_ang)
    beads = fold_chain(diameter_ang, generator=np.random.default_rng(seed))
    volume = potential_above_ice_3d(
        beads.zyx_ang, beads.weight_v_ang3, beads.mass_da, beads.sigma_ang, size=size, pixel_size_ang=pixel_size_ang
    )
    return Phantom(volume, pixel_size_ang, diameter_ang)


def phantom_from_model(path: Path, *, pixel_size_ang: float) -> Phantom:
    """Compute the potential of an atomic model (PDB or mmCIF, possibly .gz or .bz2).

    Electron scattering factors at zero angle give the weight of an atom, its B factor the width. Where the model has no
    hydrogens, each heavy atom stands for one more (proteins have nearly as many hydrogens as heavy atoms).

    Raises
    ------
    FileFormatError
        The file cannot be parsed or has no atoms.
    """
    # gemmi's atoms live only as long as their structure, which therefore stays in a variable.
    structure = _read_structure(path)
    atoms = [site.atom for site in structure[0].all()]
    zyx_ang = np.array([[a.pos.z, a.pos.y, a.pos.x] for a in atoms])  # (n, 3)
    factor_ang = np.array([a.element.c4322.calculate_sf(0.0) * a.occ for a in atoms])
    mass_da = np.array([a.element.weight * a.occ for a in atoms])
    if not any(a.element.is_hydrogen for a in atoms):
        factor_ang, mass_da = factor_ang + _HYDROGEN_FACTOR_ANG, mass_da + 1.008
    b_factor_ang2 = np.clip([a.b_iso for a in atoms], 20.0, 200.0)
    zyx_ang = zyx_ang - np.average(zyx_ang, axis=0, weights=mass_da)
    diameter_ang = 2 * float(np.linalg.norm(zyx_ang, axis=1).max()) + 4.0
    volume = potential_above_ice_3d(
        zyx_ang,
        factor_ang * VOLT_ANG2_PER_ANG,
        mass_da,
        np.sqrt(b_factor_ang2 / (8 * np.pi**2)),
        size=box_for(diameter_ang, pixel_size_ang=pixel_size_ang),
        pixel_size_ang=pixel_size_ang,
    )
    return Phantom(volume, pixel_size_ang, diameter_ang)


def _read_structure(path: Path) -> gemmi.Structure:
    try:
        with _open_text(path) as handle:
            content = handle.read(_LARGEST_MODEL_BYTES + 1)
        if len(content) > _LARGEST_MODEL_BYTES:
            raise FileFormatError(path, f"more than {_LARGEST_MODEL_BYTES >> 20} MiB of text, too much for one particle")
        text = content.decode("utf-8", errors="replace")
        if ".cif" in path.name.lower() or ".mmcif" in path.name.lower():
            structure = gemmi.make_structure_from_block(gemmi.cif.read_string(text).sole_block())
        else:
            structure = gemmi.read_pdb_string(text)
    except (ValueError, RuntimeError, OSError, EOFError) as error:
        raise FileFormatError(path, f"cannot be read as an atomic model: {error}") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise FileFormatError(path, "has no atoms")
    structure.remove_waters()
    return structure


def _open_text(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"))
    return bz2.open(path, "rb") if path.suffix.lower() == ".bz2" else path.open("rb")


def phantom_from_map(path: Path, *, pixel_size_ang: float) -> Phantom:
    """Turn a density map (MRC, possibly .gz or .bz2) into a phantom.

    The map is resampled to the pixel size in Fourier space. Grey values of maps are arbitrary, so they are scaled such that the
    molecule has the mean potential of protein above ice. The molecule is all voxels above a fifth of the 99.9th percentile,
    without dust; what lies outside a soft envelope about it is set to zero.

    Raises
    ------
    FileFormatError
        The file is no map, has no voxel size or no density.
    """
    try:
        with mrcfile.open(path, permissive=False) as handle:
            n_voxels = int(handle.header.nx) * int(handle.header.ny) * int(handle.header.nz)
            voxel_ang = float(handle.voxel_size.x)
            data = np.array(handle.data, np.float32)
    except (ValueError, OSError, EOFError, RuntimeWarning) as error:
        raise FileFormatError(path, f"cannot be read as a density map: {error}") from error
    if data.ndim != 3 or n_voxels > _LARGEST_MAP_VOXELS:
        raise FileFormatError(path, f"has shape {data.shape}; a phantom is a volume of at most {_LARGEST_MAP_VOXELS} voxels")
    if voxel_ang <= 0:
        raise FileFormatError(path, f"has voxel size {voxel_ang} in its header; a positive size is needed")
    level = 0.2 * float(np.percentile(data, 99.9))
    if level <= 0:
        raise FileFormatError(path, "has no density above zero")
    inside = _remove_dust(data > level)
    envelope = ndimage.gaussian_filter(ndimage.binary_dilation(inside, iterations=2).astype(np.float32), 1.0)
    scaled = data * envelope * np.float32(PROTEIN_ABOVE_ICE_V / float(data[inside].mean()))
    volume, radius_px = _centre_molecule(scaled, inside, zoom=voxel_ang / pixel_size_ang)
    box_for(2 * radius_px * voxel_ang, pixel_size_ang=pixel_size_ang)
    resampled = _resample_volume(volume, new_size=2 * round(volume.shape[0] * voxel_ang / pixel_size_ang / 2))
    return Phantom(resampled, pixel_size_ang, 2 * radius_px * voxel_ang)


def _remove_dust(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop connected parts smaller than a tenth of the largest."""
    parts, _ = ndimage.label(inside)
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    kept: NDArray[np.bool_] = (counts >= 0.1 * counts.max())[parts] & inside
    return kept


def _centre_molecule(data: NDArray[np.float32], inside: NDArray[np.bool_], *, zoom: float) -> tuple[NDArray[np.float32], float]:
    """Move the middle of the bounding box of the molecule to the centre of a cube; also return the radius in voxels.

    The cube has room, and the first size that ``zoom`` takes to an even number within one part in a thousand, so that
    resampling keeps the scale.
    """
    where = np.argwhere(inside)  # (n, 3)
    middle = np.round((where.min(0) + where.max(0)) / 2).astype(int)
    radius_px = float(np.linalg.norm(where - middle, axis=1).max()) + 1.0
    sizes = 2 * (int(np.ceil(_ROOM * radius_px)) + np.arange(40))
    error = np.maximum(np.abs(1 - 2 * np.round(sizes * zoom / 2) / (sizes * zoom)), 1e-3)
    size = int(sizes[np.argmin(error)])
    cube = np.zeros((size, size, size), np.float32)
    low = np.maximum(middle - size // 2, 0)
    high = np.minimum(middle + size // 2, data.shape)
    start = low - (middle - size // 2)
    stop = start + (high - low)
    cube[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = data[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return cube, radius_px


def _resample_volume(volume: NDArray[np.float32], *, new_size: int) -> NDArray[np.float32]:
    """Crop or pad the Fourier transform of an even cube; the centre stays at ``size // 2`` and grey values are kept."""
    size = volume.shape[0]
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(volume)))
    half = min(size, new_size) // 2
    out = np.zeros((new_size,) * 3, spectrum.dtype)
    # The Nyquist planes are left out: they have no partner of the opposite sign.
    old = slice(size // 2 - half + 1, size // 2 + half)
    new = slice(new_size // 2 - half + 1, new_size // 2 + half)
    out[new, new, new] = spectrum[old, old, old]
    resampled = fft.fftshift(fft.ifftn(fft.ifftshift(out)).real) * (new_size / size) ** 3
    return np.ascontiguousarray(resampled, np.float32)
