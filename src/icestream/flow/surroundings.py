"""What a session needs of its machine: room on its disk, a folder that can be written, raw data that are still there."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from icestream.flow.session import Session

_PROBE_BYTES = 65536


@dataclass
class Surroundings:
    """Looks around; remembers which folders of raw data were there, and on which file system."""

    session: Session
    min_free_gb: float
    devices: dict[str, int] = field(default_factory=dict)
    """Folder of raw data → the file system it was on when it was first seen."""

    def trouble(self) -> str | None:
        """Return why nothing can be processed at present, or None."""
        return self._disk() or self._raw_data()

    def _disk(self) -> str | None:
        store = self.session.store_at
        for folder in {self.session.folder, *([store.parent] if isinstance(store, Path) else [])}:
            if not folder.is_dir():
                return f"{folder}: is not there any more"
            try:
                free_gb = shutil.disk_usage(folder).free / 2**30
            except OSError as error:
                return f"{folder}: cannot be looked at: {error.strerror}"
            if free_gb < self.min_free_gb:
                return f"{folder}: less than {self.min_free_gb:g} GB free (setting min_free_gb)"
        return self._unwritable()

    def _unwritable(self) -> str | None:
        probe = self.session.folder / f".probe_{os.getpid()}"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
            probe.unlink()
        except OSError as error:
            return f"{self.session.folder}: cannot be written: {error.strerror}"
        return None

    def _raw_data(self) -> str | None:
        for name, root in self.session.roots.items():
            device = _device_of(Path(root))
            known = self.devices.get(root)
            if known is None and device is not None:
                self.devices[root] = device
            elif known is not None and device is None:
                return f"{root} ({name}): was there and is not any more"
            elif known is not None and device != known:
                return f"{root} ({name}): is on another file system than before; was the disk unmounted?"
        return None


def _device_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None
