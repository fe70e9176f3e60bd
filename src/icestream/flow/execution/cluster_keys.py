"""Keys for one run's talk with its cluster jobs: who cannot read them can neither listen nor have anything run."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from distributed.security import Security


@dataclass(frozen=True)
class ClusterKeys:
    """A certificate and its key, in files that only this user may read, on a file system that jobs see."""

    certificate: Path
    key: Path

    def security(self) -> Security:
        """Return what dask wants: encryption is required, and everybody must show this certificate."""
        roles = {f"tls_{role}_{part}": str(path) for role in ("client", "scheduler", "worker") for part, path in self._parts()}
        return Security(require_encryption=True, tls_ca_file=str(self.certificate), **roles)

    def _parts(self) -> list[tuple[str, Path]]:
        return [("cert", self.certificate), ("key", self.key)]

    def remove(self) -> None:
        """Remove the files: the run is over."""
        for _, path in self._parts():
            path.unlink(missing_ok=True)


def make_keys(folder: Path) -> ClusterKeys:
    """Return new keys of one run, written into ``folder``."""
    made = Security.temporary()
    name = uuid.uuid4().hex
    keys = ClusterKeys(folder / f".{name}.cert.pem", folder / f".{name}.key.pem")
    for path, text in ((keys.certificate, made.tls_client_cert), (keys.key, made.tls_client_key)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
    return keys
