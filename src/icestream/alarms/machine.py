"""Sampling the machine: processor, memory, disk, network, and GPUs where NVIDIA's driver is."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from icestream.alarms.observations import Gpu, Sample

_QUERY = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu"
_PATIENCE_S = 10.0
STANDS_S = 5.0
_MB = 1e6
_GB = 1e9


class _Counters(NamedTuple):
    at: float
    busy_s: float
    all_s: float
    disk_read: float
    disk_write: float
    network_in: float
    network_out: float


def read_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that NVIDIA's driver reports; none where it is not installed or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_gpus(done.stdout) if done.returncode == 0 else ()


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of nvidia-smi's table; what it calls not available is unset."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 6 or not cells[0].isdigit():
            continue
        use, used, total, temperature = (_number(cell) for cell in cells[-4:])
        memory = 100 * used / total if used is not None and total else None
        name = ", ".join(cells[1:-4])
        found.append(Gpu(index=int(cells[0]), name=name, use_percent=use, memory_percent=memory, temperature_c=temperature))
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass
class Sampler:
    """Samples the machine; rates are means since the sample before, so the first one has none.

    Whoever observes many sessions samples for each of them; the machine is looked at once in `STANDS_S`.
    """

    clock: Callable[[], float] = time.time
    gpus: Callable[[], tuple[Gpu, ...]] = read_gpus
    _before: _Counters | None = field(default=None)
    _last: Sample | None = field(default=None)

    def sample(self, folder: Path) -> Sample:
        """Return the state of the machine, and of the disk that holds ``folder``."""
        now, last = self.clock(), self._last
        if last is None or not 0 <= now - last.at < STANDS_S:
            last = self._last = self._look()
        return last.model_copy(update={"at": now, **_disk(folder)})

    def _look(self) -> Sample:
        now, before = self._count(), self._before
        self._before = now
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        sample = Sample(
            at=now.at,
            host=socket.gethostname(),
            memory_percent=memory.percent,
            swap_percent=swap.percent if swap.total else None,
            gpus=self.gpus(),
        )
        if before is None or now.at <= before.at:
            return sample
        seconds, all_s = now.at - before.at, now.all_s - before.all_s
        rates = {
            "disk_read_mb_s": now.disk_read - before.disk_read,
            "disk_write_mb_s": now.disk_write - before.disk_write,
            "network_in_mb_s": now.network_in - before.network_in,
            "network_out_mb_s": now.network_out - before.network_out,
        }
        told: dict[str, float | None] = {name: max(0.0, count) / _MB / seconds for name, count in rates.items()}
        told["cpu_percent"] = 100 * max(0.0, now.busy_s - before.busy_s) / all_s if all_s > 0 else None
        return sample.model_copy(update=told)

    def _count(self) -> _Counters:
        times = psutil.cpu_times()
        all_s = float(sum(times)) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
        return _Counters(
            at=self.clock(),
            busy_s=all_s - idle_s,
            all_s=all_s,
            disk_read=0.0 if disk is None else disk.read_bytes,
            disk_write=0.0 if disk is None else disk.write_bytes,
            network_in=0.0 if network is None else network.bytes_recv,
            network_out=0.0 if network is None else network.bytes_sent,
        )


def _disk(folder: Path) -> dict[str, float]:
    try:
        usage = psutil.disk_usage(str(folder))
    except OSError:  # it is away at this moment
        return {}
    return {"disk_percent": usage.percent, "disk_free_gb": usage.free / _GB}
