"""FETCHes that wait: how one begins to wait, and how it is answered. `Shell` is this and everything else."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mq9_broker._generated import errors, limits
from mq9_broker._generated.commands import MsgFetch
from mq9_broker.engine import Engine, FetchRead, Result
from mq9_broker.engine.commands import Command, repeat_of
from mq9_broker.engine.effects import Effect, Fetched
from mq9_broker.shell.batches import Batches
from mq9_broker.shell.counters import Counters
from mq9_broker.shell.waiting import Connection, Waiter, WaitingRoom

# Leased waiters asked in one call of the engine; few at first, because one message serves one of them.
_MOST_AT_ONCE: Final = 64

SHUTDOWN: Final = errors.unavailable("the broker is shutting down")


@dataclass(frozen=True, slots=True)
class ShellOptions:
    """Bounds that the shell keeps.

    Attributes:
        max_waiting: FETCHes that may wait at one mailbox; 0 = unlimited.
        max_waiting_of_client: FETCHes that may wait for one connection; 0 = unlimited.
        max_waiting_in_all: FETCHes that may wait; 0 = unlimited.
        max_reply: Bytes after which a page of DISCOVER ends.
    """

    max_waiting: int = 0
    max_waiting_of_client: int = 0
    max_waiting_in_all: int = 0
    max_reply: int = limits.MAX_REPLY


class Waking(ABC):
    """Lets FETCHes wait, wakes them when something may be there, and answers them."""

    counters: Counters
    _engine: Engine
    _options: ShellOptions
    _waiting: WaitingRoom
    _batches: Batches
    _loop: asyncio.AbstractEventLoop | None
    _send: Callable[[Connection, list[tuple[bytes, bytes]]], None]
    _stopping: bool
    # Answers to FETCHes that waited, by connection.
    _answers: dict[Connection, list[tuple[bytes, bytes]]]

    @abstractmethod
    def _apply(self, now_ms: int, commands: Sequence[Command]) -> Sequence[Result]:
        """Let the engine carry out commands."""

    @abstractmethod
    def _take_in(self, effects: Iterable[Effect]) -> None:
        """Note what effects ask for."""

    @abstractmethod
    def _remember(self, fetched: Fetched) -> None:
        """Note what a FETCH brought."""

    @abstractmethod
    def _internal_error(self, what: str) -> bytes:
        """Log the exception at hand and return the reply for it."""

    def _wait(
        self, waiter: Waiter, reply: bytes, next_msg_id: int, replies: list[tuple[bytes, bytes]]
    ) -> None:
        """Let a FETCH that found nothing wait, or answer it if it may not."""
        command = waiter.command
        if not command.max_wait_ms:
            replies.append((waiter.reply_to, reply))
            return
        if self._stopping:
            replies.append((waiter.reply_to, SHUTDOWN))
            return
        if full := self._no_room_to_wait(waiter):
            replies.append((waiter.reply_to, full))
            return
        if self._loop is None:
            raise RuntimeError("Shell.start has not been called")
        waiter.command = repeat_of(command, next_msg_id)
        waiter.empty_reply = reply
        self._waiting.add(waiter)
        waiter.timer = self._loop.call_later(command.max_wait_ms / 1000, self._time_over, waiter)

    def _no_room_to_wait(self, waiter: Waiter) -> bytes:
        """Return the refusal of a FETCH that may not wait because too many do; b"" for none."""
        options, address = self._options, waiter.command.address
        if 0 < options.max_waiting <= self._waiting.size(address):
            return errors.mailbox_full(address.decode(), f"{options.max_waiting} FETCHes wait already")
        if 0 < options.max_waiting_of_client <= self._waiting.size_of(waiter.connection):
            most = options.max_waiting_of_client
            return errors.unavailable(f"{most} FETCHes of this connection wait already")
        if 0 < options.max_waiting_in_all <= len(self._waiting):
            return errors.unavailable(f"{options.max_waiting_in_all} FETCHes wait already")
        return b""

    def _time_over(self, waiter: Waiter) -> None:
        self._end(waiter, waiter.empty_reply, "timeout")
        self._send_answers()

    def _end(self, waiter: Waiter, reply: bytes, how: str) -> None:
        """Answer a FETCH that waited; `_send_answers` sends it."""
        self._waiting.remove(waiter)
        self.counters.fetches_answered[how] += 1
        self._answers.setdefault(waiter.connection, []).append((waiter.reply_to, reply))

    def _drop(self, waiter: Waiter) -> None:
        """Forget a FETCH that waited for a client that went away."""
        self._waiting.remove(waiter)
        self.counters.fetches_answered["disconnected"] += 1

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, {}
        for connection, replies in answers.items():
            self._send(connection, replies)

    def _wake(self, now_ms: int, address: bytes, groups: set[str]) -> None:
        """Give those who wait what is there: first all who take nothing away, then leases in order."""
        answered: dict[MsgFetch, FetchRead] = {}
        for waiter in self._waiting.open(address, groups):
            command = waiter.command
            if waiter.connection.is_closed:
                self._drop(waiter)
                continue
            found = answered.get(command)
            if found is None:
                # Its group exists, it is no reset and takes no lease: it changes nothing.
                try:
                    found = self._engine.read_fetch(now_ms, command)
                except Exception:
                    found = FetchRead(self._internal_error("a waiting FETCH"), (), 0, 0)
                answered[command] = found
            if found.msg_ids and command.group_name:
                self._batches.delivered(address, command.group_name, found.msg_ids)
            if found.msg_ids or not found.incarnation:
                self._end(waiter, found.reply, "messages")
        self._wake_leased(now_ms, address, self._waiting.leased_groups(address, groups))

    def _wake_leased(self, now_ms: int, address: bytes, groups: list[str]) -> None:
        """Serve those who wait for a lease, each group in the order of waiting until one comes up empty."""
        count = 1
        while groups:
            waiters: list[Waiter] = []
            for group in groups:
                for waiter in self._waiting.first_leased(address, group, count):
                    # Who went away, or took the inbox back, gets no lease: the message would be hidden for
                    # nobody.
                    if waiter.connection.listens(waiter.reply_to):
                        waiters.append(waiter)
                    else:
                        self._drop(waiter)
            results = self._apply(now_ms, [waiter.command for waiter in waiters])
            done: set[str] = set()
            for waiter, (reply, effects) in zip(waiters, results, strict=True):
                group = waiter.command.group_name
                fetched = fetched_by(effects)
                if fetched is not None and not fetched.msg_ids:
                    done.add(group)  # nothing is left for those behind either
                    continue
                if fetched is not None:
                    self._remember(fetched)
                self._end(waiter, reply, "messages")
                self._take_in(effects)
            groups = [
                group for group in self._waiting.leased_groups(address, set(groups)) if group not in done
            ]
            count = min(count * 2, _MOST_AT_ONCE)


def fetched_by(effects: Sequence[Effect]) -> Fetched | None:
    """What a FETCH brought, by its effects."""
    for effect in effects:
        if isinstance(effect, Fetched):
            return effect
    return None
