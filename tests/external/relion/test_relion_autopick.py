"""Arguments, version and output of ``relion_autopick``; files in ``printed`` were written by RELION 3.1.3 of Debian."""

from pathlib import Path

import numpy as np
import pytest

from icestream.errors import FileFormatError
from icestream.external.relion.autopick import AUTOPICK, ended_well, found_nothing, log_command, picks_path, read_picks

PRINTED = Path(__file__).parent / "printed"


def test_the_version_is_read_from_what_it_prints() -> None:
    assert AUTOPICK.read_version((PRINTED / "version_3_1_3.txt").read_text()) == "3.1.3"
    assert AUTOPICK.read_version("RELION version: 4.0.1-commit-ex9da7c \nPrecision: BASE=double, CUDA-ACC=single \n") == (
        "4.0.1-commit-ex9da7c"
    )
    assert (AUTOPICK.supports("3.1.3"), AUTOPICK.supports("3.0.8"), AUTOPICK.supports("6.0")) == (True, False, False)


def test_arguments_are_those_of_relion() -> None:
    command = log_command(
        "micrograph.mrc",
        pixel_size_ang=1.5,
        diameter_ang=(135.0, 165.0),
        threshold=-0.5,
        upper_threshold=None,
        white=True,
        lowpass_ang=20.0,
        shrink=0.0,
    )
    assert str(command) == (
        "--i micrograph.mrc --odir picked/ --pickname picks --angpix 1.5 --LoG --LoG_diam_min 135 --LoG_diam_max 165 "
        "--LoG_adjust_threshold -0.5 --Log_invert --lowpass 20 --shrink 0"
    )
    assert picks_path(Path("/session"), "micrograph.mrc") == Path("/session/picked/micrograph_picks.star")


def test_picks_are_read_the_best_first() -> None:
    found = read_picks(PRINTED / "picks_3_1_3.star")
    assert found.yx_px.shape == (56, 2)
    assert (np.diff(found.merit) <= 0).all()
    line = next(
        line.split() for line in (PRINTED / "picks_3_1_3.star").read_text().splitlines() if line[:1] == " " and line.strip()
    )
    x, y, merit = map(float, line[:3])
    index = int(np.argmin(np.abs(found.yx_px - (y, x)).sum(axis=1)))
    assert (found.yx_px[index].tolist(), found.merit[index]) == ([y, x], merit)


def test_a_table_without_rows_has_no_picks(tmp_path: Path) -> None:
    path = tmp_path / "picks.star"
    path.write_text(
        "\n# version 30001\n\ndata_\n\nloop_ \n_rlnCoordinateX #1 \n_rlnCoordinateY #2 \n_rlnAutopickFigureOfMerit #3 \n \n"
    )
    assert len(read_picks(path).merit) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data_\nloop_\n_rlnMicrographName #1\na.mrc\n", "no column rlnCoordinateX"),
        ("data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n", "rlnAutopickFigureOfMerit"),
        ("data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n1 x 2\n", "could not convert"),
        ("", "not a STAR file"),
    ],
)
def test_what_are_no_picks_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "picks.star"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=told):
        read_picks(path)


def test_relion_that_dies_of_an_empty_plot_has_done_its_work() -> None:
    nothing, some = ((PRINTED / f"{name}_3_1_3.txt").read_text() for name in ("log_nothing", "log"))
    assert (found_nothing(nothing), found_nothing(some)) == (True, False)
    assert (ended_well(-6, nothing), ended_well(-6, some), ended_well(0, some), ended_well(1, nothing)) == (
        True,
        False,
        True,
        False,
    )
