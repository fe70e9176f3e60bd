"""The machine that answers: processors, memory, disks, network, and GPUs where there are any."""

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from icestream.observe.metrics import names
from icestream.observe.metrics.families import Samples

_ANSWER_WITHIN_S = 5.0
GPUS_KEPT_S = 10.0
_ASKED = ("index", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu")
_MIB = 2**20


def ask_gpus() -> str:
    """Return what the driver says of the GPUs of this machine, a line each; empty where there is none, or it does not answer."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ""
    command = [smi, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_WITHIN_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


@dataclass
class HostReader:
    """Reads the state of this machine; the GPUs are asked only now and then, because asking takes long."""

    ask: Callable[[], str] = ask_gpus
    clock: Callable[[], float] = time.monotonic
    _gpus: str = ""
    _asked_at: float = field(default=float("-inf"))

    def read(self) -> Samples:
        """Return the samples of this machine."""
        samples, host = Samples(), socket.gethostname()
        samples.add(names.HOST_CORES, psutil.cpu_count(), host)
        times = psutil.cpu_times()
        for mode in ("user", "system", "idle", "iowait"):
            samples.add(names.HOST_CPU, getattr(times, mode, None), host, mode)
        samples.add(names.HOST_LOAD, psutil.getloadavg()[0], host)
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        for state, value in (("total", memory.total), ("available", memory.available)):
            samples.add(names.HOST_MEMORY, value, host, state)
        for state, value in (("total", swap.total), ("used", swap.used)):
            samples.add(names.HOST_SWAP, value, host, state)
        disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
        if disk is not None:
            samples.add(names.HOST_DISK, disk.read_bytes, host, "read")
            samples.add(names.HOST_DISK, disk.write_bytes, host, "written")
        if network is not None:
            samples.add(names.HOST_NETWORK, network.bytes_recv, host, "received")
            samples.add(names.HOST_NETWORK, network.bytes_sent, host, "sent")
        self._add_gpus(samples, host)
        return samples

    def _add_gpus(self, samples: Samples, host: str) -> None:
        if self.clock() - self._asked_at >= GPUS_KEPT_S:
            self._gpus, self._asked_at = self.ask(), self.clock()
        for gpu, *told in csv.reader(self._gpus.splitlines(), skipinitialspace=True):
            use, used, total, temperature = (_number(text) for text in told)
            samples.add(names.GPU_USE, None if use is None else use / 100, host, gpu)
            samples.add(names.GPU_MEMORY, None if used is None else used * _MIB, host, gpu, "used")
            samples.add(names.GPU_MEMORY, None if total is None else total * _MIB, host, gpu, "total")
            samples.add(names.GPU_TEMPERATURE, temperature, host, gpu)


def _number(text: str) -> float | None:
    """Return a number; what a driver does not know is written in words."""
    try:
        return float(text)
    except ValueError:
        return None
