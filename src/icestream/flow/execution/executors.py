"""Choosing where steps run, by name; what a choice needs is imported only then."""

from pathlib import Path
from typing import Literal

from icestream.errors import SessionError
from icestream.flow.execution.executor import Executor
from icestream.flow.storage import Session

ExecutorName = Literal["local", "dask", "slurm"]
"""Where steps can run."""


def open_executor(
    name: ExecutorName, session: Session, *, scheduler: str | None = None, cluster_settings: Path | None = None
) -> Executor | None:
    """Return what runs the steps of a session, connected and ready; None means the processes of this machine.

    Raises
    ------
    SessionError
        Something that the choice needs is missing, or cannot be reached.
    """
    misuse = find_misuse(name, scheduler=scheduler, cluster_settings=cluster_settings)
    if misuse is not None:
        raise SessionError(misuse)
    if name == "local":
        return None
    try:
        return _open_cluster(name, session, scheduler or "", cluster_settings or Path())
    except ModuleNotFoundError as error:
        raise SessionError(f"--executor {name} needs {error.name}: install icestream-em[cluster]") from error


def find_misuse(name: ExecutorName, *, scheduler: str | None, cluster_settings: Path | None) -> str | None:
    """Return what does not go together in a choice, or None."""
    needs = {"dask": ("--scheduler", scheduler), "slurm": ("--cluster-settings", cluster_settings)}
    for other, (option, value) in needs.items():
        if other != name and value is not None:
            return f"{option} is only for --executor {other}; the executor is {name}"
        if other == name and value is None:
            return f"--executor {name} needs {option}"
    return None


def _open_cluster(name: ExecutorName, session: Session, scheduler: str, cluster_settings: Path) -> Executor:
    if name == "dask":
        from icestream.flow.execution.dask_executor import DaskExecutor
        from icestream.flow.execution.dask_link import Link, connect_to

        return DaskExecutor(Link(scheduler, connect_to(scheduler)))
    from icestream.flow.execution.cluster_settings import read_cluster_settings
    from icestream.flow.execution.slurm import SlurmExecutor

    return SlurmExecutor(read_cluster_settings(cluster_settings), log_folder=session.folder / "logs" / "cluster")
