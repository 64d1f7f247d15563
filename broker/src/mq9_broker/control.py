"""The control socket of a running broker, in its data folder: whoever may open it gets a checkpoint.

A checkpoint is the store as it is at one moment, made of links to its files. It stays as long as the
connection that asked for it. One line goes each way: `checkpoint`, then `ok FOLDER` or `error WHY`.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mq9_broker.store import DataFolder, RocksdbStore

log = logging.getLogger(__name__)

_PREFIX: Final = "checkpoint-"
# A socket's path may not be longer, on most systems.
_LONGEST_PATH: Final = 90
_TIMEOUT: Final = 60.0


class ControlError(Exception):
    """The running broker did not do what it was asked for; the message says why."""


class ControlSocket:
    """Answers on the control socket.

    Args:
        folder: the data folder.
        disk: its store.
    """

    def __init__(self, folder: DataFolder, disk: RocksdbStore) -> None:
        self._folder = folder
        self._disk = disk
        self._server: asyncio.AbstractServer | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._number = 0

    async def start(self) -> None:
        """Begin to answer; where the system has no such sockets, there is nothing to ask."""
        for left in self._folder.path.glob(f"{_PREFIX}*"):
            shutil.rmtree(left)
        if not hasattr(asyncio, "start_unix_server"):
            return
        # The store is ours alone, so whatever is there is left from a broker that was killed.
        self._folder.control.unlink(missing_ok=True)
        try:
            with _short_path(self._folder.control) as path:
                self._server = await asyncio.start_unix_server(self._accept, path)
            self._folder.control.chmod(0o600)
        except OSError as error:
            log.warning("no control socket, so no backup while the broker runs: %s", error)

    async def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            self._folder.control.unlink(missing_ok=True)
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._number += 1
        folder = self._folder.path / f"{_PREFIX}{self._number}"
        loop = asyncio.get_running_loop()
        try:
            line = await reader.readline()
            if line != b"checkpoint\n":
                writer.write(b"error unknown request\n")
                return
            try:
                await loop.run_in_executor(None, self._disk.checkpoint, folder)
            except Exception as error:
                log.error("no checkpoint: %s", error)
                writer.write(f"error {error}\n".encode())
                return
            log.info("checkpoint made for a backup")
            writer.write(b"ok " + os.fsencode(folder.name) + b"\n")
            await writer.drain()
            await reader.read()  # until the other side is done
        except ConnectionError:
            pass  # it has gone: nobody to tell
        finally:
            await loop.run_in_executor(None, lambda: shutil.rmtree(folder, ignore_errors=True))
            writer.close()


@contextlib.contextmanager
def checkpoint_of(folder: DataFolder) -> Iterator[Path | None]:
    """The folder of a checkpoint of the broker that runs on a data folder, None when none runs.

    Raises:
        ControlError: the broker could not make one.
    """
    if not folder.control.exists():
        yield None
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            with _short_path(folder.control) as path:
                connection.connect(path)
        except ConnectionRefusedError:  # left from a broker that was killed
            yield None
            return
        except OSError as error:
            raise ControlError(f"cannot ask the running broker: {error.strerror or error}") from None
        try:
            connection.sendall(b"checkpoint\n")
            word, _, rest = (
                connection.makefile("rb").readline().decode(errors="replace").strip().partition(" ")
            )
        except OSError as error:
            raise ControlError(f"the running broker does not answer: {error.strerror or error}") from None
        if word != "ok":
            raise ControlError(f"the running broker could not make a checkpoint: {rest or 'it ended'}")
        yield folder.path / rest


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A path of a socket, by a short way where it is long and the system has one."""
    descriptors = Path("/proc/self/fd")
    if len(os.fsencode(path)) <= _LONGEST_PATH or not descriptors.exists():
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"{descriptors}/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
