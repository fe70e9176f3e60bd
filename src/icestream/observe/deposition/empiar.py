"""Raw data for EMPIAR: folders of links to movies and micrographs, and the description that EMPIAR's schema asks for."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.documents import read_document
from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.flow.declaration import resolve_ref
from icestream.io.image import image_header
from icestream.observe.conditions import read_conditions
from icestream.observe.deposition.packing import begin_package, link_into, write_checksums
from icestream.observe.queries import SessionView

_NAME = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^0-9!\"£$%^&*()']+$")]
_ORCID = Annotated[str, Field(pattern=r"^([0-9]{4}-){3}[0-9]{3}[0-9X]$")]
_FORMATS = {".mrc": "T1", ".mrcs": "T2", ".tif": "T3", ".tiff": "T3", ".dm4": "T6", ".eer": "T9"}
_VOXELS = {"uint8": "T1", "int8": "T2", "uint16": "T3", "int16": "T4", "float32": "T7"}
_EER, _BITS = "T9", "T8"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Author(_Document):
    """An author: surname, and initials as capital letters."""

    surname: _NAME
    initials: Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")]
    orcid: _ORCID | None = None


class Person(_Document):
    """A person to write to."""

    first_name: _NAME
    middle_name: _NAME | None = None
    last_name: _NAME
    organization: str = Field(min_length=1, max_length=255)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    country: str = Field(pattern=r"^[A-Z]{2}$")
    street: str | None = Field(None, max_length=255)
    town_or_city: str | None = Field(None, max_length=60)
    state_or_province: str | None = Field(None, max_length=60)
    post_or_zip: str | None = Field(None, max_length=60)
    telephone: str | None = Field(None, max_length=60)
    orcid: _ORCID | None = None


class Citation(_Document):
    """The publication, or what it is to be called."""

    title: str = Field(min_length=1, max_length=255)
    authors: tuple[Author, ...] = Field(min_length=1)
    published: bool = False
    journal: str | None = None
    year: int | None = None
    doi: str | None = None


class About(_Document):
    """What nobody but the depositor knows."""

    title: str = Field(min_length=10, max_length=255)
    release_date: Literal["RE", "EP", "HP", "HO"] = "EP"
    emdb_entries: tuple[Annotated[str, Field(pattern=r"^EMD-[0-9]{4,}$")], ...] = ()
    authors: tuple[Author, ...] = Field(min_length=1)
    corresponding_author: Person
    principal_investigators: tuple[Person, ...] = Field(min_length=1)
    citation: Citation | None = None


def read_about(path: Path) -> About:
    """Read the file in which people say who deposits what.

    Raises
    ------
    SessionError
        It cannot be read, or something is missing or not as EMPIAR has it; each is named.
    """
    try:
        return About.model_validate(read_document(path))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise SessionError(f"{path}: {'; '.join(told)}") from error
    except (OSError, ValueError) as error:
        raise SessionError(f"{path}: cannot be read: {error}") from error


@dataclass(frozen=True)
class ImageSet:
    """Files of one kind, of one size."""

    directory: str
    name: str
    category: str
    files: tuple[Path, ...]
    width_px: int
    height_px: int
    frames: int
    pixel_ang: float | None


def write_empiar_package(view: SessionView, about: About, folder: Path, *, checksums: bool = True) -> list[str]:
    """Write a folder that can be deposited; return what people should know.

    ``data`` has links to raw movies and corrected micrographs, ``deposition.json`` describes them, and ``checksums.sha256`` has
    the digest of every file, which reads all of them.

    Raises
    ------
    SessionError
        The session has neither movies nor micrographs whose files are there, or the folder is not empty.
    """
    pixel_ang = next((one.value for one in read_conditions(view) if one.name == "pixel_size_ang"), None)
    sets, notes = [], []
    begin_package(folder)
    for one in (*_movies(view, pixel_ang), *_micrographs(view, pixel_ang)):
        placed = _place(one, folder)
        if len(placed) < len(one.files):
            notes.append(
                f"{len(one.files) - len(placed)} of the {len(one.files)} files for {one.directory} are not there any more"
            )
        if placed:
            sets.append(_describe(one, placed))
    if not sets:
        raise SessionError(f"{view.session.document.name}: has no movies or micrographs whose files are there")
    publish_text(folder / "deposition.json", json.dumps({**_who(about), "imagesets": sets}, indent=1, ensure_ascii=False) + "\n")
    if checksums:
        write_checksums(folder)
    return notes


def _movies(view: SessionView, pixel_ang: float | None) -> Iterator[ImageSet]:
    """Give the raw movies of each source, those of one size together."""
    for step in view.steps():
        if step.records.get("out") != "Movie":
            continue
        kinds: dict[tuple[Any, ...], list[Path]] = {}
        for stored in view.records(step.name):
            one = stored.record
            path = resolve_ref(view.session.roots, one["file"])
            kind = (one["width_px"], one["height_px"], one["n_frames"], path.suffix.lower())
            kinds.setdefault(kind, []).append(path)
        for number, ((width, height, frames, _), files) in enumerate(kinds.items(), 1):
            name = step.name if number == 1 else f"{step.name}_{number}"
            yield ImageSet(f"data/{name}", "Raw movies", "T2", tuple(files), width, height, frames, pixel_ang)


def _micrographs(view: SessionView, pixel_ang: float | None) -> Iterator[ImageSet]:
    """Give the micrographs that were made of movies."""
    for step in view.steps():
        if step.records.get("out") != "Micrograph":
            continue
        found = [one.record for one in view.records(step.name)]
        made = [one for one in found if one.get("motion")]
        if not made:
            continue
        first = made[0]
        alike = [one for one in made if (one["width_px"], one["height_px"]) == (first["width_px"], first["height_px"])]
        files = tuple(resolve_ref(view.session.roots, one["image"]) for one in alike)
        scale = None if pixel_ang is None else pixel_ang * first["bin"]
        yield ImageSet(f"data/{step.name}", "Micrographs", "T1", files, first["width_px"], first["height_px"], 1, scale)


def _place(one: ImageSet, folder: Path) -> list[Path]:
    """Link files under names of their own: two folders may have files of one name."""
    placed: list[Path] = []
    taken: set[str] = set()
    for path in one.files:
        name = path.name if path.name not in taken else f"{len(taken)}_{path.name}"
        taken.add(name)
        if link_into(path, folder / one.directory / name):
            placed.append(folder / one.directory / name)
    return placed


def _describe(one: ImageSet, placed: list[Path]) -> dict[str, Any]:
    form = _FORMATS.get(placed[0].suffix.lower())
    code = f"('OT', '{placed[0].suffix.removeprefix('.').upper() or 'UNKNOWN'}')" if form is None else f"('{form}', '')"
    voxel = _BITS if form == _EER else None
    if form in ("T1", "T2"):
        dtype = image_header(placed[0]).dtype
        voxel = None if dtype is None else _VOXELS.get(dtype.name)
    return {
        "name": one.name,
        "directory": one.directory,
        "category": f"('{one.category}', '')",
        "header_format": code,
        "data_format": code,
        "num_images_or_tilt_series": len(placed),
        "frames_per_image": one.frames,
        "voxel_type": "('OT', 'UNKNOWN')" if voxel is None else f"('{voxel}', '')",
        "pixel_width": one.pixel_ang,
        "pixel_height": one.pixel_ang,
        "details": None,
        "image_width": one.width_px,
        "image_height": one.height_px,
    }


def _who(about: About) -> Mapping[str, Any]:
    citation = about.citation or Citation(title=about.title, authors=about.authors)
    return {
        "title": about.title,
        "release_date": about.release_date,
        "experiment_type": 3,
        "cross_references": [{"name": name} for name in about.emdb_entries],
        "authors": _authors(about.authors),
        "corresponding_author": _person(about.corresponding_author),
        "principal_investigator": [_person(one) for one in about.principal_investigators],
        "citation": [
            {
                "authors": _authors(citation.authors),
                "editors": [],
                "published": citation.published,
                "j_or_nj_citation": True,
                "title": citation.title,
                "journal": citation.journal,
                "year": citation.year,
                "doi": citation.doi,
            }
        ],
    }


def _authors(authors: tuple[Author, ...]) -> list[dict[str, Any]]:
    return [
        {"name": f"('{one.surname}', '{one.initials}')", "order_id": number, "author_orcid": one.orcid}
        for number, one in enumerate(authors)
    ]


def _person(person: Person) -> dict[str, Any]:
    said = person.model_dump()
    return {"author_orcid": said.pop("orcid"), **said, "fax": None}
