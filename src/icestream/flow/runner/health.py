"""What a session needs of its machine: room on its disks, folders that can be written, results and raw data still there."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from icestream.flow.declaration import RESULTS
from icestream.flow.storage import Session, schema

_PROBE_BYTES = 65536
_OTHER_DISK = "is on a different file system than before; was the disk unmounted?"


@dataclass
class Health:
    """Looks around; remembers which folders of results and raw data were there, and on which file system."""

    session: Session
    min_free_gb: float
    devices: dict[str, int] = field(default_factory=dict)
    """Folder of results or raw data → the file system it was on when it was first seen."""
    has_results: bool = False
    """The store names files below the folder of results."""

    @property
    def results_folder(self) -> Path:
        """Where the results are."""
        return self.session.folder / RESULTS

    def expect_results(self, connection: Connection) -> None:
        """Make the folder of results of a session that has none yet; from now on that folder has to be there."""
        record = schema.result.c.record
        named = select(schema.result.c.key).where(record.contains(f"session:{RESULTS}/")).limit(1)
        self.has_results = connection.execute(named).first() is not None
        folder = self.results_folder
        known = self.has_results or str(folder) in self.devices or not self.session.folder.is_dir()
        if not known and not os.path.lexists(folder):  # a link to a disk that is away is not replaced
            folder.mkdir(exist_ok=True)

    def trouble(self) -> str | None:
        """Return why nothing can be processed at present, or None."""
        return self._disk() or self.results_trouble() or self._unwritable() or self._raw_data()

    def results_trouble(self) -> str | None:
        """Return why the folder of results cannot be used, or None."""
        folder = self.results_folder
        device, known = _device_of(folder), self.devices.get(str(folder))
        if device is None:
            missed = known is not None or self.has_results
            return f"{folder}: the folder of results is missing" if missed else None
        if known is not None:
            return None if device == known else f"{folder}: {_OTHER_DISK}"
        try:
            empty = not any(folder.iterdir())
        except OSError as error:
            return f"{folder}: cannot be accessed: {error.strerror}"
        if self.has_results and empty:
            return f"{folder}: is empty although the session has results; was the disk unmounted?"
        self.devices[str(folder)] = device
        return None

    def _disk(self) -> str | None:
        store = self.session.store_at
        needed = [self.session.folder, *([store.parent] if isinstance(store, Path) else [])]
        for folder in dict.fromkeys([*needed, *self._results_if_there()]):
            if not folder.is_dir():
                return f"{folder}: is missing"
            try:
                free_gb = shutil.disk_usage(folder).free / 2**30
            except OSError as error:
                return f"{folder}: cannot be accessed: {error.strerror}"
            if free_gb < self.min_free_gb:
                return f"{folder}: less than {self.min_free_gb:g} GB free (setting min_free_gb)"
        return None

    def _results_if_there(self) -> list[Path]:
        return [self.results_folder] if self.results_folder.is_dir() else []

    def _unwritable(self) -> str | None:
        for folder in [self.session.folder, *self._results_if_there()]:
            probe = folder / f".probe_{os.getpid()}"
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
                probe.unlink()
            except OSError as error:
                return f"{folder}: cannot be written to: {error.strerror}"
        return None

    def _raw_data(self) -> str | None:
        for name, root in self.session.roots.items():
            device = _device_of(Path(root))
            known = self.devices.get(root)
            if known is None and device is not None:
                self.devices[root] = device
            elif known is not None and device is None:
                return f"{root} ({name}): was there before and is missing now"
            elif known is not None and device != known:
                return f"{root} ({name}): {_OTHER_DISK}"
        return None


def _device_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None
