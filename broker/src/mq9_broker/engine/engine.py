"""The engine: `Engine.apply` for what changes state, `Engine.read` for what does not."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from mq9_broker._generated import commands as operations
from mq9_broker._generated.commands import MsgFetch
from mq9_broker.engine import dead_letters, fetching, mailboxes, registry, settling, timers
from mq9_broker.engine.commands import AckRun, Command, OutboxRemove
from mq9_broker.engine.effects import DeadLetter, Effect
from mq9_broker.engine.fetching import FetchRead
from mq9_broker.engine.keys import ADDRESS, FORMAT, TIME, pack_u64, unpack_u64
from mq9_broker.engine.limits import EngineLimits
from mq9_broker.engine.mailbox import load_mailbox
from mq9_broker.engine.registry import Agent
from mq9_broker.engine.sending import SENT, send
from mq9_broker.engine.state import State
from mq9_broker.store.interface import Batch, Store, StoreUnavailableError
from mq9_broker.store.sorted_map import end_of_prefix

Result: TypeAlias = tuple[bytes, tuple[Effect, ...]]

#: Version of the key layout and value encodings, see README.md.
STORE_FORMAT: Final = b"mq9 1"


class FormatError(ValueError):
    """A store holds what this engine can't read; the message says what."""


def check_format(store: Store) -> bool:
    """Tells whether a store of this format was written, False = it is empty.

    Raises:
        FormatError: it holds something else.
    """
    written = store.get(FORMAT)
    if written is None:
        if store.first(b"", b"\xff" * 9) is not None:
            raise FormatError("the store was not written by mq9-broker")
        return False
    if written != STORE_FORMAT:
        raise FormatError(
            f"the store has format {written.decode(errors='replace')!r}; this version of mq9-broker reads "
            f"and writes {STORE_FORMAT.decode()!r}"
        )
    return True


class Applied(NamedTuple):
    """What one `Engine.apply` did."""

    results: list[Result]
    """One (reply, effects) per command, in order; the reply is the final JSON text."""
    timer_effects: tuple[Effect, ...]
    """Effects of the timers that ran before the first command."""


class MailboxFacts(NamedTuple):
    """What `Engine.mailbox_facts` tells of a mailbox."""

    address: bytes
    live: tuple[int, ...]
    """Messages per lane, with the expired ones that are not cleaned up yet."""
    delayed: int
    bytes_stored: int
    groups: int


_WRITES: Final[dict[type[msgspec.Struct], Callable[[State, Any], bytes]]] = {
    operations.MailboxCreate: mailboxes.create,
    operations.MailboxDelete: mailboxes.delete,
    operations.MsgFetch: fetching.fetch,
    operations.MsgAck: settling.acknowledge,
    AckRun: settling.acknowledge_run,
    operations.MsgNack: settling.give_back,
    operations.MsgRenew: settling.renew,
    operations.MsgDelete: mailboxes.delete_message,
    operations.AgentRegister: registry.register,
    operations.AgentUnregister: registry.unregister,
    operations.AgentReport: registry.report,
    OutboxRemove: dead_letters.remove_entry,
}
_READS: Final[dict[type[msgspec.Struct], Callable[[State, Any], bytes]]] = {
    operations.MailboxInfo: mailboxes.info,
    operations.MsgQuery: mailboxes.query,
    operations.AgentDiscover: registry.discover,
}
_HANDLERS: Final = _WRITES | _READS
_OPERATIONS: Final = frozenset(kind.__struct_config__.tag for kind in _HANDLERS)


class Engine:
    """Deterministic state machine over a store: no clock, no randomness, no I/O of its own.

    Args:
        store: An empty store, or one that an engine of this format has written.
        limits: Bounds of mailboxes and replies.
        message_cache: Bytes of messages that are kept beside the store, 8 MiB at least; more is worth it
            where that is on a disk.

    Raises:
        FormatError: the store was written in another format, or by something else.
    """

    next_due: Callable[[], int | None]
    """When the next tick is wanted (ms), None = never. May be early (a tick too many), is never late.

    After a tick it may still lie in the past: cleaning up goes on in bounded steps, so tick again soon.
    """

    def __init__(self, store: Store, limits: EngineLimits, message_cache: int = 0) -> None:
        self._state = State(store, limits, message_cache)
        # Asked for with every request: without a call of Python.
        self.next_due = partial(getattr, self._state, "earliest_timer")
        if not check_format(store):
            store.write(Batch((), ((FORMAT, STORE_FORMAT),)))
        self.reload()

    def reload(self) -> None:
        """Reads everything again: the store was opened anew, and may have lost what was not synced."""
        state = self._state
        state.forget()
        time = state.store.get(TIME)
        if time is not None:
            state.time = max(state.time, unpack_u64(time)[0])
        state.earliest_timer = timers.next_due(state)

    @property
    def time_ms(self) -> int:
        """The greatest time the engine has been given."""
        return self._state.time

    def apply(self, time_ms: int, commands: Sequence[Command]) -> Applied:
        """Runs the timers that are due at ``time_ms``, then the commands, as one atomic store batch.

        An empty ``commands`` is a tick. A time before `time_ms` counts as `time_ms`. Read commands are
        allowed too (their effects are empty, a FETCH reports `Fetched`).

        Raises:
            Exception: whatever the store raised; then nothing has changed and the engine can go on.
        """
        state = self._state
        since = state.time
        state.time = max(time_ms, since)
        try:
            return self._apply(since, state.time, commands)
        except BaseException:
            state.forget()
            state.time = since
            # Not at once again: as long as nothing can be written, reads are answered.
            self._look_for_timer()
            raise

    def _apply(self, since: int, time: int, commands: Sequence[Command]) -> Applied:
        state = self._state
        timer_effects: tuple[Effect, ...] = ()
        due = state.earliest_timer
        if due is not None and due <= time:
            timers.run_due(state, since, time)
            timer_effects = self._take_effects()
        state.now = time
        results: list[Result] = []
        add = results.append
        known = state.mailboxes
        changed = state.changed
        for command in commands:
            if isinstance(command, tuple):
                address, lane, headers, payload, options = command
                mailbox = known.get(address)
                if options is None and mailbox is not None and mailbox.next_id < mailbox.plain_limit:
                    # The hot path: everything that a SEND without options does.
                    msg_id = mailbox.next_id
                    mailbox.next_id = msg_id + 1
                    mailbox.unwritten[lane].append((msg_id, headers, payload))
                    if not mailbox.changed:
                        mailbox.changed = True
                        changed.append(mailbox)
                    add((SENT % msg_id, mailbox.sent_effects))
                    continue
                add((send(state, command), self._take_effects()))
            else:
                reply = _HANDLERS[type(command)](state, command)
                effects = state.effects
                if effects:
                    add((reply, tuple(effects)))
                    effects.clear()
                else:
                    add((reply, ()))
        if changed:
            state.write_changed()
        if time != since:
            state.store.put(TIME, pack_u64(time))
        state.store.commit()
        state.trim()
        if due is not None and due <= time:
            self._look_for_timer()
        return tuple.__new__(Applied, (results, timer_effects))

    def _look_for_timer(self) -> None:
        """Find out when the next timer is due; where the store can't tell, a tick at once does no harm."""
        self._state.earliest_timer = 0
        with contextlib.suppress(StoreUnavailableError):
            self._state.earliest_timer = timers.next_due(self._state)

    def _take_effects(self) -> tuple[Effect, ...]:
        effects = self._state.effects
        if not effects:
            return ()
        self._state.effects = []
        return tuple(effects)

    def read(self, time_ms: int, command: Command) -> bytes:
        """Answers MailboxInfo, MsgQuery, AgentDiscover or a MsgFetch that changes nothing (see `look`).

        Timers do not run here: when `next_due` is not after ``time_ms``, apply a tick first.
        """
        if isinstance(command, MsgFetch):
            return self.read_fetch(time_ms, command).reply
        self._state.now = max(time_ms, self._state.time)
        kind: type[Any] = type(command)
        return _READS[kind](self._state, command)

    def read_fetch(self, time_ms: int, command: MsgFetch) -> FetchRead:
        """Like `read`, with what the shell needs for un-leased batches and for waiting."""
        self._state.now = max(time_ms, self._state.time)
        return fetching.fetch_read(self._state, command)

    def look(self, time_ms: int, command: MsgFetch) -> FetchRead | None:
        """Answers a FETCH that changes nothing; None if it leases, resets or creates its group: then apply.

        Judged by the state after all that was applied so far, so apply what stands before it first.
        """
        self._state.now = max(time_ms, self._state.time)
        return fetching.look(self._state, command)

    def mailbox_facts(self, after: bytes, limit: int) -> list[MailboxFacts]:
        """Facts of the mailboxes with the next addresses behind ``after``, for those who keep watch.

        Cheap for each mailbox, whatever is in it; leaves the cache of mailboxes alone.
        """
        state = self._state
        found: list[MailboxFacts] = []
        for key, value in state.store.scan(ADDRESS + after + b"\x00", end_of_prefix(ADDRESS)):
            address = key[len(ADDRESS) :]
            mailbox = state.mailboxes.get(address) or load_mailbox(state, unpack_u64(value)[0])
            found.append(
                MailboxFacts(
                    address, tuple(mailbox.live), mailbox.delayed, mailbox.bytes_stored, mailbox.group_count
                )
            )
            if len(found) == limit:
                break
        return found

    def handles(self, operation: str) -> bool:
        """Tells whether there is a handler for the operation of this name."""
        return operation in _OPERATIONS

    def outbox(self) -> list[DeadLetter]:
        """All outbox entries that no OutboxRemove has removed: to be delivered after a restart."""
        return list(dead_letters.outbox(self._state))

    def agent(self, name: str) -> Agent | None:
        """The registered agent of that name."""
        return registry.agent(self._state, name)

    def agents(self, after: str | None = None) -> Iterator[Agent]:
        """The registered agents by name in byte order, those after a name if one is given."""
        return registry.agents(self._state, after)
