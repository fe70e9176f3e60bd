"""How a RELION 3.1 project looks on disk: jobs, tables and the pipeline file; pure functions that return texts and tables.

RELION reads the rows of an MRC file as stored, so coordinates and angles are ours unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from icestream.io.star import Table
from icestream.records import CtfFit, Motion, Record


@dataclass(frozen=True)
class Job:
    """One job of the project; types are the numbers RELION 3.1 gives to processes and nodes (later versions read them too)."""

    folder: str
    type: int
    star: str
    node_type: int

    @property
    def path(self) -> str:
        """Return the job's main table, relative to the project."""
        return f"{self.folder}/{self.star}"


MOTION = Job("MotionCorr/job001", 1, "corrected_micrographs.star", 1)
CTF = Job("CtfFind/job002", 2, "micrographs_ctf.star", 1)
EXTRACT = Job("Extract/job003", 5, "particles.star", 3)


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
                "rlnCtfDataAreCtfPremultiplied": "0",
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
    """Return the rows of one micrograph's particles in ``particles.star``; row ``i`` is slice ``i + 1`` of ``stack``."""
    rows = []
    for index, particle in enumerate(table, start=1):
        row = {
            "rlnCoordinateX": number(particle["x_px"]),
            "rlnCoordinateY": number(particle["y_px"]),
            "rlnAutopickFigureOfMerit": number(particle["score"]),
            "rlnImageName": f"{index:06d}@{stack}",
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


def to_table(rows: list[dict[str, str]]) -> Table:
    """Return rows of the same labels as a table."""
    return Table({label: [row[label] for row in rows] for label in rows[0]})


def pipeline_tables(jobs: list[Job]) -> dict[str, Table]:
    """Return ``default_pipeline.star`` for ``jobs``, each fed by the one before it; all have succeeded."""
    edges = list(pairwise(jobs))
    return {
        "pipeline_general": Table({"rlnPipeLineJobCounter": [str(int(EXTRACT.folder[-3:]) + 1)]}, is_list=True),
        "pipeline_processes": Table(
            {
                "rlnPipeLineProcessName": [f"{job.folder}/" for job in jobs],
                "rlnPipeLineProcessAlias": ["None"] * len(jobs),
                "rlnPipeLineProcessType": [str(job.type) for job in jobs],
                "rlnPipeLineProcessStatus": ["2"] * len(jobs),
            }
        ),
        "pipeline_nodes": Table(
            {"rlnPipeLineNodeName": [job.path for job in jobs], "rlnPipeLineNodeType": [str(job.node_type) for job in jobs]}
        ),
        "pipeline_input_edges": Table(
            {
                "rlnPipeLineEdgeFromNode": [before.path for before, _ in edges],
                "rlnPipeLineEdgeProcess": [f"{after.folder}/" for _, after in edges],
            }
        ),
        "pipeline_output_edges": Table(
            {"rlnPipeLineEdgeProcess": [f"{job.folder}/" for job in jobs], "rlnPipeLineEdgeToNode": [job.path for job in jobs]}
        ),
    }


def job_tables(job: Job) -> dict[str, Table]:
    """Return the ``job.star`` of a job."""
    return {"job": Table({"rlnJobType": [str(job.type)], "rlnJobIsContinue": ["0"]}, is_list=True)}
