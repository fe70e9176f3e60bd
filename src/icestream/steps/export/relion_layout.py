"""How a RELION 3.1 project looks on disk: jobs and tables; pure functions that return texts and tables.

RELION reads the rows of an MRC file as stored, so coordinates and angles are ours unchanged.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from icestream.io.star import Table
from icestream.records import CtfFit, Motion, Record
from icestream.steps.export.relion_pipeline import Job

MOTION = Job(
    "MotionCorr/job001",
    1,
    "relion.motioncorr",
    "corrected_micrographs.star",
    1,
    "MicrographGroupMetadata.star.relion.motioncorr",
)
CTF = Job("CtfFind/job002", 2, "relion.ctffind", "micrographs_ctf.star", 1, "MicrographGroupMetadata.star.relion.ctf")
EXTRACT = Job("Extract/job003", 5, "relion.extract", "particles.star", 3, "ParticleGroupMetadata.star.relion")
PARTICLE_IDS = Job(".icestream", 0, "", "particle_ids.star", 0, "")
"""Which particles the rows of the extraction job are, row by row; it is of no job, so RELION does not list it."""
PICK_NUMBER = 4
"""The number of the picking job, unless a job of somebody else has it."""
NEXT_NUMBER = PICK_NUMBER + 1
COORDINATES_SUFFIX = "_autopick.star"


def pick_job(number: int) -> Job:
    """Return the picking job with this number.

    RELION 3.1 is given a file that names the micrographs, and looks for the coordinates of each by its suffix; later versions are
    given the table of these files.
    """
    label = "MicrographCoordsGroup.star.relion.autopick"
    return Job(f"AutoPick/job{number:03d}", 4, "relion.autopick", "autopick.star", 2, label, f"coords_suffix{COORDINATES_SUFFIX}")


class OpticsGroup(Record):
    """Values that exposures share; exposures with other values are another group, numbered from 1 in the order they came."""

    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    raw_pixel_size_ang: float
    bin: float
    finer: int = 1
    box_px: int | None = None
    particle_bin: float | None = None
    premultiplied: bool = False

    @property
    def movie_pixel_size_ang(self) -> float:
        """Pixel size of the frames as they were read (EER: after upsampling)."""
        return self.raw_pixel_size_ang / self.finer


def optics_table(groups: Sequence[OpticsGroup], *, particles: bool = False) -> Table:
    """Return ``data_optics`` for micrographs, or for particles: then of the groups that have some."""
    rows = []
    for index, group in enumerate(groups, start=1):
        if particles and (group.box_px is None or group.particle_bin is None):
            continue
        row = {
            "rlnOpticsGroupName": f"opticsGroup{index}",
            "rlnOpticsGroup": str(index),
            "rlnMicrographOriginalPixelSize": number(group.movie_pixel_size_ang),
            "rlnVoltage": number(group.voltage_kv),
            "rlnSphericalAberration": number(group.cs_mm),
            "rlnAmplitudeContrast": number(group.amplitude_contrast),
        }
        if particles:
            row |= {
                "rlnImagePixelSize": number(group.raw_pixel_size_ang * (group.particle_bin or 1.0)),
                "rlnImageSize": str(group.box_px),
                "rlnImageDimensionality": "2",
                "rlnCtfDataAreCtfPremultiplied": "1" if group.premultiplied else "0",
            }
        else:
            row["rlnMicrographPixelSize"] = number(group.raw_pixel_size_ang * group.bin)
        rows.append(row)
    return to_table(rows)


def number(value: float) -> str:
    """Return ``value`` as RELION writes it, always the same text for the same number."""
    return f"{value:.6f}"


def micrograph_row(image: str, metadata: str, motion: Motion | None, *, group: int) -> dict[str, str]:
    """Return the row of one micrograph in ``corrected_micrographs.star``; motion is in raw pixels."""
    total, early = (motion.total_px, motion.early_px) if motion else (0.0, 0.0)
    return {
        "rlnMicrographName": image,
        "rlnMicrographMetadata": metadata,
        "rlnOpticsGroup": str(group),
        "rlnAccumMotionTotal": number(total),
        "rlnAccumMotionEarly": number(early),
        "rlnAccumMotionLate": number(total - early),
    }


def ctf_row(image: str, ctf: CtfFit, *, group: int) -> dict[str, str]:
    """Return the row of one micrograph in ``micrographs_ctf.star``."""
    return {
        "rlnMicrographName": image,
        "rlnOpticsGroup": str(group),
        "rlnDefocusU": number(ctf.defocus_u_ang),
        "rlnDefocusV": number(ctf.defocus_v_ang),
        "rlnCtfAstigmatism": number(abs(ctf.defocus_u_ang - ctf.defocus_v_ang)),
        "rlnDefocusAngle": number(ctf.astigmatism_angle_deg),
        "rlnPhaseShift": number(ctf.phase_shift_deg),
        "rlnCtfFigureOfMerit": number(ctf.score),
        "rlnCtfMaxResolution": number(ctf.resolution_ang),
    }


def particle_rows(table: NDArray[Any], image: str, stack: str, *, group: int, with_ctf: bool) -> list[dict[str, str]]:
    """Return the rows of one micrograph's particles in ``particles.star``; RELION counts the slices of ``stack`` from 1."""
    rows = []
    for particle in table:
        row = {
            "rlnCoordinateX": number(particle["x_px"]),
            "rlnCoordinateY": number(particle["y_px"]),
            "rlnAutopickFigureOfMerit": number(particle["score"]),
            "rlnImageName": f"{particle['slice'] + 1:06d}@{stack}",
            "rlnMicrographName": image,
            "rlnOpticsGroup": str(group),
        }
        if with_ctf:
            row |= {
                "rlnDefocusU": number(particle["defocus_u_ang"]),
                "rlnDefocusV": number(particle["defocus_v_ang"]),
                "rlnDefocusAngle": number(particle["astigmatism_angle_deg"]),
                "rlnPhaseShift": number(particle["phase_shift_deg"]),
            }
        rows.append(row)
    return rows


def id_rows(key: str, pids: Sequence[int]) -> list[dict[str, str]]:
    """Return the rows that say which particles of an exposure its rows in ``particles.star`` are."""
    return [{"icestreamParticles": key, "icestreamPid": str(pid)} for pid in pids]


def to_table(rows: list[dict[str, str]]) -> Table:
    """Return rows of the same labels as a table."""
    return Table({label: [row[label] for row in rows] for label in rows[0]})


def coordinates_table(table: NDArray[Any]) -> Table:
    """Return the picks of one micrograph, as RELION keeps them."""
    return Table(
        {
            "rlnCoordinateX": [number(value) for value in table["x_px"]],
            "rlnCoordinateY": [number(value) for value in table["y_px"]],
            "rlnAutopickFigureOfMerit": [number(value) for value in table["score"]],
        }
    )


def job_tables(job: Job) -> dict[str, Table]:
    """Return the ``job.star`` of a job."""
    return {"job": Table({"rlnJobType": [str(job.type)], "rlnJobIsContinue": ["0"]}, is_list=True)}
