"""Turning values of Scipion's parameters into ours: units, enumerations, ranges, durations and file patterns."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from icestream.workflows.scipion.parse import DynamicField, Pointer, Protocol, Value

MICROMETRES_BELOW = 100.0
"""A defocus below this was written in µm: older Xmipp protocols do, all others write Å, and nobody works at 100 Å."""

NYQUIST = 0.5
"""The highest digital frequency; no resolution in Å is that high."""

_RAMP = 2
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms]?)")


class AbsentError(Exception):
    """The parameter is not there, is null, or says "automatic": our default holds."""


class UntranslatableError(Exception):
    """The value has no counterpart; the message says why."""


@dataclass(frozen=True)
class Reader:
    """The parameters of one protocol, with a field of a template standing for its default.

    ``raw_pixel_ang`` is the pixel size of the movie or micrograph that was imported, ``pixel_ang`` that of the input.
    ``scale`` is how many of our pixels one of the protocol's is, where Scipion scaled micrographs down and we do not; ``others``
    are all protocols of the file.
    """

    protocol: Protocol
    raw_pixel_ang: float | None = None
    pixel_ang: float | None = None
    scale: float = 1.0
    others: Mapping[str, Protocol] = field(default_factory=dict)

    def value(self, name: str) -> Value:
        """Return the value of a parameter."""
        value = self.protocol.values.get(name)
        if isinstance(value, DynamicField):
            value = value.default
        if value is None or value == "":
            raise AbsentError
        return value

    def number(self, name: str) -> float:
        """Return a finite number; text is read as one."""
        value = self.value(name)
        if isinstance(value, Pointer):
            raise UntranslatableError(f"{name} is taken from protocol {value}")
        if isinstance(value, bool | tuple | DynamicField) or value is None:
            raise UntranslatableError(f"{name} is {value!r}, which is not a number")
        try:
            number = float(value)
        except (ValueError, OverflowError) as error:
            raise UntranslatableError(f"{name} is {str(value)[:40]!r}, which is not a number") from error
        if not math.isfinite(number):
            raise UntranslatableError(f"{name} is {number}, which is not a finite number")
        return number

    def integer(self, name: str) -> int:
        """Return a whole number."""
        number = self.number(name)
        if number != int(number):
            raise UntranslatableError(f"{name} is {number:g}, which is not a whole number")
        return int(number)

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        """Return yes or no."""
        try:
            value = self.value(name)
        except AbsentError:
            if default is None:
                raise
            return default
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in known:
            raise UntranslatableError(f"{name} is {str(value)[:40]!r}, which is neither yes nor no")
        return known[str(value).lower()]

    def text(self, name: str) -> str:
        """Return text."""
        value = self.value(name)
        if not isinstance(value, str):
            raise UntranslatableError(f"{name} is {value!s}, which is not text")
        return value


Convert = Callable[[Reader, tuple[str, ...]], Any]


def as_number(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a number as it is."""
    return reader.number(names[0])


def as_positive(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a number; zero or less means "automatic"."""
    if (number := reader.number(names[0])) <= 0:
        raise AbsentError
    return number


def as_integer(reader: Reader, names: tuple[str, ...]) -> int:
    """Return a whole number; zero or less means "automatic"."""
    if (number := reader.integer(names[0])) <= 0:
        raise AbsentError
    return number


def as_fraction(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a fraction from per cent."""
    return round(as_positive(reader, names) / 100, 6)


def as_share(reader: Reader, names: tuple[str, ...]) -> float:
    """Return which share one whole number is of another, at most all."""
    part, whole = (as_positive(reader, (name,)) for name in names)
    return round(min(1.0, part / whole), 6)


def as_normalisation(reader: Reader, names: tuple[str, ...]) -> str:
    """Return how the background is normalised: not at all, by a ramp (also where no type is named), or by its mean."""
    if not reader.flag(names[0]):
        return "none"
    with suppress(AbsentError):
        return "ramp" if reader.integer(names[1]) == _RAMP else "mean"
    return "ramp"


def as_flag(reader: Reader, names: tuple[str, ...]) -> bool:
    """Return yes or no."""
    return reader.flag(names[0])


def as_not(reader: Reader, names: tuple[str, ...]) -> bool:
    """Return the opposite."""
    return not reader.flag(names[0])


def as_index(reader: Reader, names: tuple[str, ...]) -> int:
    """Return a position counted from 0; ours from one counted from 1."""
    if (number := reader.integer(names[0])) <= 0:
        raise AbsentError
    return number - 1


def one_of(*choices: Any) -> Convert:
    """Return the choice that an enumeration's number stands for."""

    def convert(reader: Reader, names: tuple[str, ...]) -> Any:
        index = reader.integer(names[0])
        if not 0 <= index < len(choices):
            raise UntranslatableError(f"{names[0]} is {index}; known are 0 to {len(choices) - 1}")
        return choices[index]

    return convert


def as_range(reader: Reader, names: tuple[str, ...]) -> list[float]:
    """Return two numbers as a range."""
    return [reader.number(names[0]), reader.number(names[1])]


def as_range_um(reader: Reader, names: tuple[str, ...]) -> list[float]:
    """Return two values of defocus in µm, from Å or µm."""
    return [_micrometres(value) for value in as_range(reader, names)]


def _micrometres(value: float) -> float:
    return value if abs(value) < MICROMETRES_BELOW else round(value * 1e-4, 6)


def as_resolution(reader: Reader, names: tuple[str, ...]) -> list[float]:
    """Return the low and the high resolution in Å, from Å or from digital frequencies (1/px), which older protocols have.

    Names after these are of a factor by which the micrograph was scaled down for this alone.
    """
    low, high = as_range(reader, names[:2])
    if not (0 < low <= NYQUIST and 0 < high <= NYQUIST):
        return [low, high]
    if reader.pixel_ang is None:
        raise UntranslatableError(f"{names[0]} {low:g} is a digital frequency, and the pixel size is not known")
    pixel_ang = reader.pixel_ang
    for name in names[2:]:
        with suppress(AbsentError):
            pixel_ang *= max(1.0, reader.number(name))
    return [round(pixel_ang / low, 3), round(pixel_ang / high, 3)]


def always(value: Any) -> Convert:
    """Return a fixed value: what Scipion does always, and we unless told."""
    return lambda _reader, _names: value


def where(convert: Convert, *, otherwise: Any = ..., absent: Any = ...) -> Convert:
    """Convert the names after the first if the first says yes; else the criterion is off, or our default holds.

    ``absent`` is for protocols that did not have the criterion yet.
    """

    def guarded(reader: Reader, names: tuple[str, ...]) -> Any:
        if absent is not ... and names[0] not in reader.protocol.values:
            return absent
        if reader.flag(names[0]):
            return convert(reader, names[1:])
        if otherwise is ...:
            raise AbsentError
        return otherwise

    return guarded


def where_not(convert: Convert) -> Convert:
    """Convert the names after the first if the first says no; else our default holds."""

    def guarded(reader: Reader, names: tuple[str, ...]) -> Any:
        if reader.flag(names[0]):
            raise AbsentError
        return convert(reader, names[1:])

    return guarded


def around(convert: Convert) -> Convert:
    """Return a range of a tenth around a value."""

    def widened(reader: Reader, names: tuple[str, ...]) -> list[float]:
        middle = convert(reader, names)
        return [round(0.9 * middle, 3), round(1.1 * middle, 3)]

    return widened


def times_pixel(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a length in Å from pixels of the input."""
    length_px = as_positive(reader, names)
    if reader.pixel_ang is None:
        raise UntranslatableError(f"{names[0]} is {length_px:g} px, and the pixel size is not known")
    return round(length_px * reader.pixel_ang, 3)


def twice_pixel(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a diameter in Å from a radius in pixels of the particles."""
    return round(2 * times_pixel(reader, names) * _down_factor(reader), 3)


def per_raw_pixel(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a length in pixels of the movie from Å."""
    length_ang = as_positive(reader, names)
    if reader.raw_pixel_ang is None:
        raise UntranslatableError(f"{names[0]} is {length_ang:g} Å, and the pixel size is not known")
    return round(length_ang / reader.raw_pixel_ang, 3)


def even_px(value: float) -> int:
    """Return the nearest even number of pixels."""
    if not math.isfinite(value):
        raise UntranslatableError(f"a box of {value} px is none")
    return 2 * round(value / 2)


def as_even(reader: Reader, names: tuple[str, ...]) -> int:
    """Return an even number of pixels; zero or less means "automatic"."""
    return even_px(as_positive(reader, names))


def as_box_diameters(reader: Reader, names: tuple[str, ...]) -> float:
    """Return the box in particle diameters, where it is taken from the protocol that derives sizes from the picked box."""
    source = _box_size_protocol(reader, names[0])
    if source is None:
        raise AbsentError
    return Reader(source).number("factorExtractPartBx")


def as_box_px(reader: Reader, names: tuple[str, ...]) -> int:
    """Return the box in pixels of the micrograph, unless it is derived from the picked box."""
    if _box_size_protocol(reader, names[0]) is not None:
        raise AbsentError
    return even_px(as_positive(reader, names) * reader.scale * _down_factor(reader))


def _down_factor(reader: Reader) -> float:
    """Return by how much an older extraction scaled the micrograph down before it cut the box; newer ones scale the box."""
    if "doResize" in reader.protocol.values:
        return 1.0
    try:
        return max(1.0, reader.number("downFactor"))
    except AbsentError:
        return 1.0


def _box_size_protocol(reader: Reader, name: str) -> Protocol | None:
    value = reader.value(name)
    source = reader.others.get(value.protocol) if isinstance(value, Pointer) else None
    derived = isinstance(value, Pointer) and value.output == "boxSizeExtraction"
    return source if derived and source is not None and source.class_name == "ProtBoxSizeParameters" else None


def as_scaled_box(reader: Reader, names: tuple[str, ...]) -> int:
    """Return the box after scaling by ``(rescale, option, box, factor, side, pixel size)``, as Xmipp words it."""
    if _down_factor(reader) > 1:
        return as_even(reader, (names[2],))
    if not reader.flag(names[0]):
        raise AbsentError
    option = reader.integer(names[1])
    if option == 1:
        return as_even(reader, (names[4],))
    box_px = as_positive(reader, (names[2],))
    if option == 0:
        return even_px(box_px / as_positive(reader, (names[3],)))
    if reader.pixel_ang is None:
        raise UntranslatableError(f"{names[5]} is a pixel size, and that of the micrographs is not known")
    return even_px(box_px * reader.pixel_ang / as_positive(reader, (names[5],)))


def as_dust_level(reader: Reader, names: tuple[str, ...]) -> float | None:
    """Return the lower of the positive levels; dust is kept where there is none."""
    levels = [level for name in names if (level := reader.number(name)) > 0]
    return min(levels) if levels else None


def as_seconds(reader: Reader, names: tuple[str, ...]) -> float:
    """Return seconds from a number or a duration, as ``1d 2h 20m 15s``."""
    text = str(reader.value(names[0])).strip().lower()
    found = _DURATION.findall(text)
    if not found or _DURATION.sub("", text).strip():
        raise UntranslatableError(f"{names[0]} is {text[:40]!r}; known are durations such as 12h or 1d 2h 20m 15s")
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


def as_patches(least: int) -> Convert:
    """Return the patches along y and x; fewer than ``least`` along one means that there are none."""

    def convert(reader: Reader, names: tuple[str, ...]) -> list[int]:
        patches = [reader.integer(name) for name in names]
        if min(patches) < least:
            raise AbsentError
        return patches

    return convert


def as_local(least: int) -> Convert:
    """Return whether there are ``least`` patches along both axes, so that local motion is corrected."""

    def convert(reader: Reader, names: tuple[str, ...]) -> bool:
        return min(reader.integer(name) for name in names) >= least

    return convert
