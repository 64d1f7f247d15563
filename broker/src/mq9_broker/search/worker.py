"""The search process: changes and questions from stdin, answers to stdout, embedding in between.

It ends when its stdin does, which is when the broker ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final

from mq9_broker.observe import logs
from mq9_broker.search.cache import Cache
from mq9_broker.search.embedders import (
    Embedder,
    EmbedderError,
    FastEmbedder,
    HttpEmbedder,
    MultilingualEmbedder,
    Vectors,
)
from mq9_broker.search.index import SearchIndex
from mq9_broker.search.indexed import Taken
from mq9_broker.search.interface import CursorError, Query
from mq9_broker.search.keywords import Merge
from mq9_broker.search.messages import (
    Again,
    Answer,
    Ask,
    Failed,
    Filled,
    Frames,
    FromProcess,
    Put,
    Refuse,
    Remove,
    Settings,
    Status,
    ToProcess,
    frame,
    read_to_process,
)
from mq9_broker.search.segments import Segment
from mq9_broker.search.settings import BUILTIN, SearchSettings
from mq9_broker.search.snapshot import write

_log = logging.getLogger(__name__)

_READ_SIZE: Final = 2**18
# Agents that are taken in at once.
_PUT_TOGETHER: Final = 500
# Reads of the pipe that wait to be worked off.
_MOST_UNREAD: Final = 16
_STATUS_INTERVAL_S: Final = 0.25
# Agents that may have no fast vector yet: whoever asks by meaning waits for them.
_MOST_SOON: Final = 1_024
# Quiet after which vectors are made: a burst of registrations is taken in first, and a broker that
# lives for a second loads no tables.
_QUIET_FAST_S: Final = 0.2
_QUIET_S: Final = 1.0
_MOST_PUT_OFF_S: Final = 2.0
# To keep the whole index holds up questions for a tenth of a second: it waits longer for a quiet moment.
_MOST_UNSAVED_S: Final = 60.0
# How often it is looked whether the tables are loaded.
_LOADING_S: Final = 0.05
# Quiet in which several texts are embedded one after the other; before, and however many messages come, it
# is those of one agent in each interval.
_STILL_S: Final = 0.02
_WORK_INTERVAL_S: Final = 0.1
# Once its input has ended it may finish what it is at, so long.
_END_S: Final = 0.5
# An endpoint that failed is left alone so long, twice as long after each further failure up to the most.
_FIRST_PAUSE_S: Final = 1.0
_MOST_PAUSE_S: Final = 60.0
_QUERIES_AT_ONCE: Final = 4
# Who asks waits so long for an endpoint; then the fast vectors answer.
_QUERY_PATIENCE_S: Final = 2.0


def open_index(settings: SearchSettings) -> SearchIndex:
    """Make an index; its embedder's tables are loaded with the first text."""
    if not settings.by_meaning:
        return SearchIndex(None, None, Cache(None, ""))
    embedder: Embedder = (
        MultilingualEmbedder()
        if settings.embedder == BUILTIN
        else HttpEmbedder(
            settings.embedder, settings.model, settings.key, settings.timeout, max(settings.batch, 2)
        )
    )
    return SearchIndex(FastEmbedder(), embedder, Cache(settings.cache_file, FastEmbedder.identity))


class _Embedded:
    """An endpoint has answered, or not: texts of agents, or a query."""

    def __init__(self, future: Future[Vectors], work: list[Taken] | Ask) -> None:
        self.future = future
        self.work = work


class _Worked:
    """Something has been done beside everything else."""

    def __init__(self, future: Future[Segment], work: Merge) -> None:
        self.future = future
        self.work = work


class _Saved:
    """The whole index has been written, or not."""

    def __init__(self, future: Future[bool]) -> None:
        self.future = future


_Inbox = queue.Queue[list[ToProcess] | _Embedded | _Worked | _Saved | None]


class Worker:
    """Works off messages, and embeds when there are none.

    Args:
        settings: How the index is made.
        output: Where answers go.
        inbox: Where messages come from; None ends it.
    """

    def __init__(
        self,
        settings: SearchSettings,
        output: BinaryIO,
        inbox: _Inbox,
    ) -> None:
        self._settings = settings
        self._output = output
        self._inbox = inbox
        self.index = open_index(settings)
        self._embedder = self.index.embedder
        self._is_remote = isinstance(self._embedder, HttpEmbedder)
        self._pool = ThreadPoolExecutor(1 + _QUERIES_AT_ONCE) if self._is_remote else None
        self._is_asked = False
        # Queries that an endpoint is embedding, and when they are answered without it.
        self._asked: dict[int, tuple[Ask, float]] = {}
        self._failures = 0
        self._failures_in_a_row = 0
        self._paused_until = 0.0
        self._last_status: Status | None = None
        self._last_status_at = 0.0
        self._last_work_at = 0.0
        self._last_message_at = time.monotonic()
        self._busy_since: float | None = None
        self._loading: threading.Thread | None = None
        self._beside = ThreadPoolExecutor(1)
        self._saving: Future[bool] | None = None
        self._save_after = 0.0
        self._is_over = False
        self._is_filled = False

    def end(self) -> None:
        """End soon, whatever there is still to do. It may be called in any thread."""
        self._is_over = True
        self._inbox.put(None)

    def run(self) -> None:
        """Work until the inbox says that it is over."""
        while not self._is_over:
            try:
                item = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                self._answer_overdue()
                self._work()
                continue
            if item is None:
                break
            if isinstance(item, _Embedded):
                self._embedded(item)
            elif isinstance(item, _Worked):
                self.index.end_work(item.work, item.future.result())
            elif isinstance(item, _Saved):
                self._saved(item.future)
            else:
                self._take_all(item)
                self._last_message_at = time.monotonic()
            self._answer_overdue()
            if time.monotonic() - self._last_work_at > _WORK_INTERVAL_S:
                self._work()
            self._tell()
        for pool in (self._pool, self._beside):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        self.index.close()

    def _patience(self) -> float | None:
        """How long to wait for a message before doing something else."""
        wait = self._rest()
        if wait is None and self._status() != self._last_status:
            wait = _STATUS_INTERVAL_S
        if self._asked:
            due = next(iter(self._asked.values()))[1] - time.monotonic()
            wait = due if wait is None else min(wait, due)
        return max(wait, 0.0001) if wait is not None else None

    def _rest(self) -> float | None:
        """Seconds until there is something to do besides messages; None: there is nothing."""
        index = self.index
        if index.has_work:
            return 0.0
        must_load = self._must_load
        if not index.soon and not index.has_texts and not must_load and not self._must_save:
            self._busy_since = None
            return None
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        if index.soon:
            return self._pause(now, _QUIET_FAST_S)
        if not index.has_texts and not must_load:
            return self._pause(now, _QUIET_S, _MOST_UNSAVED_S)
        if self._is_asked:
            return None
        if self._loading is not None and self._loading.is_alive():
            return _LOADING_S
        still = min(self._last_message_at + _STILL_S, self._last_work_at + _WORK_INTERVAL_S)
        return max(self._pause(now, _QUIET_S), still - now, self._paused_until - now)

    @property
    def _must_load(self) -> bool:
        embedder = self._embedder
        return self.index.has_vectors and embedder is not None and not embedder.is_ready

    @property
    def _must_save(self) -> bool:
        if self._saving is not None or time.monotonic() < self._save_after:
            return False
        return self._is_filled and self.index.wants_snapshot

    def _pause(self, now: float, quiet: float, most: float = _MOST_PUT_OFF_S) -> float:
        """Seconds until nobody has said anything for so long; but it is not put off for ever."""
        since = self._busy_since if self._busy_since is not None else now
        return max(min(self._last_message_at + quiet, since + most) - now, 0.0)

    def _take_all(self, messages: list[ToProcess]) -> None:
        """Work off messages in order, registrations that follow each other together."""
        agents: list[tuple[str, bytes]] = []
        for message in messages:
            if self._is_over:
                return
            if isinstance(message, Put):
                agents.append((message.name, message.body))
                continue
            self._put(agents)
            agents = []
            if isinstance(message, Remove):
                self.index.remove(message.name)
            elif isinstance(message, Ask):
                self._ask(message)
            elif isinstance(message, Filled):
                self.index.filled()
                self._is_filled = True
        self._put(agents)

    def _put(self, agents: list[tuple[str, bytes]]) -> None:
        for start in range(0, len(agents), _PUT_TOGETHER):
            if self._is_over:
                return
            some = agents[start : start + _PUT_TOGETHER]
            self.index.put_all(some)
            # At the start it is searches by words that wait for everything to be there.
            behind = self.index.soon - _MOST_SOON
            if self._is_filled and behind > 0:
                self.index.embed_soon(min(behind, 2 * len(some)))

    def _ask(self, ask: Ask) -> None:
        if (
            ask.query.by_meaning
            and self._pool is not None
            and self._embedder is not None
            and self.index.serves_own_vectors
            and time.monotonic() >= self._paused_until
        ):
            future = self._pool.submit(self._embedder.embed, self.index.texts_of(ask.query)[:1])
            self._when_done(future, ask)
            self._asked[ask.number] = (ask, time.monotonic() + _QUERY_PATIENCE_S)
            return
        self._answer(ask.number, ask.query, [] if self._is_remote else None)

    def _answer(self, number: int, query: Query, vectors: list[Vectors] | None) -> None:
        try:
            found = self.index.search(query, vectors)
            self._send(Answer(number, [(hit.name, hit.score) for hit in found.hits], found.rarities))
        except CursorError:
            self._send(Refuse(number))
        except Exception:
            _log.exception("a search failed")
            self._send(Failed(number))

    def _when_done(self, future: Future[Vectors], work: list[Taken] | Ask) -> None:
        future.add_done_callback(lambda done: self._inbox.put(_Embedded(done, work)))

    def _embedded(self, item: _Embedded) -> None:
        """Go on with what an endpoint has embedded, or has not."""
        vectors: Vectors | None = None
        try:
            vectors = item.future.result()
            self._failures_in_a_row = 0
        except EmbedderError as error:
            self._failed(str(error))
        except Exception:
            _log.exception("the endpoint's reply cannot be used")
            self._failed("the endpoint's reply cannot be used")
        if isinstance(item.work, Ask):
            if self._asked.pop(item.work.number, None) is not None:
                self._answer(item.work.number, item.work.query, [] if vectors is None else list(vectors))
            return
        self._is_asked = False
        if vectors is None:
            self.index.put_back(item.work)
        else:
            self._set_vectors(item.work, vectors)

    def _failed(self, why: str) -> None:
        """Leave the endpoint alone for a while."""
        self._failures += 1
        pause = min(_FIRST_PAUSE_S * 2**self._failures_in_a_row, _MOST_PAUSE_S)
        self._failures_in_a_row = min(self._failures_in_a_row + 1, 10)
        self._paused_until = time.monotonic() + pause
        _log.warning("%s; the fast vectors serve, next try in %g s", why, pause)

    def _answer_overdue(self) -> None:
        """Answer queries that have waited long enough for an endpoint."""
        now = time.monotonic()
        while self._asked:
            ask, due = next(iter(self._asked.values()))
            if due > now:
                return
            del self._asked[ask.number]
            self._failed(f"no vector of a query in {_QUERY_PATIENCE_S:g} s")
            self._answer(ask.number, ask.query, [])

    def _set_vectors(self, taken: list[Taken], vectors: Vectors) -> None:
        self.index.set_vectors(taken, vectors)
        if self.index.wants_bodies:
            self.index.wants_bodies = False
            self._send(Again())

    def _work(self) -> None:
        """Do a little of what can wait."""
        rest = self._rest()
        now = self._last_work_at = time.monotonic()
        if rest is None or rest > 0:
            pass
        elif self.index.has_work:
            work = self.index.begin_work()
            future = self._beside.submit(work.run)
            future.add_done_callback(lambda done: self._inbox.put(_Worked(done, work)))
        elif self.index.soon:
            self.index.embed_soon(FastEmbedder.batch)
        elif not self.index.has_texts and not self._must_load:
            self._save()
        elif isinstance(self._embedder, MultilingualEmbedder) and not self._embedder.is_ready:
            # Beside the questions, which the fast vectors answer meanwhile.
            self._loading = threading.Thread(target=self._embedder.load, daemon=True)
            self._loading.start()
        else:
            self._embed(is_still=now - self._last_message_at >= _STILL_S)
        self._tell()

    def _save(self) -> None:
        """Keep all of the index for the next start."""
        file = self.index.snapshot_file
        if file is not None and self._must_save:
            self._saving = self._beside.submit(write, file, self.index.snapshot())
            self._saving.add_done_callback(lambda done: self._inbox.put(_Saved(done)))

    def _saved(self, future: Future[bool]) -> None:
        """Try again later if it could not be written."""
        self._saving = None
        try:
            if future.result():
                return
        except Exception:
            _log.exception("the index cannot be kept")
        self._save_after = time.monotonic() + _MOST_UNSAVED_S
        self.index.not_saved()

    def _embed(self, is_still: bool) -> None:
        taken, texts = self.index.next_texts(None if is_still or self._is_remote else 1)
        if not taken or self._embedder is None:
            return
        if self._pool is not None:
            self._is_asked = True
            self._when_done(self._pool.submit(self._embedder.embed, texts), taken)
            return
        try:
            vectors = self._embedder.embed(texts)
        except Exception:
            _log.exception("%d agents cannot be embedded", len(taken))
            self.index.give_up(taken)
            return
        self._set_vectors(taken, vectors)

    def _status(self) -> Status:
        return Status(
            len(self.index), self.index.words, self.index.waiting, self._failures, _resident_bytes()
        )

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._last_status_at < _STATUS_INTERVAL_S:
            return
        status = self._status()
        if status != self._last_status:
            self._last_status, self._last_status_at = status, now
            self._send(status)

    def _send(self, message: FromProcess) -> None:
        self._output.write(frame(message))
        self._output.flush()


def _resident_bytes() -> int:
    """Return the memory of this process, to a megabyte; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # read again and again
            pages = int(file.read().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20 * 2**20


def main() -> int:
    """Run the search process."""
    # Only the broker ends it, by closing its stdin; a Ctrl-C reaches all processes of a terminal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    source, output = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    frames = Frames()
    first: list[ToProcess] = []
    while not first:
        data = os.read(source.fileno(), _READ_SIZE)
        if not data:
            return 0
        first = [read_to_process(message) for message in frames.feed(data)]
    return _run(source, output, first, frames)


def _run(source: BinaryIO, output: BinaryIO, first: list[ToProcess], frames: Frames) -> int:
    inbox: _Inbox = queue.Queue()
    settings = first[0]
    if not isinstance(settings, Settings):
        raise TypeError(f"settings expected first, got {settings!r:.100}")
    logs.configure(settings.log_levels, settings.log_format)
    worker = Worker(settings.settings, output, inbox)
    inbox.put(first[1:])

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source.fileno(), _READ_SIZE):
                messages = [read_to_process(message) for message in frames.feed(data)]
                # What cannot be worked off stays in the pipe, and then with the broker.
                while messages and inbox.qsize() >= _MOST_UNREAD:
                    time.sleep(0.002)
                if messages:
                    inbox.put(messages)
        inbox.put(None)

    def watch() -> None:
        _wait_for_end(source.fileno())
        worker.end()
        time.sleep(_END_S)
        os._exit(0)  # it is in the midst of something long

    for target in (read, watch) if hasattr(select, "poll") else (read,):
        threading.Thread(target=target, daemon=True).start()
    try:
        worker.run()
    except BrokenPipeError:
        return 0  # the broker is gone
    return 0


def _wait_for_end(file: int) -> None:
    """Wait until nobody can write to a pipe any more, whatever is still in it."""
    poll = select.poll()
    poll.register(file, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    while not poll.poll():
        pass


if __name__ == "__main__":
    sys.exit(main())
