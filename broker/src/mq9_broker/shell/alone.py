"""A FETCH or an ACK that is all that a client sent at once, as most are: straight to the engine and back.

What comes out is what the way through a `Chunk` gives. `Shell` is this and everything else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from mq9_broker import native
from mq9_broker._generated import limits
from mq9_broker._generated.commands import MsgAck, MsgFetch
from mq9_broker.engine import Result
from mq9_broker.engine.commands import AckRun
from mq9_broker.engine.effects import Effect, Fetched
from mq9_broker.shell.chunk import Request
from mq9_broker.shell.refusal import SUCCESS
from mq9_broker.shell.router import Route, Router
from mq9_broker.shell.waiting import Connection, Waiter
from mq9_broker.shell.waking import Waking, fetched_by

FETCH: Final = "msg.fetch"
ACK: Final = "msg.ack"
_KNOWN_GROUPS: Final = 4096

# What can be carried out without a `Chunk`.
Single: TypeAlias = MsgFetch | MsgAck | AckRun


class Alone(Waking):
    """Carries out single requests, and answers those that were carried out with others."""

    _router: Router
    # By subject and body.
    _known_fetches: dict[tuple[bytes, bytes], MsgFetch]
    # Names of groups that were looked at, and are as the specification wants them.
    _known_groups: set[str]

    @abstractmethod
    def _decode(self, request: Request, route: Route) -> msgspec.Struct:
        """Return the command of a request, or raise RefusedError."""

    @abstractmethod
    def _count_failure(self, name: str, reply: bytes) -> None:
        """Count a reply that is an error."""

    def _carry_out_alone(self, connection: Connection, request: Request, now_ms: int) -> str:
        """Carry out one request and answer it; return its operation, or "" if nothing was done.

        What is wrong with a request, or fails, is left to the way through a `Chunk`, which meets it again.
        """
        fetch = self._known_fetches.get((request[0], request[3]))
        if fetch is not None and not fetch.lease_ms:
            return FETCH if self._look_alone(connection, request, fetch, now_ms) else ""
        command = self._single(request, fetch)
        if command is None:
            return ""
        (result,) = self._apply(now_ms, (self._confirming(command),))
        return self._answer_alone(connection, request[1], command, result)

    def _look_alone(self, connection: Connection, request: Request, fetch: MsgFetch, now_ms: int) -> bool:
        """Carry out and answer a FETCH that is known and changes nothing; False = it is not such a one."""
        reply_to = request[1]
        # Who began to wait before is served first.
        if reply_to is None or fetch.address in self._waiting.mailboxes:
            return False
        replies: list[tuple[bytes, bytes]] = []
        try:
            if not self._look(Waiter(connection, reply_to, fetch), now_ms, replies):
                return False
        except Exception:
            return False
        if replies:
            self._send(connection, replies)
        return True

    def _single(self, request: Request, fetch: MsgFetch | None) -> Single | None:
        """Return the command of a leased FETCH that is known, or of an ACK; None = it goes another way."""
        if fetch is not None:
            if request[1] is None or fetch.address in self._waiting.mailboxes:
                return None
            return fetch
        route = self._router.remembered.get(request[0])
        if route is None or route.operation.name != ACK:
            return None
        try:
            return self._ack_command(request, route)
        except Exception:
            return None

    def _answer_each(
        self, requests: Sequence[Request], results: Sequence[Result], replies: list[tuple[bytes, bytes]]
    ) -> None:
        """Note the replies to requests other than FETCHes, once they were carried out."""
        last: Sequence[Effect] = ()
        for (subject, reply_to, _, _), (reply, effects) in zip(requests, results, strict=True):
            if reply_to is not None:
                replies.append((reply_to, reply))
            if not effects:
                if not reply.startswith(SUCCESS):
                    self._count_failure(self._router.route(subject).operation.name, reply)
            # A run of SENDs to one mailbox has the very same effects.
            elif effects is not last:
                last = effects
                self._take_in(effects)

    def _answer_alone(
        self, connection: Connection, reply_to: bytes | None, command: Single, result: Result
    ) -> str:
        """Answer what `_single` gave, once it was carried out; return its operation."""
        reply, effects = result
        if isinstance(command, MsgFetch):
            assert reply_to is not None
            self._answer_leased(connection, reply_to, command, result)
            return FETCH
        if effects:
            self._take_in(effects)
        elif not reply.startswith(SUCCESS):
            self._count_failure(ACK, reply)
        if reply_to is not None:
            self._send(connection, [(reply_to, reply)])
        return ACK

    def _answer_leased(
        self, connection: Connection, reply_to: bytes, command: MsgFetch, result: Result
    ) -> None:
        reply, effects = result
        # What a FETCH brought is mostly all that it did.
        only = effects[0] if len(effects) == 1 else None
        fetched = only if isinstance(only, Fetched) else fetched_by(effects)
        if fetched is not only or fetched is None:
            self._take_in(effects)
        if fetched is not None and not fetched.msg_ids:
            replies: list[tuple[bytes, bytes]] = []
            self._wait(Waiter(connection, reply_to, command), reply, fetched.next_msg_id, replies)
            if replies:
                self._send(connection, replies)
            return
        if fetched is not None:
            self._remember(fetched)
        elif not effects and not reply.startswith(SUCCESS):
            self._count_failure(FETCH, reply)
        self._send(connection, [(reply_to, reply)])

    def _look(self, waiter: Waiter, now_ms: int, replies: list[tuple[bytes, bytes]]) -> bool:
        """Carry out a FETCH that changes nothing: it is answered, or waits; False = it is not such a one."""
        command = waiter.command
        found = self._engine.look(now_ms, command)
        if found is None:
            return False
        if found.incarnation and not found.msg_ids:
            self._wait(waiter, found.reply, found.next_msg_id, replies)
            return True
        if found.msg_ids and command.group_name:
            self._batches.delivered(command.address, command.group_name, found.msg_ids)
        replies.append((waiter.reply_to, found.reply))
        return True

    def _ack_command(self, request: Request, route: Route) -> MsgAck | AckRun:
        """Return the command of an ACK as it was sent; see `_confirming`.

        Raises:
            RefusedError: The request breaks a rule.
        """
        if native.consecutive_ids is not None:
            found = native.consecutive_ids(request[3], limits.MAX_MSG_IDS)
            if found is not None and found[0] in self._known_groups:
                group, first, last = found
                if last < 0:
                    return MsgAck(route.address, group, first)
                return AckRun(route.address, group, first, last)
        command = self._decode(request, route)
        assert isinstance(command, MsgAck)
        if len(self._known_groups) >= _KNOWN_GROUPS:
            self._known_groups.clear()
        self._known_groups.add(command.group_name)
        return command

    def _confirming(self, command: Single) -> Single:
        """Return an ACK with the exact ids it confirms: one msg_id stands for what came with it as well."""
        if not isinstance(command, MsgAck) or not names_last_alone(command):
            return command
        address, group = command.address, command.group_name
        assert command.msg_id is not None
        ids: Sequence[int] = self._batches.confirmed_by(address, group, command.msg_id)
        if isinstance(ids, range):
            return AckRun(address, group, ids[0], ids[-1])
        return MsgAck(address, group, None, tuple(ids))


def names_last_alone(command: Single) -> bool:
    """Whether an ACK names one msg_id, for all that was delivered with it."""
    return isinstance(command, MsgAck) and not command.msg_ids and command.msg_id is not None
