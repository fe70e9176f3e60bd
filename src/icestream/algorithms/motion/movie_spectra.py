"""Power spectra of a movie, averaged over the sums of a few frames each.

A sum of all frames shows Thon rings only of what stayed as it was. Water does not: under the beam its molecules wander, about an
Å for each e/Å², so the rings of ice at high frequency are weaker in the sum than in the mean of the power spectra of parts of it;
those around 3.7 Å are best in parts of about 4 e/Å² (McMullan, Vinothkumar & Henderson 2015, Ultramicroscopy 158, 26; used for
fitting by Rohou & Grigorieff 2015, J. Struct. Biol. 192, 216). The same holds for motion that differs over the field, for what
alignment got wrong, and for damage: a phase of the whole part does not matter. What the mean loses is the noise that
a sum of all would have averaged away: rings of what did stay stand out less, by the square root of the number of parts at most.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.frames import Detector
from icestream.algorithms.motion.sum import sum_movie
from icestream.algorithms.namespaces import Array, to_numpy
from icestream.algorithms.spectra.periodogram import periodogram
from icestream.algorithms.spectra.spectrum import power_spectra


@dataclass(frozen=True)
class MovieSpectra:
    """The mean of the power spectra of all groups of frames, on the host.

    Attributes
    ----------
    spectra
        ``(2, tile, tile // 2 + 1)``: of two sets of tiles, as `icestream.algorithms.spectra.spectrum.power_spectra` makes them.
    fine_spectrum
        ``(fine, fine // 2 + 1)``, as `icestream.algorithms.spectra.periodogram.periodogram` makes it.
    """

    spectra: NDArray[np.float32]
    fine_spectrum: NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """The next ``count`` frames of a stream; they can be read once."""

    stream: Iterator[Array]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Array]:
        found = 0
        for frame in islice(self.stream, self.count):
            found += 1
            yield frame
        if found < self.count:
            raise ValueError(f"a group has {found} frames, {self.count} are needed: there are fewer frames than displacements")


def group_sizes(n_frames: int, *, group: int) -> list[int]:
    """Return how many frames each group has: as near to ``group`` as groups that differ by one frame at most can be.

    Raises
    ------
    ValueError
        There is no frame, or a group has none.
    """
    if n_frames < 1 or group < 1:
        raise ValueError(f"{n_frames} frames in groups of {group}; both must be 1 or more")
    n_groups = max(1, round(n_frames / group))
    return [n_frames * (number + 1) // n_groups - n_frames * number // n_groups for number in range(n_groups)]


def average_group_spectra(
    frames: Iterable[Array],
    detector: Detector,
    *,
    global_yx_px: NDArray[Any],
    group: int,
    tile_px: int,
    fine_px: int,
    bin: float = 1.0,
) -> MovieSpectra:
    """Add up a few frames at a time and average the power spectra of these sums.

    Frames are corrected, and moved within their group as the specimen moved over the whole field; where a group as a
    whole lies does not show in a power spectrum, so groups are not moved. Nor are they bent back where motion differs over the
    field: a specimen that stretches does not stretch its rings, but to bend its image back would. No weights by dose are
    needed: a group is too short for them. One frame after the other is read, and a group at a time is added up.

    Parameters
    ----------
    frames
        The raw frames, of any library of arrays, where ``detector`` is; read once.
    global_yx_px
        ``(n, 2)``: displacement of the specimen in each frame, in pixels of the frames.
    group
        Frames in a group; see `group_sizes`.
    tile_px, fine_px
        Sides of the tiles of the two spectra, in pixels of the result.
    bin
        Pixel size of the result relative to that of the frames, by Fourier cropping.

    Raises
    ------
    ValueError
        There are more or fewer frames than displacements, the tiles do not fit, or values are not finite.
    """
    track = np.asarray(global_yx_px, dtype=np.float64)  # (n, 2)
    sizes = group_sizes(len(track), group=group)
    stream = iter(frames)
    total = np.zeros((2, tile_px, tile_px // 2 + 1))
    fine = np.zeros((fine_px, fine_px // 2 + 1))
    start = 0
    for size in sizes:
        part = track[start : start + size]
        image = _sum_part(_Part(stream, size), detector, track=part - part.mean(axis=0), bin=bin)  # (h, w) binned
        total += power_spectra(image, tile_px=tile_px, n_sets=2)
        fine += periodogram(to_numpy(image), tile_px=fine_px)
        start += size
    if next(stream, None) is not None:
        raise ValueError(f"there are more frames than the {len(track)} displacements")
    return MovieSpectra((total / len(sizes)).astype(np.float32), (fine / len(sizes)).astype(np.float32))


def _sum_part(part: _Part, detector: Detector, *, track: NDArray[np.float64], bin: float) -> Array:
    return sum_movie(part, detector, global_yx_px=track, local_coefficients=None, dose=None, bin=bin).plain
