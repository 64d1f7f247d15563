"""The engine: `apply` for what changes state, `read` for what does not."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from mq9_broker._generated.commands import MsgFetch
from mq9_broker.engine.commands import Command
from mq9_broker.engine.effects import DeadLetter, Effect
from mq9_broker.engine.limits import EngineLimits
from mq9_broker.store import Store

Result: TypeAlias = tuple[bytes, tuple[Effect, ...]]


class Applied(NamedTuple):
    """What one `Engine.apply` did."""

    results: list[Result]
    """One (reply, effects) per command, in order; the reply is the final JSON text."""
    timer_effects: tuple[Effect, ...]
    """Effects of the timers that ran before the first command."""


class FetchRead(NamedTuple):
    """What a FETCH that changes nothing brought."""

    reply: bytes
    msg_ids: tuple[int, ...]
    """In the order of the batch."""
    incarnation: int
    """0 = the reply is an error: answer it at once."""
    next_msg_id: int
    """For `commands.repeat_of`."""


class Agent(NamedTuple):
    """A registered agent, as DISCOVER shows it."""

    name: str
    mailbox: str
    body: bytes
    """JSON text as registered."""
    last_seen: int
    """Unix seconds."""
    registered_at: int
    """Unix seconds."""
    status: bytes | None
    """JSON text, None before the first REPORT."""


class Engine:
    """Deterministic state machine over a store: no clock, no randomness, no I/O of its own."""

    def __init__(self, store: Store, limits: EngineLimits) -> None:
        raise NotImplementedError

    @property
    def time_ms(self) -> int:
        """The greatest time the engine has been given."""
        raise NotImplementedError

    def apply(self, time_ms: int, commands: Sequence[Command]) -> Applied:
        """Runs the timers that are due at ``time_ms``, then the commands, as one atomic store batch.

        An empty ``commands`` is a tick. A time before `time_ms` counts as `time_ms`. Read commands are
        allowed too (their effects are empty, a FETCH reports `Fetched`).

        Raises:
            Exception: whatever the store raised; then nothing has changed and the engine can go on.
        """
        raise NotImplementedError

    def read(self, time_ms: int, command: Command) -> bytes:
        """Answers MailboxInfo, Query, AgentDiscover or a FETCH for which `fetch_is_write` is false.

        Timers do not run here: when `next_due` is not after ``time_ms``, apply a tick first.
        """
        raise NotImplementedError

    def read_fetch(self, time_ms: int, command: MsgFetch) -> FetchRead:
        """Like `read`, with what the shell needs for un-leased batches and for waiting."""
        raise NotImplementedError

    def fetch_is_write(self, command: MsgFetch) -> bool:
        """Tells whether this FETCH has to go through `apply` now: it leases, resets, or creates its group.

        Judged by the state after all that was applied so far, so apply what stands before it first.
        """
        raise NotImplementedError

    def next_due(self) -> int | None:
        """When the next tick is wanted (ms), None = never. May be early (a tick too many), is never late.

        After a tick it may still lie in the past: cleaning up goes on in bounded steps, so tick again soon.
        """
        raise NotImplementedError

    def outbox(self) -> Iterator[DeadLetter]:
        """All outbox entries that no OutboxRemove has removed: to be delivered after a restart."""
        raise NotImplementedError

    def agent(self, name: str) -> Agent | None:
        """The registered agent of that name."""
        raise NotImplementedError

    def agents(self) -> Iterator[Agent]:
        """All registered agents by name in byte order, to build a search index."""
        raise NotImplementedError
