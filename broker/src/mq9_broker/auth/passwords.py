"""Checking passwords against bcrypt hashes, which takes a tenth of a second each, beside the event loop."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import bcrypt

# bcrypt looks at no more bytes than these.
MOST_BYTES = 72
_MOST_WAITING = 8192
_MOST_WAITING_OF_A_SOURCE = 1024
_REMEMBERED = 16_384
_LOWER_PRIORITY = 5


class _Job(NamedTuple):
    hashed: bytes
    password: bytes
    is_wanted: Callable[[], bool]
    done: Callable[[bool], None]


def hash_password(password: str, rounds: int = 11) -> str:
    """Return the hash of a password for the configuration.

    Raises:
        ValueError: the password is empty, or too long for bcrypt.
    """
    raw = password.encode()
    if not 0 < len(raw) <= MOST_BYTES:
        raise ValueError(f"expected a password of 1 to {MOST_BYTES} bytes, got {len(raw)}")
    return bcrypt.hashpw(raw, bcrypt.gensalt(rounds)).decode()


class PasswordChecker:
    """Checks passwords in a few threads of low priority.

    Sources (IP addresses) take turns, so that a flood from one delays others by one check at most. What was
    right once is remembered, by a keyed hash that ends with the process: a client that reconnects waits for
    nobody.

    Args:
        threads: how many; None = half of the cores, one at least, four at most.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._pool = ThreadPoolExecutor(
            self._threads, thread_name_prefix="password", initializer=_lower_priority
        )
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._waiting = 0
        self._running = 0
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._is_closed = False

    def check(
        self,
        hashed: bytes,
        password: bytes,
        source: str,
        is_wanted: Callable[[], bool],
        done: Callable[[bool], None],
    ) -> None:
        """Check a password and call `done`, at once or later, in the event loop.

        Args:
            hashed: the bcrypt hash.
            password: what the client sent.
            source: where it came from.
            is_wanted: whether anybody still wants to know, asked just before the work would begin.
            done: gets whether the password is right. False too when too many wait already.
        """
        if len(password) > MOST_BYTES or b"\0" in password:
            done(False)
            return
        mark = self._mark(hashed, password)
        if mark in self._right:
            self._right.move_to_end(mark)
            done(True)
            return
        queue = self._queues.get(source)
        if self._waiting >= _MOST_WAITING or (queue and len(queue) >= _MOST_WAITING_OF_A_SOURCE):
            done(False)
            return
        if queue is None:
            queue = self._queues[source] = deque()
        queue.append(_Job(hashed, password, is_wanted, done))
        self._waiting += 1
        self._start_some()

    def close(self) -> None:
        """Forget who waits; threads end with the check that they are at."""
        self._is_closed = True
        self._queues.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _mark(self, hashed: bytes, password: bytes) -> bytes:
        return hashlib.blake2b(hashed + b"\0" + password, key=self._key, digest_size=16).digest()

    def _start_some(self) -> None:
        while self._queues and self._running < self._threads:
            source, queue = self._queues.popitem(last=False)
            job = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[source] = queue  # behind the other sources
            if job.is_wanted():
                self._running += 1
                loop = asyncio.get_running_loop()
                self._pool.submit(self._work, loop, job)

    def _work(self, loop: asyncio.AbstractEventLoop, job: _Job) -> None:
        is_right = bcrypt.checkpw(job.password, job.hashed)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(self._finished, job, is_right)

    def _finished(self, job: _Job, is_right: bool) -> None:
        self._running -= 1
        if self._is_closed:
            return
        if is_right:
            self._right[self._mark(job.hashed, job.password)] = None
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        self._start_some()
        job.done(is_right)


def _lower_priority() -> None:
    """Let the event loop run first when both want a core. On Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWER_PRIORITY)
