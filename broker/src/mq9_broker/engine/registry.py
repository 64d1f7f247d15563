"""Agents: register, unregister, report, their ttl, and the list of all by name."""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import AgentDiscover, AgentRegister, AgentReport, AgentUnregister
from mq9_broker.engine.effects import AgentChanged, AgentRemoved
from mq9_broker.engine.keys import (
    AGENT,
    TIMER,
    agent_by_mailbox_prefix,
    two_numbers,
)
from mq9_broker.engine.settling import OK
from mq9_broker.store.sorted_map import end_of_prefix

if TYPE_CHECKING:
    from mq9_broker.engine.state import State

_AFTER_AGENTS: Final = end_of_prefix(AGENT)
# Cursors of this list; the search index has its own.
_CURSOR_MARK: Final = "n"
_FRAME: Final = len(b'{"error":"","agents":[],"meta":[],"cursor":""}')


class _Record(msgspec.Struct, array_like=True):
    body: bytes
    mailbox: str
    ttl_s: int
    registered_ms: int
    seen_ms: int
    status: bytes | None
    armed: int
    """When its entry in the queue of timers falls due, not after the end of its ttl; 0 = it has none."""


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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def _timer_key(due: int, name: str) -> bytes:
    return two_numbers(TIMER, due, 0) + name.encode()


def _load(state: "State", name: str) -> _Record | None:
    found = state.store.get(AGENT + name.encode())
    return None if found is None else _decode(found)


def _save(state: "State", name: str, record: _Record) -> None:
    state.store.put(AGENT + name.encode(), _encode(record))


def register(state: "State", command: AgentRegister) -> bytes:
    """Carries out AGENT.REGISTER."""
    name = command.name
    older = _load(state, name)
    if older is not None:
        _drop(state, name, older)
    else:
        most = state.limits.max_agents
        if most and state.counts[1] >= most:
            return errors.unavailable(f"there are {most} agents already, the most that this broker keeps")
        state.count(agents=1)
    record = _Record(command.card, command.mailbox, command.ttl, state.now, state.now, None, 0)
    if command.ttl:
        _arm(state, name, record)
    if command.mailbox:
        state.store.put(agent_by_mailbox_prefix(command.mailbox) + name.encode(), b"")
    _save(state, name, record)
    state.effects.append(AgentChanged(name))
    return OK


def _arm(state: "State", name: str, record: _Record) -> None:
    record.armed = record.seen_ms + 1000 * record.ttl_s
    state.store.put(_timer_key(record.armed, name), b"")
    state.expect_timer(record.armed)


def _drop(state: "State", name: str, record: _Record) -> None:
    if record.armed:
        state.store.delete(_timer_key(record.armed, name))
    if record.mailbox:
        state.store.delete(agent_by_mailbox_prefix(record.mailbox) + name.encode())
    state.store.delete(AGENT + name.encode())


def _named(state: "State", name: str, mailbox: str) -> list[str]:
    """The agents that an operation by name or mailbox concerns."""
    if name:
        return [name]
    prefix = agent_by_mailbox_prefix(mailbox)
    return [key[len(prefix) :].decode() for key, _ in state.store.scan(prefix, end_of_prefix(prefix))]


def unregister(state: "State", command: AgentUnregister) -> bytes:
    """Carries out AGENT.UNREGISTER."""
    for name in _named(state, command.name, command.mailbox):
        record = _load(state, name)
        if record is not None:
            state.count(agents=-1)
            _drop(state, name, record)
            state.effects.append(AgentRemoved(name))
    return OK


def report(state: "State", command: AgentReport) -> bytes:
    """Carries out AGENT.REPORT."""
    found = False
    for name in _named(state, command.name, command.mailbox):
        record = _load(state, name)
        if record is not None:
            found = True
            record.seen_ms = state.now
            record.status = command.status
            _save(state, name, record)
    return OK if found else errors.agent_not_found()


def end_agent(state: "State", due: int, name: str) -> None:
    """Runs an agent's timer: removes it, or waits on when it was seen since."""
    state.store.delete(_timer_key(due, name))
    record = _load(state, name)
    if record is None:
        raise LookupError(f"store has a timer of agent {name!r}, but not the agent")
    if record.seen_ms + 1000 * record.ttl_s > due:
        _arm(state, name, record)
        _save(state, name, record)
        return
    record.armed = 0
    state.count(agents=-1)
    _drop(state, name, record)
    state.effects.append(AgentRemoved(name))


def agent(state: "State", name: str) -> Agent | None:
    """The registered agent of that name."""
    record = _load(state, name)
    return None if record is None else _view(name, record)


def agents(state: "State", after: str | None = None) -> Iterator[Agent]:
    """The registered agents by name in byte order, those after ``after`` if it is given."""
    start = AGENT if after is None else AGENT + after.encode() + b"\x00"
    for key, value in state.store.scan(start, _AFTER_AGENTS):
        yield _view(key[len(AGENT) :].decode(), _decode(value))


def _view(name: str, record: _Record) -> Agent:
    return Agent(
        name,
        record.mailbox,
        record.body,
        record.seen_ms // 1000,
        record.registered_ms // 1000,
        record.status,
    )


def meta_json(found: Agent, score: bytes = b"") -> bytes:
    """An agent's entry of ``meta``; ``score`` = JSON text of its score, if there is one."""
    text = b'"last_seen":%d,"registered_at":%d' % (found.last_seen, found.registered_at)
    if score:
        text = b'"score":' + score + b"," + text
    if found.status is not None:
        text += b',"status":' + found.status
    return b"{" + text + b"}"


def discover(state: "State", command: AgentDiscover) -> bytes:
    """Carries out AGENT.DISCOVER without text and semantic."""
    after: str | None = None
    skip = (command.page - 1) * command.limit
    if command.cursor:
        skip = 0
        after = _name_in(command.cursor)
        if after is None:
            return errors.invalid_argument("cursor", "is not one that this broker gave out")
    bodies: list[bytes] = []
    metas: list[bytes] = []
    size = _FRAME
    cursor = b""
    last = ""
    for found in agents(state, after):
        if skip:
            skip -= 1
            continue
        meta = meta_json(found)
        size += len(found.body) + len(meta) + 2
        # The cursor's size depends on the name before it: room for the longest there can be is kept.
        if bodies and (
            len(bodies) == command.limit or size + 4 * len(last.encode()) > state.limits.max_reply
        ):
            cursor = _cursor(last)
            break
        bodies.append(found.body)
        metas.append(meta)
        last = found.name
    tail = b',"cursor":"%b"}' % cursor if cursor else b"}"
    return b'{"error":"","agents":[%b],"meta":[%b]%b' % (b",".join(bodies), b",".join(metas), tail)


def _cursor(name: str) -> bytes:
    return _CURSOR_MARK.encode() + urlsafe_b64encode(name.encode())


def _name_in(cursor: str) -> str | None:
    try:
        name = b64decode(cursor[1:].encode("ascii"), altchars=b"-_", validate=True).decode()
    except ValueError:
        return None
    return name if name and cursor.startswith(_CURSOR_MARK) else None
