"""The shell: requests in, commands to the engine, replies out; and everything that happens later.

Life of a chunk of requests (all that one read of a socket brought in; `Together` joins those of several):

    handle: decode each request -+-> commands, collected -> Engine.apply, once -+-> replies, written once
                                 |                                              |
                                 +-> a read: what was collected                 +-> effects: waiting FETCHes,
                                     so far is applied first                        dead letters, search index

What an effect sets off (a FETCH that is woken, a dead letter that is delivered) may have effects itself;
`_settle` goes on until nothing is left. Nothing here awaits: the engine's state changes only inside these
calls.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import length_hint
from time import perf_counter
from typing import Final

import msgspec

from mq9_broker._generated import errors, limits
from mq9_broker._generated.commands import AgentDiscover, AgentReport, MsgFetch
from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.clock import Clock, ManualClock
from mq9_broker.engine import Engine, Result
from mq9_broker.engine.commands import LANE_NORMAL, Command
from mq9_broker.engine.effects import (
    AgentChanged,
    AgentRemoved,
    DeadLetter,
    DeadLetterDropped,
    Deliverable,
    Effect,
    Fetched,
    GroupReset,
    MailboxGone,
)
from mq9_broker.observe.meter import Meter
from mq9_broker.search.interface import Search
from mq9_broker.shell.alone import names_last_alone
from mq9_broker.shell.batches import Batches
from mq9_broker.shell.bodies import BodyDecoder
from mq9_broker.shell.chunk import Chunk, EnoughError, Request
from mq9_broker.shell.counters import Counters
from mq9_broker.shell.description import Operation
from mq9_broker.shell.discovery import Discovery, RegisteredAgents
from mq9_broker.shell.headers import HeaderDecoder
from mq9_broker.shell.outbox import Outbox
from mq9_broker.shell.refusal import SUCCESS, RefusedError, code_of
from mq9_broker.shell.reports import status_of
from mq9_broker.shell.router import REMEMBERED_SUBJECTS, Route, Router
from mq9_broker.shell.together import Together
from mq9_broker.shell.waiting import Connection, Waiter, WaitingRoom
from mq9_broker.shell.waking import SHUTDOWN, ShellOptions, fetched_by
from mq9_broker.store import StoreUnavailableError

_log = logging.getLogger(__name__)

# A timer further away is looked at again after that many seconds, in case the computer's clock was moved.
_LONGEST_SLEEP_S: Final = 60.0
# What failed because of the broker itself (its store, say) is tried again after that many seconds.
_RETRY_S: Final = 1.0
# FETCHes remembered with their command, and how long their bodies may be.
_KNOWN_FETCHES: Final = 4096
_LONGEST_KNOWN_FETCH: Final = 512

# The partition that all agents are in, and how many requests to it may wait for a search of their connection.
_REGISTRY: Final = "registry"
_MOST_HELD: Final = 10_000
_TOO_MANY_HELD: Final = errors.unavailable(f"{_MOST_HELD} requests wait for this connection's search already")
# How requests below no known subject are counted.
_UNKNOWN_OPERATION: Final = "unknown"
_STORE_UNAVAILABLE: Final = errors.unavailable("the store cannot be written; the broker's log says why")


class Shell(Together):
    """Carries out requests below `$mq9.AI.`; the handler of every transport.

    Args:
        engine: The state machine; from now on nobody else may call it.
        clock: The time that stored deadlines are compared with. A `ManualClock` moves only by
            `advance_clock`.
        options: Bounds.
        search: The index of what is registered; without, one in this process, by words alone.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        options: ShellOptions | None = None,
        search: Search | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._options = options if options is not None else ShellOptions()
        self.counters = Counters()
        self.meter = Meter()
        self._waiting = WaitingRoom()
        self._batches = Batches()
        if search is None:
            # Only here: what it needs is large, and the broker has it in another process.
            from mq9_broker.search.inline import InlineSearch  # noqa: PLC0415

            search = InlineSearch(RegisteredAgents(engine))
        self._search = search
        self._discovery = Discovery(engine, search, self._options.max_reply)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._send: Callable[[Connection, list[tuple[bytes, bytes]]], None] = _send_now
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: int | None = None
        self._retries: set[asyncio.TimerHandle] = set()
        self._stopping = False
        # Timers are due that can't run because the store can't be written.
        self._is_overdue = False
        # Connections with a search under way, each with its requests to the registry that came after it.
        self._held: dict[Connection, list[Request]] = {}
        # Mailboxes where something became deliverable, each with the groups concerned ("" = all).
        self._ready: dict[bytes, set[str]] = {}
        self._outbox = Outbox(self._apply, self._take_in, self.counters)
        # Answers to FETCHes that waited, by connection.
        self._answers: dict[Connection, list[tuple[bytes, bytes]]] = {}
        self._router = Router(OPERATIONS)
        self._plain_sends: dict[bytes, bytes] = {}
        self._known_fetches: dict[tuple[bytes, bytes], MsgFetch] = {}
        self._known_groups: set[str] = set()
        self._decoders: dict[str, BodyDecoder] = {}
        self._handlers: dict[str, Callable[[Chunk, Request, Route], None]] = {}
        special: dict[str, Callable[[Chunk, Request, Route], None]] = {
            "msg.fetch": self._fetch,
            "msg.ack": self._ack,
            "agent.report": self._report,
            "agent.discover": self._discover,
        }
        for operation in OPERATIONS:
            self._handlers[operation.name] = special.get(operation.name, self._handler_of(operation))
            if operation.command is not None:
                self._decoders[operation.name] = BodyDecoder(operation, _new_address)

    # Life.

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Connection, list[tuple[bytes, bytes]]], None] | None = None,
    ) -> None:
        """Begin: fill the search index, deliver what is left in outboxes, run timers that fell due meanwhile.

        Args:
            loop: The event loop in which all other methods are called.
            send: Sends replies of a connection, now or later, but in order; `GroupCommit.send` for one.
        """
        self._loop = loop
        if send is not None:
            self._send = send
        self._resume()

    def store_recovered(self) -> None:
        """Go on with a store that was opened anew after a failure."""
        self._engine.reload()
        self._resume()

    def _resume(self) -> None:
        self._search.start()
        self._outbox.add(self._engine.outbox())
        self._tick(self._clock.now_ms())

    def shutdown(self) -> None:
        """Answer every waiting FETCH `unavailable`, and from now on every FETCH that would have to wait."""
        self._stopping = True
        for waiter in tuple(self._waiting):
            self._end(waiter, SHUTDOWN, "shutdown")
        self._send_answers()

    def close(self) -> None:
        """End: stop all timers. No other method may be called afterwards."""
        for waiter in tuple(self._waiting):
            self._waiting.remove(waiter)
        for timer in (self._timer, *self._retries):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._retries.clear()
        self._search.close()

    # What transports call.

    def handle(self, connection: Connection, requests: Sequence[Request]) -> int:
        """Carry out requests of one connection in the order in which they were sent.

        Never raises for what a request holds; answers with `connection.send_replies`, at once or later.

        Returns:
            How many were carried out: all, or those before the one with which their replies could become too
            many bytes.
        """
        engine = self._engine
        now_ms = self._clock.now_ms()
        began = perf_counter()
        due = engine.next_due()
        if due is not None and due <= now_ms:
            self._tick(now_ms)
            if self._is_overdue:
                # Timers that have not run yet: nothing that could be answered is true.
                replies = [(reply_to, _STORE_UNAVAILABLE) for _, reply_to, _, _ in requests if reply_to]
                self._send(connection, replies)
                return len(requests)
        if len(requests) == 1 and requests[0][0] not in self._plain_sends:
            name = self._carry_out_alone(connection, requests[0], now_ms)
            if name:
                self._finish(now_ms)
                self.meter.requests(name, 1, perf_counter() - began)
                return 1
        chunk = Chunk(connection, now_ms)
        commands, collected = chunk.commands, chunk.requests
        plain_sends, known_routes = self._plain_sends, self._router.remembered
        waiting = iter(requests)
        left = held = 0
        seen: dict[str, int] = {}  # requests by operation, but for plain SENDs
        for request in waiting:
            subject, reply_to, headers, payload = request
            if headers is None and subject in plain_sends:
                commands.append((plain_sends[subject], LANE_NORMAL, b"", payload, None))
                collected.append(request)
                continue
            name = _UNKNOWN_OPERATION
            try:
                route = known_routes.get(subject) or self._router.route(subject)
                name = route.operation.name
                if connection in self._held and route.operation.partition == _REGISTRY:
                    self._hold(connection, request)
                    held += 1
                    continue
                self._handlers[name](chunk, request, route)
                seen[name] = seen.get(name, 0) + 1
            except EnoughError:
                left = 1 + length_hint(waiting)
                break
            except RefusedError as refused:
                seen[name] = seen.get(name, 0) + 1
                self.meter.failed[name, code_of(refused.reply)] += 1
                self._apply_chunk(chunk)  # replies go out in the order of the requests
                chunk.reply(reply_to, refused.reply)
            except Exception:
                seen[name] = seen.get(name, 0) + 1
                internal = self._internal_error(f"request {subject!r}")
                self.meter.failed[name, code_of(internal)] += 1
                self._apply_chunk(chunk)
                chunk.reply(reply_to, internal)
        self._apply_chunk(chunk)
        if chunk.replies:
            self._send(connection, chunk.replies)
        self._finish(now_ms)
        done = len(requests) - left
        seconds = perf_counter() - began
        plain = done - held - sum(seen.values()) if seen or held else done
        if plain:
            self.meter.requests("msg.send", plain, seconds)
        for name, times in seen.items():
            self.meter.requests(name, times, seconds)
        return done

    def _run_timers(self, now_ms: int) -> bool:
        due = self._engine.next_due()
        if due is not None and due <= now_ms:
            self._tick(now_ms)
            return not self._is_overdue
        return True

    def _finish(self, now_ms: int) -> None:
        """Do what the requests of one call have set off."""
        if self._ready or self._outbox.letters or self._answers:
            self._settle(now_ms)
        due = self._engine.next_due()
        if due is not None and (self._timer_due is None or due < self._timer_due):
            self._schedule()  # a timer that is too early by now is cheaper than one moved again and again

    def connection_closed(self, connection: Connection) -> None:
        """Forget the waiting FETCHes of a connection that has ended."""
        for waiter in self._waiting.of(connection):
            self._drop(waiter)
        self._held.pop(connection, None)

    def advance_clock(self, milliseconds: int) -> None:
        """Move the test clock, and return when every timer that is due then has run, with all it sets off.

        Raises:
            TypeError: The clock is not a test clock.
            ValueError: `milliseconds` is negative.
            RuntimeError: A timer failed; the log has details.
        """
        if not isinstance(self._clock, ManualClock):
            raise TypeError("only a test clock can be moved")
        now_ms = self._clock.advance(milliseconds)
        is_done = False
        while not is_done:
            if not self._tick(now_ms):
                raise RuntimeError("a timer failed")
            due = self._engine.next_due()
            is_done = due is None or due > now_ms

    @property
    def waiting(self) -> int:
        """How many FETCHes wait now."""
        return len(self._waiting)

    @property
    def agent_count(self) -> int:
        """How many agents are registered."""
        return self._search.agents

    # Requests, one by one. Each handler collects a command, or answers.

    def _handler_of(self, operation: Operation) -> Callable[[Chunk, Request, Route], None]:
        if operation.body == "payload":
            return self._sender(operation)
        if not self._engine.handles(operation.name):
            refused = errors.unsupported_operation(f"this broker does not know {operation.name}")
            return lambda chunk, request, _: chunk.reply(request[1], refused)
        return self._write if operation.effect == "write" else self._read

    def _sender(self, operation: Operation) -> Callable[[Chunk, Request, Route], None]:
        decode = HeaderDecoder(operation).decode

        def send(chunk: Chunk, request: Request, route: Route) -> None:
            subject, _, headers, payload = request
            lane, kept, options = decode(headers) if headers is not None else (LANE_NORMAL, b"", None)
            chunk.collect((route.address, lane, kept, payload, options), request)
            if len(self._plain_sends) >= REMEMBERED_SUBJECTS:
                self._plain_sends.clear()
            self._plain_sends[subject] = route.address

        return send

    def _write(self, chunk: Chunk, request: Request, route: Route) -> None:
        chunk.collect(self._decode(request, route), request)

    def _read(self, chunk: Chunk, request: Request, route: Route) -> None:
        reply_to = request[1]
        if reply_to is None:
            return
        chunk.count_read()
        command = self._decode(request, route)
        self._catch_up(chunk)
        chunk.replies.append((reply_to, self._engine.read(chunk.now_ms, command)))

    def _report(self, chunk: Chunk, request: Request, route: Route) -> None:
        command = self._decode(request, route)
        assert isinstance(command, AgentReport)
        status = status_of(command.status)
        chunk.collect(msgspec.structs.replace(command, status=status), request)

    def _discover(self, chunk: Chunk, request: Request, route: Route) -> None:
        reply_to = request[1]
        if reply_to is None:
            return
        chunk.count_read()
        command = self._decode(request, route)
        assert isinstance(command, AgentDiscover)
        self._catch_up(chunk)
        if not command.text and not command.semantic:
            chunk.replies.append((reply_to, self._engine.read(chunk.now_ms, command)))
            return
        connection = chunk.connection
        in_time: list[bytes] = []
        is_over = False

        def reply(text: bytes) -> None:
            if not is_over:
                in_time.append(text)
                return
            held = self._held.pop(connection, None)
            if not connection.is_closed:
                self._send(connection, [(reply_to, text)])
                while held:
                    held = held[self.handle(connection, held) :]
                    if connection in self._held:  # one of them was a search
                        self._held[connection] += held
                        break

        self._discovery.answer(command, reply)
        is_over = True
        if in_time:
            chunk.replies.append((reply_to, in_time[0]))
        else:
            self._held[connection] = []

    def _hold(self, connection: Connection, request: Request) -> None:
        """Keep a request to the registry until a search of the same connection, sent before, is answered.

        Raises:
            RefusedError: Too many are kept already.
        """
        held = self._held[connection]
        if len(held) >= _MOST_HELD:
            raise RefusedError(_TOO_MANY_HELD)
        held.append(request)

    def _ack(self, chunk: Chunk, request: Request, route: Route) -> None:
        command = self._ack_command(request, route)
        # What the FETCHes before it delivered is known only when they have been carried out.
        if chunk.fetches and names_last_alone(command):
            self._apply_chunk(chunk)
        chunk.collect(self._confirming(command), request)

    def _fetch(self, chunk: Chunk, request: Request, route: Route) -> None:
        reply_to = request[1]
        if reply_to is None:
            return
        chunk.count_read()
        command = self._decode_fetch(request, route)
        if command.address in self._waiting or len(chunk.commands) > len(chunk.fetches) > 0:
            # Who began to wait before, in this chunk or earlier, is served first.
            self._catch_up(chunk)
        waiter = Waiter(chunk.connection, reply_to, command)
        if not command.lease_ms:
            self._apply_chunk(chunk)
            if self._look(waiter, chunk.now_ms, chunk.replies):
                return
        chunk.fetches[len(chunk.commands)] = waiter
        chunk.collect(command, request)

    def _decode_fetch(self, request: Request, route: Route) -> MsgFetch:
        # A consumer sends the very same FETCH again and again.
        key = (request[0], request[3])
        command = self._known_fetches.get(key)
        if command is None:
            decoded = self._decode(request, route)
            assert isinstance(decoded, MsgFetch)
            command = decoded
            if len(key[1]) <= _LONGEST_KNOWN_FETCH:
                if len(self._known_fetches) >= _KNOWN_FETCHES:
                    self._known_fetches.clear()
                self._known_fetches[key] = command
        return command

    def _decode(self, request: Request, route: Route) -> msgspec.Struct:
        decoder = self._decoders[route.operation.name]
        return decoder.shortcut(route.address, request[3]) or decoder.decode(route.values, request[3])

    # The engine.

    def _apply_chunk(self, chunk: Chunk) -> None:
        """Carry out what was collected so far, and answer it."""
        commands = chunk.commands
        if not commands:
            return
        results = self._apply(chunk.now_ms, commands)
        if chunk.fetches:
            self._answer_with_fetches(chunk, results)
        else:
            self._answer_each(chunk.requests, results, chunk.replies)
        commands.clear()
        chunk.requests.clear()
        chunk.fetches.clear()

    def _catch_up(self, chunk: Chunk) -> None:
        """Carry out what was collected so far, and all that it sets off."""
        self._apply_chunk(chunk)
        self._settle(chunk.now_ms)

    def _apply(self, now_ms: int, commands: Sequence[Command]) -> Sequence[Result]:
        """Let the engine carry out commands; where one fails unexpectedly, the others all the same."""
        try:
            results, timer_effects = self._engine.apply(now_ms, commands)
        except StoreUnavailableError:
            return [(_STORE_UNAVAILABLE, ())] * len(commands)
        except Exception:
            if len(commands) == 1:
                return [(self._internal_error(f"command {commands[0]!r:.200}"), ())]
            # Nothing has changed. One by one, only those are lost that can't be carried out.
            return [result for command in commands for result in self._apply(now_ms, [command])]
        if timer_effects:
            self._take_in(timer_effects)
        return results

    def _answer_with_fetches(self, chunk: Chunk, results: Sequence[Result]) -> None:
        """Answer commands among which there are FETCHes: those that found nothing may wait."""
        for place, (request, (reply, effects)) in enumerate(zip(chunk.requests, results, strict=True)):
            # What a FETCH brought is mostly all that it did.
            only = effects[0] if len(effects) == 1 else None
            if not isinstance(only, Fetched):
                self._take_in(effects)
                if not effects and not reply.startswith(SUCCESS):
                    self._count_failure(self._router.route(request[0]).operation.name, reply)
            waiter = chunk.fetches.get(place)
            if waiter is not None:
                fetched = only if isinstance(only, Fetched) else fetched_by(effects)
                if fetched is not None and not fetched.msg_ids:
                    self._wait(waiter, reply, fetched.next_msg_id, chunk.replies)
                    continue
                if fetched is not None:
                    self._remember(fetched)
            chunk.reply(request[1], reply)

    def _count_failure(self, name: str, reply: bytes) -> None:
        self.meter.failed[name, code_of(reply)] += 1

    def _remember(self, fetched: Fetched) -> None:
        if not fetched.group or not fetched.msg_ids:
            return
        if fetched.leased:
            self.counters.leased_messages += len(fetched.msg_ids)
            self._batches.leased(fetched.address, fetched.group, fetched.msg_ids)
        else:
            self._batches.delivered(fetched.address, fetched.group, fetched.msg_ids)

    def _take_in(self, effects: Iterable[Effect]) -> None:
        """Note what effects ask for; `_settle` does it."""
        for effect in effects:
            if isinstance(effect, Deliverable):
                if effect.group:
                    self.counters.returns += 1
                if effect.address in self._waiting:
                    self._ready.setdefault(effect.address, set()).add(effect.group)
            elif isinstance(effect, MailboxGone):
                self._batches.forget_mailbox(effect.address)
                self._ready.pop(effect.address, None)
                if effect.address in self._waiting:
                    gone = errors.mailbox_not_found(effect.address.decode())
                    for waiter in self._waiting.at(effect.address):
                        self._end(waiter, gone, "gone")
            elif isinstance(effect, GroupReset):
                self._batches.forget(effect.address, effect.group)
            elif isinstance(effect, DeadLetter):
                self._outbox.add((effect,))
            elif isinstance(effect, DeadLetterDropped):
                self.counters.dead_letters_dropped[effect.reason] += 1
            elif isinstance(effect, AgentChanged | AgentRemoved):
                try:
                    self._search.changed(effect.name)
                except Exception:
                    self._internal_error(f"search index, agent {effect.name!r}")

    def _settle(self, now_ms: int) -> None:
        """Wake, deliver and answer until nothing is left to do."""
        while self._ready or self._outbox:
            if self._ready:
                address = next(iter(self._ready))
                self._wake(now_ms, address, self._ready.pop(address))
            elif failed := self._outbox.deliver(now_ms):
                self._try_again(failed)
        self._send_answers()

    def _tick(self, now_ms: int) -> bool:
        """Run the engine's timers up to now; whether that was possible."""
        pause_s = 0.0
        try:
            applied = self._engine.apply(now_ms, [])
        except Exception as error:
            self._internal_error("timers")
            self._is_overdue = isinstance(error, StoreUnavailableError)
            pause_s = _RETRY_S
        else:
            self._is_overdue = False
            self._take_in(applied.timer_effects)
        self._settle(now_ms)
        self._schedule(pause_s)
        return not pause_s

    def _schedule(self, at_least_s: float = 0.0) -> None:
        """See to it that the next timer of the engine runs when it is due, but not before some seconds."""
        due = self._engine.next_due()
        if self._loop is None or isinstance(self._clock, ManualClock):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = due
        if due is None:
            return
        wait_s = max(min((due - self._clock.now_ms()) / 1000, _LONGEST_SLEEP_S), at_least_s, 0.0)
        self._timer = self._loop.call_later(wait_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now_ms = self._clock.now_ms()
        due = self._engine.next_due()
        if due is not None and due <= now_ms:
            self._tick(now_ms)
        else:
            self._schedule()

    # FETCHes that wait.

    def _try_again(self, letters: list[DeadLetter]) -> None:
        """Deliver dead letters a little later; a restart would find them in their outboxes too."""
        if self._loop is None:
            return

        def again() -> None:
            self._retries.discard(timer)
            self._outbox.add(letters)
            self._settle(self._clock.now_ms())
            self._schedule()

        timer = self._loop.call_later(_RETRY_S, again)
        self._retries.add(timer)

    def _internal_error(self, what: str) -> bytes:
        """Log the exception at hand and return the reply for it."""
        if isinstance(sys.exc_info()[1], StoreUnavailableError):  # whoever keeps the store has said so
            return _STORE_UNAVAILABLE
        self.counters.internal_errors += 1
        error_id = secrets.token_hex(4)
        _log.exception("error %s: unexpected failure: %s", error_id, what, extra={"error_id": error_id})
        return errors.internal(f"the broker's log has it as error {error_id}")


def _send_now(connection: Connection, replies: list[tuple[bytes, bytes]]) -> None:
    connection.send_replies(replies)


def _new_address() -> str:
    """Return an address that nobody can guess."""
    return secrets.token_hex(limits.GENERATED_ADDRESS_BITS // 8)
