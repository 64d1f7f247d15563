"""Requests of several connections, carried out by one call of the engine where that changes nothing.

Together they cost less: SENDs make larger segments, and what a mailbox and a group keep is written once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from mq9_broker._generated.commands import MsgFetch
from mq9_broker.clock import Clock
from mq9_broker.engine.commands import LANE_NORMAL, Command
from mq9_broker.observe.meter import Meter
from mq9_broker.shell.alone import ACK, FETCH, Alone, Single, names_last_alone
from mq9_broker.shell.chunk import Request
from mq9_broker.shell.waiting import Connection

Part = tuple[Connection, list[Request]]

_SEND: Final = "msg.send"


class _Batch:
    """What the engine is to do in one call, and for whom.

    Attributes:
        now_ms: When.
        parts: With the command of a FETCH or ACK; None = the part is SENDs.
        commands: Of all parts.
        groups: Address and name of the groups that the commands change.
        has_sends: Whether there are SENDs among them.
        has_fetches: Whether there are FETCHes among them.
    """

    __slots__ = ("commands", "groups", "has_fetches", "has_sends", "now_ms", "parts")

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.parts: list[tuple[Part, Single | None]] = []
        self.commands: list[Command] = []
        self.groups: set[tuple[bytes, str]] = set()
        self.has_sends = self.has_fetches = False

    def clear(self) -> None:
        """Begin anew."""
        self.parts.clear()
        self.commands.clear()
        self.groups.clear()
        self.has_sends = self.has_fetches = False


class Together(Alone):
    """Carries out what several clients sent."""

    meter: Meter
    _clock: Clock
    # Mailboxes by the subjects of SENDs that were seen.
    _plain_sends: dict[bytes, bytes]

    @abstractmethod
    def handle(self, connection: Connection, requests: Sequence[Request]) -> int:
        """Carry out requests of one connection; return how many."""

    @abstractmethod
    def _run_timers(self, now_ms: int) -> bool:
        """Run what is due; whether that was possible."""

    @abstractmethod
    def _finish(self, now_ms: int) -> None:
        """Do what requests have set off."""

    def handle_all(self, parts: Sequence[Part]) -> list[int]:
        """Carry out requests of several connections, each there once; does what `handle` does, part by part.

        Returns:
            How many of each part were carried out, as `handle` does.
        """
        now_ms = self._clock.now_ms()
        if not self._run_timers(now_ms):
            return [self.handle(*part) for part in parts]
        batch = _Batch(now_ms)
        done = []
        for part in parts:
            if self._add(batch, part):
                done.append(len(part[1]))
            else:
                self._carry_out_batch(batch)
                done.append(self.handle(*part))
        self._carry_out_batch(batch)
        return done

    def _add(self, batch: _Batch, part: Part) -> bool:
        """Take a part into the batch, or carry it out at once if that is the same; False = neither."""
        requests = part[1]
        if len(requests) > 1:
            return self._add_sends(batch, part)
        request = requests[0]
        fetch = self._known_fetches.get((request[0], request[3]))
        if fetch is None:
            if request[0] in self._plain_sends:
                return self._add_sends(batch, part)
        elif not fetch.lease_ms:
            return self._look_beside(batch, part[0], request, fetch)
        elif fetch.force_deliver:
            return False
        return self._add_single(batch, part, fetch)

    def _add_sends(self, batch: _Batch, part: Part) -> bool:
        """Take in a part that is nothing but SENDs without options, to mailboxes that are known."""
        plain = self._plain_sends
        requests = part[1]
        try:
            commands: list[Command] = [
                (plain[subject], LANE_NORMAL, b"", payload, None)
                for subject, _, headers, payload in requests
                if headers is None
            ]
        except KeyError:
            return False
        if len(commands) != len(requests):
            return False
        if batch.has_fetches:
            # One that finds nothing begins to wait, and then these messages are for it.
            self._carry_out_batch(batch)
        batch.commands += commands
        batch.parts.append((part, None))
        batch.has_sends = True
        if self._waiting and any(plain[request[0]] in self._waiting for request in requests):
            # Whoever waits gets what this client sent, not what the next one does.
            self._carry_out_batch(batch)
        return True

    def _add_single(self, batch: _Batch, part: Part, fetch: MsgFetch | None) -> bool:
        """Take in a part that is one leased FETCH or one ACK."""
        command = self._single(part[1][0], fetch)
        if command is None:
            return False
        group = (command.address, command.group_name)
        if fetch is not None:
            batch.has_fetches = True
        elif names_last_alone(command):
            # What a FETCH before it delivered is known only when that was carried out.
            if group in batch.groups:
                self._carry_out_batch(batch)
            command = self._confirming(command)
        batch.commands.append(command)
        batch.parts.append((part, command))
        batch.groups.add(group)
        return True

    def _look_beside(self, batch: _Batch, connection: Connection, request: Request, fetch: MsgFetch) -> bool:
        """Carry out a FETCH that changes nothing, unless it would see what the batch does."""
        if batch.has_sends or (fetch.address, fetch.group_name) in batch.groups:
            return False
        began = perf_counter()
        if not self._look_alone(connection, request, fetch, batch.now_ms):
            return False
        self.meter.requests(FETCH, 1, perf_counter() - began)
        return True

    def _carry_out_batch(self, batch: _Batch) -> None:
        parts = batch.parts
        if not parts:
            return
        began = perf_counter()
        results = self._apply(batch.now_ms, batch.commands)
        counts = {_SEND: 0, FETCH: 0, ACK: 0}
        place = 0
        for (connection, requests), command in parts:
            if command is None:
                counts[_SEND] += len(requests)
                some = results[place : place + len(requests)]
                replies: list[tuple[bytes, bytes]] = []
                self._answer_each(requests, some, replies)
                if replies:
                    self._send(connection, replies)
            else:
                name = self._answer_alone(connection, requests[0][1], command, results[place])
                counts[name] += 1
            place += len(requests)
        self._finish(batch.now_ms)
        batch.clear()
        seconds = perf_counter() - began
        for name, times in counts.items():
            if times:
                self.meter.requests(name, times, seconds)
