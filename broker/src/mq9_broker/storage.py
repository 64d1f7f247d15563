"""The broker's store over its life: opened, synced, tidied, and brought back after a failure."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mq9_broker.control import ControlSocket
from mq9_broker.shell.group_commit import GroupCommit
from mq9_broker.shell.shell import Shell
from mq9_broker.store import DataFolder, MemoryStore, RocksdbStore, Store, StoreUnavailableError

log = logging.getLogger(__name__)

# Seconds between bringing the store to disk, with `fsync: interval`.
_SYNC_INTERVAL: Final = 0.2
# Seconds between two looks at whether the store has failed or is untidy.
_LOOK_INTERVAL: Final = 0.5
# What was deleted leaves the disk after so many seconds, or sooner where it is much.
_TIDY_INTERVAL: Final = 30.0
# Tidying takes at most one part of so many of the time.
_TIDY_SHARE: Final = 10


class Storage:
    """The store of a running broker, in memory or in a data folder.

    Args:
        data: the data folder, None = in memory.
        fsync: `always`, `interval` or `never`.
        reserve: bytes of room kept in the folder for recovery from a full disk.

    Raises:
        FolderError: the folder can't be used.
    """

    def __init__(self, data: Path | None, fsync: str, reserve: int) -> None:
        self.store: Store
        self.folder: DataFolder | None = None
        self._disk: RocksdbStore | None = None
        self._fsync = fsync
        self._tasks: list[asyncio.Task[None]] = []
        self._group_commit: GroupCommit | None = None
        self._control: ControlSocket | None = None
        self._has_ended = asyncio.Event()
        if data is None:
            self.store = MemoryStore()
            return
        self.folder = DataFolder(data)
        self.folder.prepare()
        self.store = self._disk = self.folder.open_store(reserve)

    @property
    def disk(self) -> RocksdbStore | None:
        """The store if it is on disk."""
        return self._disk

    async def start(self, shell: Shell, observe_sync: Callable[[float], None] | None = None) -> None:
        """Begin to serve: start the shell, and all that keeps the store going.

        Args:
            shell: gets its replies sent in time; told when the store has recovered.
            observe_sync: gets the seconds that each sync took, with `fsync: always`.
        """
        loop = asyncio.get_running_loop()
        if self._disk is None:
            shell.start(loop)
            return
        if self._fsync == "always":
            self._group_commit = GroupCommit(self._disk, loop, observe_sync)
            shell.start(loop, self._group_commit.send)
        else:
            shell.start(loop)
        if self.folder is not None:
            self._control = ControlSocket(self.folder, self._disk)
            await self._control.start()
        if self._disk.failure is not None:
            log.error("nothing can be written: %s", self._disk.failure)
        self._tasks.append(asyncio.create_task(self._watch(self._disk, shell)))
        self._tasks.append(asyncio.create_task(self._tidy_now_and_then(self._disk)))
        if self._fsync != "never":  # with `always` for what nobody waits for
            self._tasks.append(asyncio.create_task(self._sync_now_and_then(self._disk)))

    def flush(self) -> None:
        """Send every reply that waits for the disk."""
        if self._group_commit is not None:
            self._group_commit.flush()

    async def close(self) -> None:
        """End everything and close the store."""
        self._has_ended.set()
        if self._control is not None:
            await self._control.close()
        await asyncio.gather(*self._tasks)
        if self._group_commit is not None:
            self._group_commit.close()
        if self._disk is not None and self._fsync != "never":
            with contextlib.suppress(StoreUnavailableError):  # said when it failed
                self._disk.sync()
        self.store.close()

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether to go on afterwards."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._has_ended.wait(), seconds)
        return not self._has_ended.is_set()

    async def _sync_now_and_then(self, disk: RocksdbStore) -> None:
        loop = asyncio.get_running_loop()
        while await self._pause(_SYNC_INTERVAL):
            with contextlib.suppress(StoreUnavailableError):  # seen by `_watch`
                await loop.run_in_executor(None, disk.sync)

    async def _watch(self, disk: RocksdbStore, shell: Shell) -> None:
        """See when the store fails, and bring it back."""
        said = disk.failure
        while await self._pause(_LOOK_INTERVAL):
            if disk.failure is None:
                continue
            if disk.failure != said:
                said = disk.failure
                log.error("nothing can be written, which is answered `unavailable`: %s", said)
            # Nobody may use the store meanwhile: not in another thread.
            recovered = disk.recover()
            try:
                shell.store_recovered()
            except StoreUnavailableError:  # not even read
                continue
            if recovered:
                said = None
                log.warning("the store has recovered")

    async def _tidy_now_and_then(self, disk: RocksdbStore) -> None:
        loop = asyncio.get_running_loop()
        next_time = loop.time() + _TIDY_INTERVAL
        earliest = 0.0
        while await self._pause(_LOOK_INTERVAL):
            began = loop.time()
            if began < earliest or (began < next_time and not disk.is_untidy):
                continue
            with contextlib.suppress(StoreUnavailableError):  # seen by `_watch`
                await loop.run_in_executor(None, disk.tidy)
            next_time = loop.time() + _TIDY_INTERVAL
            earliest = loop.time() + _TIDY_SHARE * (loop.time() - began)
