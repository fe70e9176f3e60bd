"""What a facility says about its batch system: one YAML file, checked before anything is submitted."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from icestream.documents import read_document
from icestream.errors import SessionError

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.,:@=+-]*$"
_WALLTIME = r"^(\d{1,3}-)?\d{1,3}:[0-5]\d:[0-5]\d$"

OneLine = Annotated[str, Field(pattern=r"^[^\n\r\x00]+$", max_length=1000)]
"""A line of a job script: no line break can smuggle in another."""

Directive = Annotated[str, Field(pattern=r"^--?[A-Za-z][^\n\r\x00]*$", max_length=300)]
"""An option of sbatch, ``--gres=gpu:1``."""


class ClusterSettings(BaseModel):
    """How jobs are submitted, how big they are, and how many there may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str | None = Field(None, pattern=_WORD, description="Partition (queue) that jobs are submitted to")
    account: str | None = Field(None, pattern=_WORD, description="Account that jobs are charged to")
    cores: int = Field(ge=1, description="Cores of a job; no step gets more")
    memory_gb: float = Field(gt=0, description="Memory of a job, in GiB")
    walltime: str = Field("08:00:00", pattern=_WALLTIME, description="Longest life of a job, [DAYS-]HOURS:MINUTES:SECONDS")
    gpus: int = Field(0, ge=0, description="GPUs of a job, asked for as --gres=gpu:N")
    directives: tuple[Directive, ...] = Field((), description="More options of sbatch, one each")
    setup: tuple[OneLine, ...] = Field((), description="Lines of the job script before the worker starts: module load …")
    minimum_jobs: int = Field(0, ge=0, description="Jobs that are kept even when there is nothing to do")
    maximum_jobs: int = Field(ge=1, description="The most jobs at a time")
    interface: str | None = Field(
        None, pattern=_WORD, description="Network interface of the nodes, such as ib0 or eth0; the default one if unset"
    )
    log_folder: Path | None = Field(None, description="Where jobs write their output; logs/cluster of the session if unset")
    scratch_folder: Path | None = Field(None, description="A folder on the nodes for small files of the workers; /tmp if unset")
    python: Path | None = Field(None, description="The Python on the nodes that has icestream; the one of the runner if unset")
    encrypt: bool = Field(
        True, description="Talk to the jobs by TLS, with keys made for each run; otherwise anyone on the network can"
    )
    orphan_s: int = Field(
        60, ge=5, description="Workers exit if they have had no contact with their runner for this long, in seconds"
    )

    @model_validator(mode="after")
    def _check_jobs(self) -> "ClusterSettings":
        if self.minimum_jobs > self.maximum_jobs:
            raise ValueError(f"minimum_jobs {self.minimum_jobs} is more than maximum_jobs {self.maximum_jobs}")
        return self

    @property
    def walltime_s(self) -> int:
        """The wall time in seconds."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = (int(part) for part in clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def read_cluster_settings(path: Path) -> ClusterSettings:
    """Return the settings in a YAML file.

    Raises
    ------
    SessionError
        The file cannot be read, or says something that is not allowed; every problem is named.
    """
    try:
        document = read_document(path)
    except ValueError as error:
        raise SessionError(f"cluster settings {path}: {error}") from None
    if not isinstance(document, dict):
        raise SessionError(f"cluster settings {path}: expected names and values, got {type(document).__name__}")
    try:
        return ClusterSettings.model_validate(document)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']} (got {one['input']!r:.200})" for one in error.errors()
        ]
        raise SessionError(f"cluster settings {path}: {'; '.join(problems)}") from error
