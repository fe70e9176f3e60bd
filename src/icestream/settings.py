"""Where and with what a machine processes: facility settings, from environment variables (``ICESTREAM_…``)."""

import os
from pathlib import Path

import psutil
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from icestream.account import state_folder
from icestream.logs import LogLevel


class Settings(BaseSettings):
    """What belongs to the machine, never to the science."""

    model_config = SettingsConfigDict(env_prefix="ICESTREAM_", frozen=True)

    cores: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="Cores that one runner may use")
    memory_gb: float | None = Field(None, gt=0, description="Memory that one runner may use; unset: nine tenths of the machine's")
    newest_first: bool = Field(False, description="When behind, process the newest exposures first")
    drain_s: float = Field(30.0, ge=0, description="How long a stopping runner waits for running steps")
    min_free_gb: float = Field(1.0, ge=0, description="Pause while the disk of a session has less free space than this")
    rebuild_fraction: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Rebuild classes (or another accumulated result) once this fraction of what went in has been taken out",
    )
    cancel_grace_s: float = Field(10.0, ge=0, description="How long a step that was asked to end may take before it is killed")
    image_memory_mb: int = Field(512, ge=0, description="Images a worker keeps, so that the next step need not read them")

    record_memory_mb: int = Field(256, ge=1, description="Records that a runner keeps, so that the next step need not read them")
    gpus: str | None = Field(None, description="GPUs as index:GB, such as '0:24,1:24'; empty: none; unset: as the driver reports")
    ledger: str | None = Field(
        None,
        description="File in which the runners of this machine agree on who holds what; unset: one for each user; empty: none",
    )
    programs: Path | None = Field(
        None, description="File that says how programs of other people are run, a YAML file; unset: as they are found in PATH"
    )
    scratch: Path | None = Field(
        None, description="Folder on a local disk for the private folders of programs; unset: `work` in the session"
    )
    keep_failed_work: bool = Field(False, description="Keep the private folder of a call that failed, to look at it")
    log_level: LogLevel = Field("info", description="What is written to the log of a session: this level and those above it")
    alarms: Path | None = Field(
        None, description="File with the facility's rules of alarms, and the channels they are sent to, a YAML file"
    )
    storage: Path | None = Field(
        None, description="File with the facility's rules of what is removed from sessions, by kind and age, a YAML file"
    )
    oidc: Path | None = Field(
        None,
        description="File that says at which provider of accounts (OpenID Connect) people sign in, and what their groups may do",
    )
    templates: str = Field(
        "",
        description="Folders of the facility's own templates, separated as in PATH; the pages save new ones in the last of them; "
        "empty: `templates` in the folder of `ICESTREAM_STATE`",
    )
    report_templates: Path | None = Field(
        None, description="Folder with the facility's own templates, style and settings (report.yaml) of the report"
    )
    session_report_templates: bool = Field(
        False,
        description="Use the templates, style and settings of the report that a session brings in its folder `report-templates`; "
        "a session that came from elsewhere could keep a core busy with them",
    )
    raw_folders: str = Field(
        "",
        description="Folders below which `icestream serve` lets people choose raw data for new sessions, separated as in PATH; "
        "empty: the folder that is served",
    )
    drawings_gb: float = Field(
        2.0,
        gt=0,
        description="What pictures in full resolution and of single particles, drawn for `icestream serve`, may take in the "
        "folder of `ICESTREAM_STATE`; those that nobody has looked at for longest leave first",
    )
    session_group: str | None = Field(
        None,
        description="Group that new sessions, and all that is made in them, belong to; unset: that of the account",
    )
    session_mode: str | None = Field(
        None,
        pattern="^[0-7]{3,4}$",
        description="Permissions of the folder of a new session, in octal, such as 770; unset: by `umask`",
    )
    umask: str | None = Field(
        None,
        pattern="^0?[0-7]{3}$",
        description="Permissions that files of sessions do not get, in octal: 007 lets the group write and nobody else read; "
        "unset: that of who calls `icestream`",
    )
    state: Path = Field(
        default_factory=lambda: state_folder() / "icestream",
        description="Folder where `icestream watch` remembers what it has seen, and `icestream access` who may sign in; "
        "on a local disk",
    )

    @property
    def template_folders(self) -> tuple[str, ...]:
        """The folders of the facility's own templates; later ones win."""
        return tuple(filter(None, self.templates.split(os.pathsep))) or (str(self.state / "templates"),)

    @property
    def usable_memory_gb(self) -> float:
        """The memory that running steps may ask for together."""
        return self.memory_gb or 0.9 * psutil.virtual_memory().total / 2**30
