"""Commands of the engine: what may be asked of it, and the byte form in which a log keeps it.

A command is already syntactically valid: the shell has checked addresses, bounds, header values and
required fields (spec/). The engine checks state only (does the mailbox exist, is it full, ...).

Conventions:

* Addresses are ASCII ``bytes`` (``b"agents.alice"``); other names are ``str``.
* Fields ending in ``_s`` are seconds, in ``_ms`` milliseconds; 0 means "not given".
* ``group == ""`` and ``lease_id == ""`` mean "not given".
* SEND is the hot path and therefore a plain tuple, see `SendCommand`; every other command is a frozen struct.

Byte form: one version byte (`BYTE_FORM_VERSION`) and one MessagePack array ``[operation number, field, ...]``
with the fields in the order of the classes below. Equal commands have equal bytes.
"""

from typing import Final, NamedTuple, TypeAlias

import msgspec

BYTE_FORM_VERSION: Final = 1

LANE_CRITICAL: Final = 0
LANE_URGENT: Final = 1
LANE_NORMAL: Final = 2
#: Priority names by lane number; a lower lane number is delivered first.
PRIORITIES: Final = ("critical", "urgent", "normal")


class SendOptions(NamedTuple):
    """The rarely used parts of a SEND. Pass ``None`` instead of an instance in which everything is empty."""

    key: str = ""
    """Compaction key; "" = none."""
    delay_s: int = 0
    """Seconds until the message appears; 0 = at once."""
    ttl_s: int = 0
    """Seconds from acceptance until the message is gone; 0 = never."""
    tags: tuple[str, ...] = ()
    """Trimmed, without repeats, in order."""
    dedup_id: str = ""
    """Deduplication id; "" = none."""


#: ``(address, lane, header block, payload, options)``.
#:
#: * lane: `LANE_CRITICAL`, `LANE_URGENT` or `LANE_NORMAL`.
#: * header block: the raw NATS block ``b"NATS/1.0\r\n...\r\n\r\n"`` as received (valid UTF-8), or ``b""``
#:   when there is none. The headers which the protocol interprets may still be in it: they are left out
#:   of ``headers`` when the message is delivered.
#: * options: ``None`` for a plain SEND (no key, delay, ttl, tags, dedup-id).
SendCommand: TypeAlias = tuple[bytes, int, bytes, bytes, SendOptions | None]


class MailboxCreate(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Creates a mailbox. Write."""

    address: bytes
    """Chosen by the client, or made by the shell (128 random bits) when left out."""
    ttl_s: int = 0
    desc: str = ""
    max_deliveries: int = 0
    dead_letter: bytes = b""


class MailboxInfo(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Describes a mailbox. Read."""

    address: bytes


class MailboxDelete(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Removes a mailbox with everything in it. Write."""

    address: bytes


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Takes messages. Write or read: ask `Engine.fetch_is_write`. Waiting is the shell's."""

    address: bytes
    group: str = ""
    """"" = stateless."""
    deliver: str = "latest"
    """latest | earliest | from_time | from_id."""
    from_time: int = 0
    """Whole Unix seconds, for ``deliver == "from_time"``."""
    from_id: int = 0
    """For ``deliver == "from_id"``, inclusive."""
    force_deliver: bool = False
    """The group starts anew at ``deliver``. Ignored without a group."""
    num_msgs: int = 100
    lease_ms: int = 0
    """0 = without lease. Never above 0 without a group."""


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Confirms exactly ``msg_ids`` for the group; the shell has resolved un-leased batches. Write."""

    address: bytes
    group: str
    msg_ids: tuple[int, ...]


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Gives leased messages back, at once or after ``delay_ms``. Write."""

    address: bytes
    group: str
    msg_ids: tuple[int, ...]
    lease_id: str = ""
    delay_ms: int = 0


class Renew(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Prolongs the lease of messages until now + ``lease_ms``. Write."""

    address: bytes
    group: str
    msg_ids: tuple[int, ...]
    lease_id: str = ""
    lease_ms: int = 0


class Query(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Looks at messages without touching any progress. Read."""

    address: bytes
    key: str = ""
    tags: tuple[str, ...] = ()
    since: int | None = None
    """Whole Unix seconds."""
    from_id: int | None = None
    limit: int = 100


class MessageDelete(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Removes one message for everybody. Write."""

    address: bytes
    msg_id: int


class AgentRegister(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Inserts or replaces an agent. Write."""

    name: str
    mailbox: str
    """The body's ``mailbox`` when it is a string, else ""."""
    body: bytes
    """The request's JSON text, untouched."""
    ttl_s: int = 0


class AgentUnregister(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Removes the agent named ``name``, or when that is "" every agent with this ``mailbox``. Write."""

    name: str = ""
    mailbox: str = ""


class AgentReport(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Marks the agent ``name``, or when that is "" every agent with this ``mailbox``, as alive. Write."""

    name: str = ""
    mailbox: str = ""
    status: bytes = b"{}"
    """JSON text of the REPORT's body without ``name`` and ``mailbox``."""


class AgentDiscover(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Lists all agents by name in byte order (without text and semantic: those are the shell's). Read."""

    limit: int = 20
    page: int = 1
    cursor: str = ""
    """From an earlier reply; wins over ``page``."""


class OutboxRemove(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """Removes an outbox entry once its dead letter is delivered or given up. No reply to anybody. Write."""

    address: bytes
    """The source mailbox (partition key); it may be gone by now."""
    incarnation: int
    entry: int


StructCommand: TypeAlias = (
    MailboxCreate
    | MailboxInfo
    | MailboxDelete
    | Fetch
    | Ack
    | Nack
    | Renew
    | Query
    | MessageDelete
    | AgentRegister
    | AgentUnregister
    | AgentReport
    | AgentDiscover
    | OutboxRemove
)
Command: TypeAlias = SendCommand | StructCommand


class _SendForm(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Byte form of `SendCommand`."""

    address: bytes
    lane: int
    headers: bytes
    payload: bytes
    options: SendOptions | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_SendForm | StructCommand)
_VERSION_BYTE: Final = bytes([BYTE_FORM_VERSION])


def encode_command(command: Command) -> bytes:
    """Returns the command's byte form."""
    if isinstance(command, tuple):
        return _VERSION_BYTE + _encode(_SendForm(*command))
    return _VERSION_BYTE + _encode(command)


def decode_command(data: bytes) -> Command:
    """Returns the command that `encode_command` turned into ``data``.

    Raises:
        ValueError: ``data`` is of another version or is no command.
    """
    if data[:1] != _VERSION_BYTE:
        raise ValueError(f"command has byte form version {data[:1]!r}, expected {_VERSION_BYTE!r}")
    command: _SendForm | StructCommand = _decoder.decode(memoryview(data)[1:])
    if isinstance(command, _SendForm):
        return (command.address, command.lane, command.headers, command.payload, command.options)
    return command


def repeat_of(command: Fetch, next_msg_id: int) -> Fetch:
    """Returns the FETCH with which a waiter that came up empty asks again.

    A group is at its start by now and must not be reset again; a stateless ``latest`` keeps meaning "from the
    moment it was accepted", so it becomes ``from_id`` with the ``next_msg_id`` reported then.
    """
    if not command.group and command.deliver == "latest":
        return msgspec.structs.replace(command, deliver="from_id", from_id=next_msg_id, force_deliver=False)
    return msgspec.structs.replace(command, force_deliver=False) if command.force_deliver else command
