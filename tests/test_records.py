import json
from typing import ClassVar

import pytest
from pydantic import ValidationError

from icestream.records import Acquisition, CtfFit, ExposureMetadata, FrameUse, Micrograph, Movie, Picks, Record

MOVIE = {"file": "movies:a/b.tiff", "n_frames": 3, "height_px": 8, "width_px": 9, "format": "tiff", "size_bytes": 100}


def test_records_are_frozen_and_know_their_fields() -> None:
    movie = Movie.model_validate(MOVIE)
    with pytest.raises(ValidationError, match="frozen"):
        movie.n_frames = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="flavour"):
        Movie.model_validate(MOVIE | {"flavour": "sweet"})


@pytest.mark.parametrize("ref", ["/absolute/path.mrc", "movies", "movies:", "movies:/etc/passwd", "Movies:a.mrc", ""])
def test_a_file_is_named_relative_to_a_root(ref: str) -> None:
    with pytest.raises(ValidationError):
        Movie.model_validate(MOVIE | {"file": ref})


def test_a_block_travels_beside_the_record() -> None:
    picks = Picks(count=2, diameter_ang=100.0, block=b"table")
    assert "block" not in json.loads(picks.model_dump_json())
    assert Picks.restore(picks.model_dump_json(), version=1, block=b"table") == picks
    assert picks.weight == 2


def test_curves_survive_storage_bit_by_bit() -> None:
    fit = CtfFit(
        defocus_u_ang=1e4 / 3, defocus_v_ang=1.0, astigmatism_angle_deg=0.1, score=1 / 7, resolution_ang=4.0, profile=[1 / 3]
    )
    assert CtfFit.restore(fit.model_dump_json(), version=CtfFit.schema_version, block=None) == fit


class Renamed(Record):
    """A record whose first version called its field ``old``."""

    schema_version: ClassVar[int] = 2
    new: int

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        return {"new": stored["old"]} if version == 1 else super().upcast(stored, version)


def test_old_records_are_read_through_upcasters() -> None:
    assert Renamed.restore('{"old": 3}', version=1, block=None) == Renamed(new=3)
    assert Renamed.restore('{"new": 3}', version=2, block=None) == Renamed(new=3)


def test_a_version_without_an_upcaster_is_refused() -> None:
    with pytest.raises(ValueError, match="Movie: no upcaster from schema 7 to 1"):
        Movie.restore("{}", version=7, block=None)


def test_physics_has_no_default() -> None:
    assert set(Acquisition().model_dump().values()) == {None}
    with pytest.raises(ValidationError):
        Acquisition(voltage_kv=-300)


def test_a_micrograph_stands_for_one_thing() -> None:
    assert Micrograph(image="session:a.mrc", height_px=1, width_px=1, bin=1).weight == 1


def test_a_ctf_of_the_first_schema_is_read_with_unknown_errors_unset() -> None:
    stored = '{"defocus_u_ang": 2.0, "defocus_v_ang": 1.0, "astigmatism_angle_deg": 0.0, "score": 0.5, "resolution_ang": 4.0}'
    fit = CtfFit.restore(stored, version=1, block=None)
    assert (fit.defocus_u_ang, fit.confidence, fit.estimator) == (2.0, None, None)
    assert CtfFit.restore(fit.model_dump_json(), version=2, block=None) == fit


def test_the_dose_of_a_micrograph_counts_the_frames_as_they_are_stored() -> None:
    acquisition = Acquisition(dose_per_frame_e_per_ang2=0.05)
    use = FrameUse(movie="movies:a.eer", movie_frames=40, height_px=8, width_px=8, eer_group=20)
    grouped = Micrograph(image="session:a.mrc", height_px=8, width_px=8, bin=1, n_frames=40, frames=use)
    assert grouped.dose_e_per_ang2(acquisition) == pytest.approx(40 * 20 * 0.05)
    plain = grouped.model_copy(update={"frames": use.model_copy(update={"eer_group": None})})
    assert plain.dose_e_per_ang2(acquisition) == pytest.approx(2)
    assert plain.dose_e_per_ang2(Acquisition()) is None
    imported = Micrograph(image="a:b.mrc", height_px=8, width_px=8, bin=1, metadata=ExposureMetadata(total_dose_e_per_ang2=41))
    assert imported.dose_e_per_ang2(acquisition) == 41
    assert imported.model_copy(update={"metadata": None}).dose_e_per_ang2(acquisition) is None
