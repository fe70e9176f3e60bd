"""Whether two paths lead to one place: by two mounts of a disk a file would pass as a copy of itself, and be deleted.

The numbers of devices and inodes tell only where both paths are of one file system of this machine; two mounts of a network
disk may differ in them. A file that is made in one folder and seen in the other tells always.
"""

import os
import secrets
from pathlib import Path

from icestream.transfer.anchored import status_in


def is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether two statuses are of one file.

    Two mounts of one disk may have different devices; inode and moment of the last change, which nobody can set, then tell.
    """
    if one.st_ino != other.st_ino:
        return False
    return one.st_dev == other.st_dev or (one.st_ctime_ns, one.st_size) == (other.st_ctime_ns, other.st_size)


def is_same_folder(made_in: int, looked_in: int) -> bool:
    """Tell whether two open folders are one, by a file that is made in the first, looked for in the second, and removed.

    Raises
    ------
    OSError
        The first cannot be written, or the second not be looked at.
    """
    if is_same_file(os.fstat(made_in), os.fstat(looked_in)):
        return True
    name = f".icestream-{secrets.token_hex(12)}.part"  # no source takes it, and a transfer sweeps it up if we die here
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=made_in))
    try:
        return status_in(looked_in, name) is not None
    finally:
        os.unlink(name, dir_fd=made_in)


def are_one_folder(made_in: Path, looked_in: Path) -> bool:
    """Tell whether two paths lead to one folder; the first must be writable.

    Raises
    ------
    OSError
        The first cannot be written, or the second not be looked at.
    """
    first = os.open(made_in, os.O_RDONLY | os.O_DIRECTORY)
    try:
        second = os.open(looked_in, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return is_same_folder(first, second)
        finally:
            os.close(second)
    finally:
        os.close(first)
