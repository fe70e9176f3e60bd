"""Picking with templates: a matched filter that knows the CTF of the exposure, and learns how it images the particle.

The score of a template ``T``, turned by ``g``, at a place is ``Re <Y, T_g> / |T|`` with ``Y = gain CTF X / N``: ``X`` is the
micrograph, ``N`` the power of its noise, and the gain says how much of the template is seen in each ring of frequencies (see
`imaging`). It is in standard deviations of noise (Turin 1960, IRE Trans. Inf. Theory 6, 311; in cryo-EM: Sigworth 2004, J.
Struct. Biol. 145, 57). It is normalised locally where the micrograph without its particles varies more than usual, in the
spirit of Roseman (2003), Ultramicroscopy 94, 225. As the CTF is with the image, the turned templates are the same for all
exposures and are compressed together: the micrograph is correlated with a few dozen eigenimages, and scores are linear
combinations of the results.

In the end each match is scored with the others taken out, so that neither the rings around a particle are picks nor do they
hide its neighbours. How many matches are particles is decided by decoys: what the same templates find in drawn noise, as strong
as what inverted templates find between the particles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.view import mask_dirt_2d
from icestream.algorithms.particles.noise import Transfer, flatten_2d, reduce_2d
from icestream.algorithms.particles.peaks import suppress_neighbours
from icestream.algorithms.template_picker.eigenimages import Eigenimages
from icestream.algorithms.template_picker.imaging import guess_imaging
from icestream.algorithms.template_picker.judge import Decoys, count_accepted, find_probability, may_be_chance
from icestream.algorithms.template_picker.search import Filtered, Matches, Padded, Search

_FIRST_LOOK = 0.15  # part of the energy of the eigenimages that the first look may lose
_SURELY = 4.5  # standard deviations of noise
_FEWEST, _FEWEST_SHARE, _MOST = 10, 0.03, 0.6  # clear matches; and as parts of the particles for which there is room
_BESIDE = 0.6  # diameters about a match in which there are no decoys
_UNLIKE = 6.0  # robust standard deviations of the local mean of what is left
_NOISE_DIAMETERS = 14  # side of the field of noise


@dataclass(frozen=True)
class TemplatePicks:
    """Picks, the best first.

    Attributes
    ----------
    yx_px
        ``(n, 2)``, pixels of the micrograph.
    score
        ``(n,)``, standard deviations of noise.
    probability
        ``(n,)``, that the pick is more than noise.
    threshold
        The lowest score that was taken; infinite where there is none.
    false_share
        Share of the picks that is expected to be false.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    threshold: float
    false_share: float


@dataclass(frozen=True)
class View:
    """A micrograph as templates see it.

    Attributes
    ----------
    micrograph
        Flat, without dirt, in Fourier space.
    allowed
        ``(h, w)``, where particles may be.
    scale
        ``(2,)``, pixels of the micrograph in one of these.
    pixel_size_ang, diameter_px
        Of these pixels; of the particle.
    """

    micrograph: Padded
    allowed: NDArray[np.bool_]
    scale: NDArray[np.float64]
    pixel_size_ang: float
    diameter_px: float


def view_micrograph_2d(image: Image, *, pixel_size_ang: float, template_pixel_ang: float, diameter_ang: float) -> View:
    """Reduce ``(h, w)`` to the pixels of the templates, without its background and dirt."""
    small, scale = reduce_2d(image, factor=template_pixel_ang / pixel_size_ang)
    pixel_ang = pixel_size_ang * float(scale.mean())
    diameter_px = diameter_ang / pixel_ang
    around, dirt = mask_dirt_2d(small, diameter_px=diameter_px)
    flat = np.where(dirt, np.float32(0.0), flatten_2d(small, diameter_px=diameter_px, masked=around))
    return View(Padded.of(flat, pad=int(np.ceil(diameter_px))), ~dirt, scale, pixel_ang, diameter_px)


def pick_with_templates_2d(
    image: Image,
    eigenimages: Eigenimages,
    *,
    pixel_size_ang: float,
    template_pixel_ang: float,
    diameter_ang: float,
    min_distance_ang: float,
    transfer: Transfer,
    seed: int,
    false_discovery_rate: float | None = None,
    threshold: float | None = None,
) -> TemplatePicks:
    """Find particles that look like templates.

    Parameters
    ----------
    image
        ``(h, w)``.
    eigenimages
        What `compress_templates` made of templates that are bright and without CTF.
    pixel_size_ang, template_pixel_ang
        Of the image and of the templates; the image is reduced to the latter.
    diameter_ang
        Of the particle.
    min_distance_ang
        No two picks are closer.
    transfer
        The contrast transfer.
    seed
        Of the noise that is drawn.
    false_discovery_rate
        Accepted fraction of false picks; unset: that with the best expected F1.
    threshold
        Lowest probability of a pick, instead of the rate.
    """
    view = view_micrograph_2d(
        image, pixel_size_ang=pixel_size_ang, template_pixel_ang=template_pixel_ang, diameter_ang=diameter_ang
    )
    distance_px = min_distance_ang / view.pixel_size_ang
    search, clear, rest = learn_imaging(view, eigenimages, transfer, diameter_ang, min_distance_px=distance_px)
    found, inverted = find_apart(search, view, clear, rest, min_distance_px=distance_px)
    decoys = draw_decoys(search, view, found, inverted, min_distance_px=distance_px, seed=seed)
    probability = find_probability(found.score, decoys)
    if threshold is None:
        count = count_accepted(found.score, probability, decoys, false_discovery_rate=false_discovery_rate)
    else:
        count = int(np.count_nonzero(probability >= threshold))
        count = 0 if may_be_chance(found.score, decoys, count) else count
    taken = probability[:count]
    level = float(found.score[count - 1]) if count else np.inf
    return TemplatePicks(
        found.yx_px[:count] * view.scale, found.score[:count], taken, level, float(1 - taken.mean()) if count else 0.0
    )


def learn_imaging(
    view: View, eigenimages: Eigenimages, transfer: Transfer, diameter_ang: float, *, min_distance_px: float
) -> tuple[Search, Matches, Padded]:
    """Find the clearest matches, learning from them how the micrograph images them; also return it without these."""
    micrograph, allowed = view.micrograph, view.allowed
    diameter_px = diameter_ang / view.pixel_size_ang
    imaging = guess_imaging(
        micrograph.spectrum, micrograph.shape,
        transfer=transfer, pixel_size_ang=view.pixel_size_ang, diameter_px=diameter_px,
    )  # fmt: skip
    search, rest = Search.of(eigenimages.leading(lost=_FIRST_LOOK), imaging), micrograph
    for _ in range(2):
        filtered = search.filter(micrograph, around=rest, allowed=allowed)
        found = search.find(filtered, min_distance_px=min_distance_px, allowed=allowed)[0]
        clear = found.take(slice(0, count_clear(found.score, view)))
        model = search.draw(micrograph, clear, undo(filtered, clear))
        if len(clear.score):
            imaging = search.imaging.learn(micrograph.spectrum, model, micrograph.shape)
        search = Search.of(eigenimages, imaging)
        rest = search.explain(micrograph, model)
    filtered = search.filter(micrograph, around=rest, allowed=allowed)
    clear = search.refine(filtered, clear.yx_px, min_distance_px=min_distance_px)
    clear = clear.take(slice(0, count_clear(clear.score, view)))
    clear = Matches(clear.yx_px, undo(filtered, clear), clear.index)
    return search, clear, search.explain(micrograph, search.draw(micrograph, clear, clear.score))


def count_clear(score: NDArray[np.float64], view: View) -> int:
    """Return how many of the best matches are clear enough to learn from; none where noise may have made them."""
    room = np.count_nonzero(view.allowed) / view.diameter_px**2
    clear = int(np.count_nonzero(score >= _SURELY))
    return min(clear, int(_MOST * room)) if clear >= max(_FEWEST, _FEWEST_SHARE * room) else 0


def undo(filtered: Filtered, matches: Matches) -> NDArray[np.float64]:
    """Return the scores before they were normalised locally: ``(n,)``."""
    raw: NDArray[np.float64] = matches.score * filtered.uneven_at(matches.yx_px)
    return raw


def find_apart(search: Search, view: View, clear: Matches, rest: Padded, *, min_distance_px: float) -> tuple[Matches, Matches]:
    """Look once more where the clear matches were taken out, and score each match without all others; the best first.

    So particles are found that were hidden beside clearer ones. Also return what inverted templates find, ``score`` of ``clear``
    not normalised locally.
    """
    emptied = search.filter(rest, allowed=view.allowed)
    more, inverted = search.find(emptied, min_distance_px=min_distance_px, allowed=view.allowed, contrasts=(1, -1))
    left = search.score_same(emptied.image, rest.place(clear.yx_px), clear.index)
    every = join(Matches(clear.yx_px, clear.score + left, clear.index), Matches(more.yx_px, undo(emptied, more), more.index))
    every = every.take(suppress_neighbours(every.yx_px, min_distance_px=min_distance_px))
    n_clear = count_clear(every.score / emptied.uneven_at(every.yx_px), view)
    known, other = every.take(slice(0, n_clear)), every.take(slice(n_clear, None))
    rest = search.explain(view.micrograph, search.draw(view.micrograph, known, known.score))
    emptied = search.filter(rest, allowed=view.allowed)
    left = search.score_same(emptied.image, rest.place(known.yx_px), known.index)
    score, index = search.score_places(emptied.image, rest.place(other.yx_px))
    found = join(Matches(known.yx_px, known.score + left, known.index), Matches(other.yx_px, score, index))
    found = found.take(~is_unlike(rest, found.yx_px, view))
    even = found.score / emptied.uneven_at(found.yx_px)
    order = np.argsort(-even, kind="stable")
    return Matches(found.yx_px[order], even[order], found.index[order]), inverted


def join(one: Matches, other: Matches) -> Matches:
    """Put matches together, the best first."""
    score = np.concatenate([one.score, other.score])
    order = np.argsort(-score, kind="stable")
    yx_px, index = np.concatenate([one.yx_px, other.yx_px]), np.concatenate([one.index, other.index])
    return Matches(yx_px[order], score[order], index[order])


def is_unlike(rest: Padded, yx_px: NDArray[np.float64], view: View) -> NDArray[np.bool_]:
    """Tell at which places ``(n, 2)`` much is left when the particles are taken out, as of a small ball of ice: ``(n,)``."""
    left = rest.cut(fft.irfft2(rest.spectrum, s=rest.shape))
    mean = ndimage.gaussian_filter(left, 0.25 * view.diameter_px, mode="reflect", truncate=3.0)
    spread = 1.4826 * float(np.median(np.abs(mean[view.allowed]))) if view.allowed.any() else 1.0
    place = rest.place(yx_px) - rest.pad
    unlike: NDArray[np.bool_] = np.abs(mean[place[:, 0], place[:, 1]]) > _UNLIKE * max(spread, 1e-30)
    return unlike


def draw_decoys(search: Search, view: View, found: Matches, inverted: Matches, *, min_distance_px: float, seed: int) -> Decoys:
    """Find what the templates see in noise, stretched as inverted templates see more or less between the particles."""
    side = 2 * fft.next_fast_len(int(0.5 * _NOISE_DIAMETERS * view.diameter_px), real=True)
    shape = (side, side)
    white = fft.rfft2(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    drawn = (white * np.sqrt(search.imaging.noise_power(shape) / np.float32(side * side))).astype(np.complex64)
    everywhere = np.ones(shape, dtype=bool)
    noise = search.filter(Padded(drawn, shape, 0, shape), allowed=everywhere)
    both = search.find(noise, min_distance_px=min_distance_px, allowed=everywhere, contrasts=(1, -1))
    score = np.sort(np.concatenate([one.score for one in both]))[::-1]
    per_pixel = 1 / (2 * side * side)
    clear = found.yx_px[found.score >= _SURELY]
    free = view.allowed & away_from(clear, view.allowed.shape, radius_px=min_distance_px)
    decoys = Decoys(score, float(np.count_nonzero(free)) * per_pixel)
    away = view.allowed & away_from(clear, view.allowed.shape, radius_px=_BESIDE * view.diameter_px)
    place = view.micrograph.place(inverted.yx_px) - view.micrograph.pad
    between = inverted.score[away[place[:, 0], place[:, 1]]]
    return decoys.stretched_by(between, n_expected=len(score) * np.count_nonzero(away) * per_pixel)


def away_from(yx_px: NDArray[np.float64], shape: tuple[int, int], *, radius_px: float) -> NDArray[np.bool_]:
    """Tell which pixels of ``shape`` are further than ``radius_px`` from all places: ``(h, w)``."""
    free = np.ones(shape, dtype=bool)
    row, column = np.clip(np.rint(yx_px), 0, np.array(shape) - 1).astype(np.int64).T
    free[row, column] = False
    if free.all():
        return free
    away: NDArray[np.bool_] = ndimage.distance_transform_edt(free) > radius_px
    return away
