"""The methods paragraph of a session, its software, and what is to be cited: from what steps declare and how they were run."""

from collections.abc import Sequence
from dataclasses import dataclass

from icestream import __version__
from icestream.observe.answers import StepSummary
from icestream.observe.catalog import Catalog
from icestream.observe.conditions import Condition
from icestream.observe.values import sentence_of
from icestream.observe.wording import quantity
from icestream.records import Reference

MADE_BY = __version__
"""The version of icestream that makes the report."""

ICESTREAM = Reference(
    "icestream",
    ("{The icestream developers}",),
    f"icestream {__version__}: processing single-particle cryo-EM data while the microscope is still collecting",
    2026,
)
_PROGRAM = ".program"
"""The end of the name of a parameter that holds the version of a program, as steps declare them."""


@dataclass(frozen=True)
class Said:
    """One sentence, and the numbers of what is cited for it."""

    sentence: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Cited:
    """One line of the list of references."""

    number: int
    key: str
    line: str
    bibtex: str


@dataclass(frozen=True)
class Software:
    """A program that made results of the session, in one of its versions."""

    name: str
    version: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Methods:
    """What was done, in words that go into a paper."""

    sentences: tuple[Said, ...]
    references: tuple[Cited, ...]
    software: tuple[Software, ...]

    @property
    def text(self) -> str:
        """The paragraph as plain text."""
        return " ".join(f"{one.sentence[:-1]}{_numbers(one.numbers)}." for one in self.sentences)

    @property
    def bibtex(self) -> str:
        """The references as a file for BibTeX."""
        return "\n\n".join(one.bibtex for one in self.references) + "\n"


def _numbers(numbers: Sequence[int]) -> str:
    return f" [{', '.join(map(str, numbers))}]" if numbers else ""


def describe_methods(catalog: Catalog, steps: Sequence[StepSummary], conditions: Sequence[Condition]) -> Methods:
    """Write the paragraph of what has been run, in workflow order; a sentence that several steps have is said once."""
    cited: dict[str, Reference] = {ICESTREAM.key: ICESTREAM}
    said: dict[str, tuple[str, ...]] = {}
    optics = _optics(conditions)
    if optics:
        said[f"Data were acquired {optics}."] = ()
    said["Data were processed on the fly with icestream."] = (ICESTREAM.key,)
    for step in steps:
        method = catalog.method(step.use, step.type_version)
        if method is None or step.revision is None or not step.counts.decided + step.weight:
            continue
        sentences = [text for one in method.sentences if (text := sentence_of(one, step.params))]
        cited.update((one.key, one) for one in method.references if sentences)
        for index, sentence in enumerate(sentences):
            keys = tuple(one.key for one in method.references) if index == 0 else ()
            said[sentence] = tuple(dict.fromkeys([*said.get(sentence, ()), *keys]))
    number = {key: index for index, key in enumerate(cited, 1)}
    return Methods(
        tuple(Said(sentence, tuple(number[key] for key in keys)) for sentence, keys in said.items()),
        tuple(Cited(number[key], key, one.line, one.bibtex) for key, one in cited.items()),
        _software(steps),
    )


def _optics(conditions: Sequence[Condition]) -> str:
    """Return how data were acquired, as far as it is known."""
    known = {one.name: quantity(one.value, one.unit) for one in conditions if one.value is not None}
    parts = [("voltage_kv", "at {}"), ("pixel_size_ang", "with a pixel size of {}"), ("dose_per_frame_e_per_ang2", "{} a frame")]
    told = [form.format(known[name]) for name, form in parts if name in known]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def _software(steps: Sequence[StepSummary]) -> tuple[Software, ...]:
    used: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        if step.software is not None:
            used.setdefault(("icestream", step.software), []).append(step.label)
        for name, value in step.params.items():
            if name.endswith(_PROGRAM) and value:
                used.setdefault((name.removesuffix(_PROGRAM), str(value)), []).append(step.label)
    return tuple(Software(name, version, tuple(labels)) for (name, version), labels in used.items())
