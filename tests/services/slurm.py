"""A real Slurm on one machine, for tests: controller, node daemon and munge of our own, in a folder, gone when the block ends.

Needs Debian's packages ``slurmctld slurmd slurm-client munge`` and root; nothing in ``/etc`` is read or changed.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
_READY_S = 60.0

_CONFIGURATION = """\
ClusterName=icestream
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_for_slurm() -> str | None:
    """Return why a Slurm cannot be started here, or None if it can."""
    if os.geteuid() != 0:
        return "a Slurm of our own needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)} (scripts/install-services.sh)" if missing else None


@contextmanager
def single_node_slurm(folder: Path, *, cores: int = 4, memory_mb: int = 4000) -> Iterator[dict[str, str]]:
    """Start a Slurm with one node and a partition ``main``; give the environment that its programs need.

    Raises
    ------
    RuntimeError
        It did not come up; the last lines of its logs are in the message.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    text = _CONFIGURATION.format(folder=folder, host=host, cores=cores, memory_mb=memory_mb, **ports)
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    with ExitStack() as stack:
        files = {"key": "key", "socket": "socket", "pid": "pid", "log": "log", "seed": "seed"}
        options = [f"--{name}{'' if name == 'socket' else '-file'}={folder}/munge.{end}" for name, end in files.items()]
        stack.enter_context(_daemon(folder, "munged", ["--foreground", "--force", *options], environment))
        _wait_for(folder, (folder / "munge.socket").exists)
        stack.enter_context(_daemon(folder, "slurmctld", ["-D", "-c"], environment))
        stack.enter_context(_daemon(folder, "slurmd", ["-D", "-N", host], environment))
        _wait_for(folder, lambda: _node_state(environment) == "idle")
        yield environment
        subprocess.run([_path("scancel"), "--user=root"], env=environment, check=False, timeout=30)
        _wait_for(folder, lambda: not running_jobs(environment))


def running_jobs(environment: dict[str, str]) -> list[str]:
    """Return the ids of the jobs that Slurm still knows as waiting, running or ending."""
    asked = subprocess.run(
        [_path("squeue"), "--noheader", "--format=%i"], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return asked.stdout.split()


def _path(program: str) -> str:
    return shutil.which(program) or program


@contextmanager
def _daemon(folder: Path, program: str, arguments: list[str], environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{program}.out").open("wb") as said:
        process = subprocess.Popen([_path(program), *arguments], env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _node_state(environment: dict[str, str]) -> str:
    asked = subprocess.run(
        [_path("sinfo"), "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return asked.stdout.strip()


def _wait_for(folder: Path, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while not condition():
        if time.monotonic() > deadline:
            logs = [path for path in sorted(folder.iterdir()) if path.suffix in (".log", ".out")]
            said = "\n".join(path.read_text(errors="replace")[-800:] for path in logs)
            raise RuntimeError(f"Slurm is not as expected:\n{said}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
