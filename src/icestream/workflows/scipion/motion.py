"""What Scipion's motion correction and gain estimation say about gain, defects, dose and halves, in our words."""

from pathlib import PurePosixPath

from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError, as_flag
from icestream.workflows.scipion.rules import Lost, Mapping, Rule

DEFECTS_ROOT = "defects"
_TURNS = ("", "rot90", "rot180", "rot270")


def as_orientation(reader: Reader, names: tuple[str, ...]) -> str:
    """Return the orientation of the gain from a rotation and the flip that comes after it; neither means "find it"."""
    turns, flip = (_choice(reader, name, most) for name, most in zip(names, (3, 2), strict=True))
    if not turns and not flip:
        raise AbsentError
    return name_orientation(turns, flip)


def name_orientation(turns: int, flip: int) -> str:
    """Return our name for MotionCor's ``-RotGain`` and the ``-FlipGain`` after it, which RELION and Scipion have too.

    Their quarter turns are clockwise where row 0 is drawn at the top (counter-clockwise where it is drawn at the bottom); ours
    are counter-clockwise and come after the flip. Upside down after turns one way is turns the other way after upside down, and
    left to right is upside down and half a turn.

    Parameters
    ----------
    turns
        Quarter turns, 0 to 3.
    flip
        0 none, 1 upside down, 2 left to right.
    """
    if flip == 0:
        return _TURNS[-turns % 4] or "as stored"
    return f"flip {_TURNS[((2 if flip == 2 else 0) + turns) % 4]}".strip()


def _choice(reader: Reader, name: str, most: int) -> int:
    try:
        index = reader.integer(name)
    except AbsentError:
        return 0
    if not 0 <= index <= most:
        raise UntranslatableError(f"{name} is {index}; known are 0 to {most}")
    return index


def as_dose_weighting(reader: Reader, names: tuple[str, ...]) -> str:
    """Return "off" where micrographs are not to be weighted; else our default holds, which weights where the dose is known."""
    if reader.flag(names[0]):
        raise AbsentError
    return "off"


def as_defects(reader: Reader, names: tuple[str, ...]) -> str:
    """Return the file of defects, below a root of its own; a list is preferred to a map."""
    return f"{DEFECTS_ROOT}:{_defects_path(reader, names).name}"


def defects_folder(reader: Reader) -> str:
    """Return the folder of the file of defects."""
    return str(_defects_path(reader, ("defectFile", "defectMap")).parent)


def _defects_path(reader: Reader, names: tuple[str, ...]) -> PurePosixPath:
    for name in names:
        try:
            path = PurePosixPath(reader.text(name).strip())
        except AbsentError:
            continue
        if not path.name or not path.is_absolute() or ".." in path.parts or "%(" in str(path):
            raise UntranslatableError(f"{name} is {str(path)[:80]!r}, which is not a full path of a file")
        return path
    raise AbsentError


def as_yx(reader: Reader, names: tuple[str, ...]) -> list[int]:
    """Return two whole numbers, y and then x, unless both are 0, which there means all."""
    found = []
    for name in names:
        try:
            found.append(reader.integer(name))
        except AbsentError:
            found.append(0)
    if not any(found):
        raise AbsentError
    if min(found) < 0:
        raise UntranslatableError(f"{names[0]} and {names[1]} are {found[0]} and {found[1]}; both must be 0 or more")
    return found


MOTION_RULES = (
    Rule("crop_offset_yx_px", ("cropOffsetY", "cropOffsetX"), as_yx),
    Rule("crop_size_yx_px", ("cropDimY", "cropDimX"), as_yx),
    Rule("write_halves", ("splitEvenOdd",), as_flag),
    Rule("write_unweighted", ("doSaveUnweightedMic",), as_flag),
    Rule("defects", ("defectFile", "defectMap"), as_defects),
    Rule(
        "gain_orientation",
        ("gainRot", "gainFlip"),
        as_orientation,
        "as it was fixed there; auto, which is the default, finds it from the data",
    ),
)

MOVIE_GAIN = Mapping(
    "estimate_gain",
    "gain_estimate",
    {"movie": ("inputMovies",)},
    (),
    (
        Lost("estimateOrientation", (True,), "the orientation of a given gain is always checked"),
        Lost("estimateResidualGain", (True,), "what a given gain leaves uncorrected is always measured"),
        Lost("estimateSigma", (False,), "the spread of single pixels is not written"),
    ),
    changed="one gain is learnt from the movies together, not from every movieStep-th one; a given gain takes precedence",
)
"""The estimate of the gain; it passes the movies on as they are."""
