"""The folder of a job in a RELION project: what every job has, and a Class2D job with classes that were found here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish_text
from icestream.io.star import Table, write_star
from icestream.records import ClassInfo
from icestream.steps.export.relion_layout import job_tables, number, to_table
from icestream.steps.export.relion_pipeline import Job

ROOT_NAME = "run_it025"
"""What RELION calls the files of a finished 2D classification of 25 iterations, the usual number."""
_WORST_ANG = 999.0


def write_job(project: Path, job: Job, *, note: str) -> None:
    """Write what RELION keeps in the folder of a finished job."""
    folder = project / job.folder
    if not (folder / "RELION_JOB_EXIT_SUCCESS").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_star(folder / "job.star", job_tables(job))
        publish_text(folder / "note.txt", note)
        publish_text(folder / "RELION_JOB_EXIT_SUCCESS", "")


def touch_nodes(project: Path, job: Job) -> None:
    """Make the empty files by which RELION 3.1 offers what a job made."""
    for name, kind, _ in job.typed_nodes:
        node = project / ".Nodes" / str(kind) / name
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()


def class2d_job(job_number: int) -> Job:
    """Return the Class2D job with this number."""
    return Job(
        f"Class2D/job{job_number:03d}",
        8,
        "relion.class2d",
        f"{ROOT_NAME}_data.star",
        3,
        "ParticleGroupMetadata.star.relion.class2d",
        further=((f"{ROOT_NAME}_model.star", 8, "ProcessData.star.relion.class2d"),),
    )


def class_rows(particles: Table, rows: NDArray[Any], at: NDArray[np.int64], *, pixel_size_ang: NDArray[np.float64]) -> Table:
    """Return the rows ``at`` of RELION's particles with the class and pose that ``rows`` say of them, in the same order.

    ``class_id`` of a row is the place of its class, from 0. RELION turns from y towards x, and an origin is minus a shift.
    """
    kept = {name: [values[i] for i in at.tolist()] for name, values in particles.columns.items() if name not in _POSE}
    pose = {
        "rlnClassNumber": [str(one + 1) for one in rows["class_id"].tolist()],
        "rlnAnglePsi": [number(-float(one)) for one in rows["psi_deg"]],
        "rlnOriginXAngst": [number(-float(one) * float(p)) for one, p in zip(rows["shift_x_px"], pixel_size_ang, strict=True)],
        "rlnOriginYAngst": [number(-float(one) * float(p)) for one, p in zip(rows["shift_y_px"], pixel_size_ang, strict=True)],
        "rlnMaxValueProbDistribution": [number(float(one)) for one in rows["probability"]],
        "rlnLogLikeliContribution": [number(float(one)) for one in rows["score"]],
    }
    return Table({**kept, **pose})


_POSE = {
    "rlnClassNumber",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnMaxValueProbDistribution",
    "rlnLogLikeliContribution",
}


_GENERAL = {
    "rlnReferenceDimensionality": "2",
    "rlnDataDimensionality": "2",
    "rlnPaddingFactor": "2",
    "rlnIsHelix": "0",
    "rlnFourierSpaceInterpolator": "1",
    "rlnMinRadiusNnInterpolation": "10",
    "rlnNrBodies": "1",
    "rlnNrGroups": "1",
    "rlnTau2FudgeFactor": "1",
    "rlnNormCorrectionAverage": "1",
    "rlnSigmaOffsetsAngst": "3",
    "rlnOrientationalPriorMode": "0",
    "rlnSigmaPriorRotAngle": "0",
    "rlnSigmaPriorTiltAngle": "0",
    "rlnSigmaPriorPsiAngle": "0",
    "rlnLogLikelihood": "0",
    "rlnAveragePmax": "0",
}


def model_tables(
    classes: Sequence[ClassInfo], counts: NDArray[np.int64], *, stack: str, box_px: int, pixel_size_ang: float
) -> dict[str, Table]:
    """Return the ``model.star`` of a Class2D job; class ``k`` of RELION is slice ``k`` of ``stack``."""
    total = max(1, int(counts.sum()))
    best = min((info.resolution_ang for info in classes if info.resolution_ang), default=_WORST_ANG)
    values = {
        **_GENERAL,
        "rlnOriginalImageSize": str(box_px),
        "rlnCurrentImageSize": str(box_px),
        "rlnCurrentResolution": number(best),
        "rlnPixelSize": number(pixel_size_ang),
        "rlnNrClasses": str(len(classes)),
    }
    general = Table({name: [value] for name, value in values.items()}, is_list=True)
    rows = [
        {
            "rlnReferenceImage": f"{place + 1:06d}@{stack}",
            "rlnClassDistribution": number(float(counts[place]) / total),
            "rlnAccuracyRotations": number(_WORST_ANG),
            "rlnAccuracyTranslationsAngst": number(_WORST_ANG),
            "rlnEstimatedResolution": number(info.resolution_ang or _WORST_ANG),
            "rlnOverallFourierCompleteness": number(1.0 if counts[place] else 0.0),
            "rlnClassPriorOffsetX": number(0.0),
            "rlnClassPriorOffsetY": number(0.0),
        }
        for place, info in enumerate(classes)
    ]
    return {"model_general": general, "model_classes": to_table(rows)}
