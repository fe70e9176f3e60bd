"""Looking for templates everywhere in a micrograph."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.particles.peaks import find_peaks_2d, suppress_neighbours
from icestream.algorithms.template_picker.eigenimages import Eigenimages, best_scores, transform_centred
from icestream.algorithms.template_picker.imaging import Imaging

_STEPS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
_COARSE = 0.05  # part of the energy of the eigenimages that the first look may lose
_LOWEST = 2.0  # standard deviations of noise
_TOGETHER = 512  # places that are scored together
_BLOCK = 4


@dataclass(frozen=True)
class Padded:
    """A flat micrograph, mirrored at its borders, in Fourier space.

    Attributes
    ----------
    spectrum
        ``(H, W // 2 + 1)``.
    shape
        ``(H, W)``, both even.
    pad, inner
        The micrograph begins at pixel ``pad`` of either axis, an even number, and has the shape ``inner``.
    """

    spectrum: NDArray[np.complex64]
    shape: tuple[int, int]
    pad: int
    inner: tuple[int, int]

    @classmethod
    def of(cls, flat: NDArray[np.float32], *, pad: int) -> "Padded":
        """Mirror ``(h, w)`` over at least ``pad`` pixels and transform it."""
        pad += pad % 2
        fill = [2 * fft.next_fast_len((side + 2 * pad + 1) // 2, real=True) - side - pad for side in flat.shape]
        mirrored = np.pad(flat, [(pad, after) for after in fill], mode="reflect" if min(flat.shape) > max(fill) else "symmetric")
        return cls(fft.rfft2(mirrored), (mirrored.shape[0], mirrored.shape[1]), pad, (flat.shape[0], flat.shape[1]))

    def cut(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the part of ``(H, W)`` that is the micrograph."""
        return image[self.pad : self.pad + self.inner[0], self.pad : self.pad + self.inner[1]]

    def place(self, yx_px: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the pixels of the padded image nearest to places of the micrograph: ``(n, 2)``."""
        return np.clip(np.rint(yx_px), 0, np.array(self.inner) - 1).astype(np.int64) + self.pad


@dataclass(frozen=True)
class Matches:
    """Places that look like a template, the best first.

    Attributes
    ----------
    yx_px
        ``(n, 2)``.
    score
        ``(n,)``, standard deviations of noise.
    index
        ``(n,)``, which turned template.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    index: NDArray[np.int64]

    def take(self, kept: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Matches":
        """Return some of them."""
        return Matches(self.yx_px[kept], self.score[kept], self.index[kept])


@dataclass(frozen=True)
class Filtered:
    """A micrograph after the matched filter.

    Attributes
    ----------
    micrograph
        The micrograph.
    spectrum, image
        ``(H, W // 2 + 1)`` and ``(H, W)``: a template times the image is its score times its norm.
    uneven
        ``(h, w)``, by how much it varies more than its noise about each place, at least 1.
    """

    micrograph: Padded
    spectrum: NDArray[np.complex64]
    image: NDArray[np.float32]
    uneven: NDArray[np.float32]

    def uneven_at(self, yx_px: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return it at places ``(n, 2)``."""
        place = self.micrograph.place(yx_px) - self.micrograph.pad
        return self.uneven[place[:, 0], place[:, 1]]


@dataclass(frozen=True)
class Search:
    """Templates as a micrograph images them.

    Attributes
    ----------
    eigenimages
        The turned templates.
    imaging
        How the micrograph images them.
    norm
        ``(p,)``, the score of each turned template where it is imaged with amplitude 1.
    """

    eigenimages: Eigenimages
    imaging: Imaging
    norm: NDArray[np.float64]

    @classmethod
    def of(cls, eigenimages: Eigenimages, imaging: Imaging) -> "Search":
        """Find how strongly each template would be seen; in all its turns it is taken for the same."""
        shape = (4 * eigenimages.box_px, 4 * eigenimages.box_px)
        weight = _both_halves(imaging.signal(shape) ** 2 / imaging.noise_power(shape))
        upright = eigenimages.draw(np.arange(0, eigenimages.weights.shape[1], eigenimages.n_angles))
        energy = [float((np.abs(fft.rfft2(one, s=shape)) ** 2 * weight).sum()) for one in upright]
        return cls(eigenimages, imaging, np.repeat(np.sqrt(np.maximum(energy, 1e-30)), eigenimages.n_angles))

    @property
    def weights(self) -> NDArray[np.float32]:
        """Combinations of the eigenimages that give scores: ``(k, p)``."""
        return (self.eigenimages.weights / self.norm).astype(np.float32)

    def filter(self, micrograph: Padded, *, around: Padded | None = None, allowed: NDArray[np.bool_]) -> Filtered:
        """Apply the matched filter; ``around`` is the micrograph without its particles, by which it is judged how even it is."""
        shape = micrograph.shape
        signal, noise = self.imaging.signal(shape), self.imaging.noise_power(shape)
        weight = (signal / noise) * np.float32(shape[0] * shape[1])
        spectrum = (micrograph.spectrum * weight).astype(np.complex64)
        image: NDArray[np.float32] = fft.irfft2(spectrum, s=shape)
        rest = image if around is None else fft.irfft2(around.spectrum * weight, s=shape)
        usual = float(_both_halves(signal * signal / noise).sum())
        relative = _local_mean_2d(micrograph.cut(rest) ** 2, allowed, sigma_px=self.imaging.diameter_px) / usual
        return Filtered(micrograph, spectrum, image, np.sqrt(np.maximum(relative, 1.0)).astype(np.float32))

    def find(
        self, filtered: Filtered, *, min_distance_px: float, allowed: NDArray[np.bool_], contrasts: tuple[int, ...] = (1,)
    ) -> list[Matches]:
        """Find the places that look most like a template in any turn (contrast 1), or like an inverted one (-1).

        At first every other pixel is scored with every other turn and without the finest detail.
        """
        micrograph, coarse = filtered.micrograph, self.eigenimages.leading(lost=_COARSE)
        rows, columns = ((micrograph.pad // 2 + np.arange((side + 1) // 2)) for side in micrograph.inner)
        within = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        responses = np.empty((len(coarse.images), len(rows) * len(columns)), np.float32)
        for image, out in zip(coarse.images, responses, strict=True):
            kernel = np.conj(transform_centred(image, micrograph.shape))
            out[:] = every_other_2d(filtered.spectrum * kernel)[within].ravel()
        scores = best_scores(responses, self.weights[: len(coarse.images), ::2], both=-1 in contrasts)
        matches = []
        for contrast in contrasts:
            score = scores[0] if contrast == 1 else scores[1]
            even = score.reshape(len(rows), len(columns)) / filtered.uneven[::2, ::2]  # type: ignore[union-attr]
            near, _ = find_peaks_2d(even, min_distance_px=0.3 * min_distance_px, allowed=allowed[::2, ::2], above=_LOWEST)
            matches.append(self.refine(filtered, 2 * near, contrast=contrast, min_distance_px=min_distance_px))
        return matches

    def refine(self, filtered: Filtered, yx_px: NDArray[np.float64], *, contrast: int = 1, min_distance_px: float) -> Matches:
        """Score places exactly, move them by up to a pixel and a half, and keep the best that are not too close."""
        micrograph = filtered.micrograph
        middle = micrograph.place(yx_px)
        _, index = self.score_places(filtered.image, middle, contrast=contrast)
        cube = self._score_around(filtered.image, middle, index, contrast=contrast)  # (n, 3, 3)
        at = cube.reshape(-1, 9).argmax(axis=1)
        place = middle + _STEPS[at]
        score, index = self.score_places(filtered.image, place, contrast=contrast)
        found = place - micrograph.pad + _top_of_parabola(cube, at)
        inside = np.clip(place - micrograph.pad, 0, np.array(micrograph.inner) - 1)
        even = score / filtered.uneven[inside[:, 0], inside[:, 1]]
        order = np.argsort(-even, kind="stable")
        kept = order[suppress_neighbours(found[order], min_distance_px=min_distance_px)]
        return Matches(found[kept], even[kept], index[kept])

    def score_places(
        self, image: NDArray[np.float32], place: NDArray[np.int64], *, contrast: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the best score at pixels ``(n, 2)`` of a filtered image, and of which turned template it is."""
        weights = contrast * self.weights
        basis = self.eigenimages.images.reshape(len(self.eigenimages.images), -1).T  # (b², k)
        score, index = np.empty(len(place)), np.empty(len(place), np.int64)
        for start in range(0, len(place), _TOGETHER):
            rows = slice(start, start + _TOGETHER)
            patches = cut_patches(image, place[rows], box_px=self.eigenimages.box_px)
            every = (patches.reshape(len(patches), -1) @ basis) @ weights
            index[rows] = every.argmax(axis=1)
            score[rows] = every.max(axis=1)
        return score, index

    def score_same(self, image: NDArray[np.float32], place: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of given templates at pixels ``(n, 2)`` of a filtered image: ``(n,)``."""
        patches = cut_patches(image, place, box_px=self.eigenimages.box_px)
        score: NDArray[np.float64] = np.einsum("nyx,nyx->n", patches, self.eigenimages.draw(index)) / self.norm[index]
        return score

    def _score_around(
        self, image: NDArray[np.float32], middle: NDArray[np.int64], index: NDArray[np.int64], *, contrast: int
    ) -> NDArray[np.float64]:
        """Return the scores of given templates at each place and the eight about it: ``(n, 3, 3)``."""
        box_px = self.eigenimages.box_px
        cube = np.empty((len(middle), 3, 3))
        for start in range(0, len(middle), _TOGETHER):
            rows = slice(start, start + _TOGETHER)
            patches = cut_patches(image, middle[rows], box_px=box_px + 2)
            drawn = contrast * self.eigenimages.draw(index[rows])
            for row in range(3):
                for column in range(3):
                    part = patches[:, row : row + box_px, column : column + box_px]
                    cube[rows, row, column] = np.einsum("nyx,nyx->n", part, drawn)
        return cube / self.norm[index, None, None]

    def draw(self, micrograph: Padded, matches: Matches, score: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Put templates where they were found, as bright as their scores say, without the lens: the half spectrum."""
        box_px = self.eigenimages.box_px
        place = micrograph.place(matches.yx_px)
        share = matches.yx_px + micrograph.pad - place
        ky, kx = np.fft.fftfreq(box_px)[:, None], np.fft.rfftfreq(box_px)
        moved = np.exp(-2j * np.pi * (ky * share[:, 0, None, None] + kx * share[:, 1, None, None])).astype(np.complex64)
        bright = self.eigenimages.draw(matches.index) * (score / self.norm[matches.index]).astype(np.float32)[:, None, None]
        drawn = fft.irfft2(fft.rfft2(bright) * moved, s=(box_px, box_px))
        image = np.zeros([side + 2 * box_px for side in micrograph.shape], np.float32)
        for one, (row, column) in zip(drawn, place + box_px - box_px // 2, strict=True):
            image[row : row + box_px, column : column + box_px] += one
        spectrum: NDArray[np.complex64] = fft.rfft2(image[box_px:-box_px, box_px:-box_px])
        return spectrum

    def explain(self, micrograph: Padded, model: NDArray[np.complex64]) -> Padded:
        """Return the micrograph without the templates of ``model``, as it images them."""
        left = micrograph.spectrum - model * self.imaging.signal(micrograph.shape)
        return replace(micrograph, spectrum=left.astype(np.complex64))


def cut_patches(image: NDArray[np.float32], place: NDArray[np.int64], *, box_px: int) -> NDArray[np.float32]:
    """Cut boxes with pixel ``box_px // 2`` at each place ``(n, 2)``, moved inside at the borders: ``(n, b, b)``."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (box_px, box_px))
    first = np.clip(place - box_px // 2, 0, np.array(windows.shape[:2]) - 1)
    patches: NDArray[np.float32] = windows[first[:, 0], first[:, 1]]
    return patches


def every_other_2d(spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return every other pixel of every other row of the image with the half spectrum ``(H, W // 2 + 1)``, both sides even."""
    height, width = spectrum.shape[0], 2 * (spectrum.shape[1] - 1)
    rows = spectrum[: height // 2] + spectrum[height // 2 :]
    columns = np.arange(width // 4 + 1)
    opposite = rows[-np.arange(height // 2) % (height // 2)][:, width // 2 - columns]  # of the negative frequencies
    folded = rows[:, columns] + np.conj(opposite)
    image: NDArray[np.float32] = fft.irfft2(folded, s=(height // 2, width // 2)) * np.float32(0.25)
    return image


def _top_of_parabola(cube: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the parabola through a maximum in the middle of ``(n, 3, 3)`` has its top: ``(n, 2)``, 0 elsewhere."""
    each, row, column = np.arange(len(at)), at // 3, at % 3
    through = np.stack([cube[each, :, column], cube[each, row, :]], axis=1)  # (n, 2, 3)
    bend = through[..., 0] - 2 * through[..., 1] + through[..., 2]
    inside = (np.stack([row, column], axis=1) == 1) & (bend < 0)
    top = np.where(inside, 0.5 * (through[..., 0] - through[..., 2]) / np.where(bend < 0, bend, -1.0), 0.0)
    return np.clip(top, -0.5, 0.5)


def _both_halves(half: NDArray[np.float32]) -> NDArray[np.float32]:
    """Count the coefficients of a half spectrum that stand for their opposites twice; the width is even."""
    whole = half.copy()
    whole[:, 1:-1] *= 2
    return whole


def _local_mean_2d(values: NDArray[np.float32], allowed: NDArray[np.bool_], *, sigma_px: float) -> NDArray[np.float32]:
    """Average the allowed part of ``(h, w)`` about each place, a Gaussian of ``sigma_px`` wide."""

    def blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
        fill = [(0, -side % _BLOCK) for side in image.shape]
        whole = np.pad(image, fill)
        tiled = whole.reshape(whole.shape[0] // _BLOCK, _BLOCK, whole.shape[1] // _BLOCK, _BLOCK).mean(axis=(1, 3))
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(tiled, sigma_px / _BLOCK, mode="constant", truncate=3.0)
        return smooth

    weight = allowed.astype(np.float32)
    mean = blocks(values * weight) / np.maximum(blocks(weight), 1e-3)
    row, column = (np.minimum(np.arange(side) // _BLOCK, size - 1) for side, size in zip(values.shape, mean.shape, strict=True))
    spread: NDArray[np.float32] = mean[row[:, None], column]
    return spread
