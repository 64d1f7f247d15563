"""Room on the disk that is kept for bad days: RocksDB needs some to recover once the disk has been full."""

import contextlib
import os
from pathlib import Path

_BLOCK = 2**20


class Reserve:
    """A file that does nothing but take room.

    Args:
        path: the file.
        size: its bytes; 0 = no reserve.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def take(self) -> None:
        """Take the room, or see that it is taken.

        Raises:
            OSError: there is not enough; then nothing of it is taken.
        """
        if not self._size or (self._path.exists() and self._path.stat().st_size == self._size):
            return
        try:
            with self._path.open("wb", buffering=0) as file:
                _allocate(file.fileno(), self._size)
                os.fsync(file.fileno())
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    left = size
    while left:
        left -= os.write(descriptor, bytes(min(left, _BLOCK)))
