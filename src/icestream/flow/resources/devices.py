"""Which GPUs there are: as the settings say, otherwise as the driver reports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from icestream.errors import SessionError

_ANSWER_WITHIN_S = 20.0
_USABLE = 0.9  # of the memory that the driver tells: contexts and displays take some
_MOST_GPUS = 64
_DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg")
_ASK_CUDA = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for index in range(count.value):
        if cuda.cuDeviceGet(ctypes.byref(device), index) == 0 and cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0:
            print(f"{index}, {size.value // 2**20}")
"""


def find_gpus(setting: str | None) -> dict[int, float]:
    """Return the memory in GB of each GPU by its index, as `nvidia-smi` counts them.

    Parameters
    ----------
    setting
        ``"0:24,1:24"`` (index:GB); the empty text means none; None asks the driver. GPUs that ``CUDA_VISIBLE_DEVICES`` hides from
        this process are left out.

    Raises
    ------
    SessionError
        The setting cannot be read.
    """
    if setting is not None:
        return parse_gpus(setting)
    found = {index: round(_USABLE * size_mb / 1024, 1) for index, size_mb in _ask_driver().items()}
    visible = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    return {index: size_gb for index, size_gb in found.items() if visible is None or index in visible}


def parse_gpus(setting: str) -> dict[int, float]:
    """Return index → GB of a setting like ``"0:24,1:24"``.

    Raises
    ------
    SessionError
        The text is no such list.
    """
    found: dict[int, float] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        match = re.fullmatch(r"(\d{1,3})\s*:\s*(\d{1,6}(?:\.\d+)?)", part)
        if match is None or int(match[1]) in found or float(match[2]) <= 0:
            raise SessionError(f"ICESTREAM_GPUS is {setting!r}: {part!r} is not index:GB, each index once, as in '0:24,1:24'")
        found[int(match[1])] = float(match[2])
    if len(found) > _MOST_GPUS:
        raise SessionError(f"ICESTREAM_GPUS names {len(found)} GPUs; at most {_MOST_GPUS} are allowed")
    return found


def visible_gpus(value: str | None) -> set[int] | None:
    """Return the indices that ``CUDA_VISIBLE_DEVICES`` shows, or None if it does not say (unset, or given by name)."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not all(part.lstrip("-").isdigit() for part in parts):
        return None
    shown = [int(part) for part in parts]
    return set(shown[: shown.index(-1)] if -1 in shown else shown)


def _ask_driver() -> dict[int, int]:
    """Return index → MiB, asked of another process: a broken driver may hang or crash who asks it."""
    if not any(Path(name).exists() for name in _DRIVER_FILES):
        return {}
    smi = shutil.which("nvidia-smi")
    commands = [[sys.executable, "-I", "-c", _ASK_CUDA]]
    if smi is not None:
        commands.insert(0, [smi, "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"])
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    for command in commands:
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_WITHIN_S, check=False, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = read_answer(said.stdout) if said.returncode == 0 else {}
        if found:
            return found
    return {}


def read_answer(text: str) -> dict[int, int]:
    """Return index → MiB from lines like ``0, 24576``; other lines are left out."""
    matches = (re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)(?:\s*MiB)?\s*", line) for line in text.splitlines())
    return {int(match[1]): int(match[2]) for match in matches if match is not None}
