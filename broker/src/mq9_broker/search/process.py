"""The broker's side of the search process: starts it when it is needed, tells it what changes, asks it.

Whatever was said before a question has been taken in when the question is answered: both go through one pipe.
A process that ends unexpectedly is started again, told everything again, and asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Final

from mq9_broker.search.interface import Agents, CursorError, Found, Hit, Query, SearchError, WhenFound
from mq9_broker.search.messages import (
    Again,
    Answer,
    Ask,
    Failed,
    Filled,
    Frames,
    Put,
    Refuse,
    Remove,
    Settings,
    Status,
    ToProcess,
    frame,
    read_from_process,
)
from mq9_broker.search.settings import SearchSettings

_log = logging.getLogger(__name__)

_READ_SIZE: Final = 2**18
# Agents that are told in one go at the start, between which messages are served.
_FILL_STEP: Final = 200
_MOST_QUESTIONS: Final = 10_000
_RESTART_PAUSE_S: Final = 1.0
_END_WAIT_S: Final = 2.0

# Threads of the linear algebra: the process has one thing to do at a time, and messages need a processor too.
_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


class SearchProcess:
    """Search in a process of its own. All methods are called in one event loop.

    Args:
        settings: How the index is made.
        agents: What is registered.
        log_levels: What the process logs to stderr, as the option says it.
        log_format: And in which form.

    Attributes:
        status: What the process said of itself last; None while there is none.
        restarts: How often it ended unexpectedly.
    """

    def __init__(
        self,
        settings: SearchSettings,
        agents: Agents,
        log_levels: str = "info",
        log_format: str = "text",
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._log = (log_levels, log_format)
        self._process: asyncio.subprocess.Process | None = None
        self._running: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None]
        self._known: set[str] = set()
        self._is_closed = False
        self._is_filled = False
        self._is_outdated = False
        self._questions: dict[int, tuple[Query, WhenFound]] = {}
        self._next_number = 0
        self.status: Status | None = None
        self.restarts = 0

    @property
    def by_meaning(self) -> bool:
        """Whether agents can be found by meaning."""
        return self._settings.by_meaning

    @property
    def agents(self) -> int:
        """How many agents there are."""
        return len(self._known)

    @property
    def waiting(self) -> int:
        """The number of agents that have no multilingual vector yet."""
        return self.status.waiting if self.status is not None else 0

    @property
    def questions(self) -> int:
        """The number of questions without an answer yet."""
        return len(self._questions)

    @property
    def process_id(self) -> int | None:
        """The id of the process, None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process if there are agents; otherwise it starts with the first of them.

        One that runs already is replaced: the store is another one now.
        """
        self._known.clear()
        if self._process is not None:
            self._is_outdated = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        elif self._agents.some_after(None, 1):
            self._ensure()

    def changed(self, name: str) -> None:
        """Take in that an agent was registered, replaced or removed."""
        body = self._agents.body(name)
        if body is None:
            self._known.discard(name)
        else:
            self._known.add(name)
        if self._running is None:
            self._ensure()  # it is told everything
            return
        self._tell(Remove(name) if body is None else Put(name, body))

    def ask(self, query: Query, when_found: WhenFound) -> None:
        """Answer a question later."""
        if len(self._questions) >= _MOST_QUESTIONS:
            when_found(SearchError(f"{_MOST_QUESTIONS} searches wait already"))
            return
        self._ensure()
        number = self._next_number
        self._next_number += 1
        self._questions[number] = (query, when_found)
        if self._is_filled:
            self._tell(Ask(number, query))

    def close(self) -> None:
        """End the process, by ending its input."""
        self._is_closed = True
        self._questions.clear()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def wait_closed(self) -> None:
        """Wait until the process has ended after `close`; it is killed if that takes long."""
        if self._running is None:
            return
        with contextlib.suppress(asyncio.CancelledError, asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._running), _END_WAIT_S)
        if not self._running.done():
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def _tell(self, message: ToProcess) -> None:
        """Send a message; without a process nobody needs it: the next one is told and asked everything."""
        stdin = self._process.stdin if self._process is not None else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(frame(message))

    def _ensure(self) -> None:
        if self._running is None and not self._is_closed:
            self._running = asyncio.get_running_loop().create_task(self._keep_running())

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._run_once()
            except OSError as error:
                _log.error("the search process cannot be started: %s", error)
            except Exception:
                _log.exception("the search process is started again")
            self._process = None
            self._is_filled = False
            self.status = None
            if self._is_closed:
                return
            if self._is_outdated:
                self._is_outdated = False
                continue
            self.restarts += 1
            _log.error("the search process has ended; a new one is started")
            await asyncio.sleep(_RESTART_PAUSE_S)

    async def _run_once(self) -> None:
        # By its own module, which is ready sooner, or by a command of the file all was packed into.
        is_packed = getattr(sys, "frozen", False)
        arguments = ["search-process"] if is_packed else ["-m", "mq9_broker.search.worker"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(frame(Settings(self._settings, *self._log)))
        self._process = process
        if self._is_closed:
            process.stdin.close()
        self._telling = asyncio.get_running_loop().create_task(self._fill(process.stdin))
        try:
            frames = Frames()
            while data := await process.stdout.read(_READ_SIZE):
                for message in frames.feed(data):
                    self._take(message, process.stdin)
        finally:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await self._telling
            if process.returncode is None and not self._is_closed:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()

    async def _fill(self, stdin: asyncio.StreamWriter) -> None:
        """Tell everything that is registered, then ask what waits."""
        await self._tell_all(stdin)
        self._is_filled = True
        for number, (query, _) in self._questions.items():
            stdin.write(frame(Ask(number, query)))

    async def _tell_all(self, stdin: asyncio.StreamWriter) -> None:
        """Tell everything that is registered; what changes meanwhile is told too, each as it is then."""
        after: str | None = None
        while step := self._agents.some_after(after, _FILL_STEP):
            for name, body in step:
                self._known.add(name)
                stdin.write(frame(Put(name, body)))
            after = step[-1][0]
            await stdin.drain()
            await asyncio.sleep(0)
        stdin.write(frame(Filled()))

    def _take(self, data: bytes, stdin: asyncio.StreamWriter) -> None:
        message = read_from_process(data)
        if isinstance(message, Status):
            self.status = message
            return
        if isinstance(message, Again):
            if self._telling.done():
                self._telling = asyncio.get_running_loop().create_task(self._tell_all(stdin))
            return
        question = self._questions.pop(message.number, None)
        if question is None:
            return
        when_found = question[1]
        if isinstance(message, Answer):
            when_found(Found([Hit(*hit) for hit in message.hits], message.rarities))
        elif isinstance(message, Refuse):
            when_found(CursorError())
        else:
            assert isinstance(message, Failed)
            when_found(SearchError("see the broker's log"))
