"""The folder of a broker that keeps its data: what is in it, and whether it may be opened."""

import os
from pathlib import Path
from typing import Final

from mq9_broker.store.reserve import Reserve
from mq9_broker.store.rocksdb import WRITE_BUFFER, RocksdbStore

#: Version of the folder's layout; what is in the store has a version of its own.
FOLDER_FORMAT: Final = 1
_MARK: Final = "mq9 data folder, format "
# What a file system or a person may have put into a new folder.
_IGNORED: Final = frozenset({"lost+found", ".gitkeep", ".keep"})
_LEAST_WRITE_BUFFER: Final = 2**20


class FolderError(Exception):
    """A folder can't be used; the message says why and what to do, without its path."""


class DataFolder:
    """A folder with `FORMAT` (what this is), `store/` (RocksDB), `reserve`, and a running broker's `control`.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = path / "control"

    def prepare(self) -> None:
        """Make a data folder, or see that there is one.

        Raises:
            FolderError: it holds something else, or a newer version's data, or can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise FolderError("no permission to write there")
            if not self._has_format():
                self._refuse_foreign()
                self.write_format()
        except OSError as error:
            raise FolderError(error.strerror or str(error)) from None

    def check(self) -> None:
        """See that there is a data folder of this version.

        Raises:
            FolderError: there is none.
        """
        try:
            if not self._has_format() and not self._has_store():
                raise FolderError("no mq9 data folder: it has no file FORMAT")
        except OSError as error:
            raise FolderError(error.strerror or str(error)) from None

    def open_store(self, reserve: int = 0) -> RocksdbStore:
        """Open the store, which `prepare` has made way for.

        Args:
            reserve: bytes of room kept for recovery from a full disk; 0 = none.

        Raises:
            FolderError: it can't be opened.
        """
        write_buffer = max(_LEAST_WRITE_BUFFER, min(WRITE_BUFFER, reserve // 3)) if reserve else WRITE_BUFFER
        try:
            return RocksdbStore(
                self.path / "store",
                reserve=Reserve(self.path / "reserve", reserve),
                write_buffer=write_buffer,
            )
        except Exception as error:  # rocksdict raises nothing more specific
            raise _refusal(error) from None

    def open_read_only(self) -> RocksdbStore:
        """Open the store without changing anything.

        Raises:
            FolderError: it can't be opened.
        """
        try:
            return RocksdbStore(self.path / "store", read_only=True)
        except Exception as error:
            raise _refusal(error) from None

    def write_format(self) -> None:
        """Mark the folder as one of this version."""
        new = self.path / "FORMAT.new"
        with new.open("w") as file:
            file.write(f"{_MARK}{FOLDER_FORMAT}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / "FORMAT")
        sync_folder(self.path)

    def _has_format(self) -> bool:
        try:
            text = (self.path / "FORMAT").read_text("utf-8", errors="replace").strip()
        except FileNotFoundError:
            return False
        version = text.removeprefix(_MARK)
        if not text.startswith(_MARK) or not version.isdecimal():
            raise FolderError("no mq9 data folder: its file FORMAT is something else; choose another folder")
        if int(version) > FOLDER_FORMAT:
            raise FolderError(
                f"its data has format {version}, of a newer version of mq9-broker, which can open it; "
                f"this one reads formats up to {FOLDER_FORMAT}"
            )
        return True

    def _has_store(self) -> bool:
        return (self.path / "store" / "CURRENT").exists()

    def _refuse_foreign(self) -> None:
        if self._has_store():
            return  # written before there was a file FORMAT; the engine looks at what is in it
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _IGNORED)
        if others:
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise FolderError(f"no mq9 data folder, and not empty ({shown}): choose an empty or new folder")


def _refusal(error: Exception) -> FolderError:
    text = str(error)
    if "lock file" in text or "LOCK" in text:
        text = "another process, such as a second broker, has it open"
    return FolderError(f"cannot open the store: {text}")


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk, where the system has a way to."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
