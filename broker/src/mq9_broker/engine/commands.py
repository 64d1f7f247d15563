"""Commands of the engine: what may be asked of it, and the byte form in which a log keeps it.

Every operation but SEND has its generated struct (`mq9_broker._generated.commands`). SEND is the hot path and
therefore a plain tuple, `SendCommand`. `AckRun` is an ACK as it usually is, `OutboxRemove` the shell's own.

The shell has validated everything that needs no state (spec/: bounds, required fields, header values). What
it resolves besides:

* CREATE without a name: the shell makes the address (128 random bits).
* ``MsgAck.msg_ids`` holds the exact ids to confirm; ``msg_id`` is not looked at (the node that takes an ACK
  resolves un-leased batches).
* ``MsgFetch.max_wait_ms`` is not looked at: waiting is the shell's, see `repeat_of`.
* ``AgentDiscover`` with ``text`` or ``semantic`` is answered by the shell; here it is the list by name.
"""

from typing import Final, NamedTuple, TypeAlias

import msgspec

from mq9_broker._generated.commands import COMMANDS, MsgAck, MsgFetch
from mq9_broker._generated.enums import PRIORITY_VALUES

BYTE_FORM_VERSION: Final = 1

LANE_CRITICAL: Final = 0
LANE_URGENT: Final = 1
LANE_NORMAL: Final = 2
#: Priority names by lane number; a lower lane number is delivered first.
PRIORITIES: Final = PRIORITY_VALUES


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


#: ``(address, lane, headers, payload, options)``.
#:
#: * lane: `LANE_CRITICAL`, `LANE_URGENT` or `LANE_NORMAL`.
#: * headers: JSON text of the message's ``headers`` (name -> array of values, the interpreted ones left out),
#:   ``b""`` when there are none.
#: * options: ``None`` for a plain SEND (no key, delay, ttl, tags, dedup-id).
SendCommand: TypeAlias = tuple[bytes, int, bytes, bytes, SendOptions | None]


class OutboxRemove(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="outbox.remove"):
    """Removes an outbox entry once its dead letter is delivered or given up. Answers nobody."""

    address: bytes
    """The source mailbox; it may be gone by then."""
    incarnation: int
    entry: int


class AckRun(msgspec.Struct, frozen=True, gc=False, tag="msg.ack"):
    """A `MsgAck` of consecutive ids, from the first to the last; its byte form is that of the `MsgAck`."""

    address: bytes
    group_name: str
    first_id: int
    last_id: int

    def spelled_out(self) -> MsgAck:
        """The same with every id in it."""
        return MsgAck(self.address, self.group_name, None, tuple(range(self.first_id, self.last_id + 1)))


Command: TypeAlias = SendCommand | msgspec.Struct


class _SendForm(msgspec.Struct, frozen=True, array_like=True, tag="msg.send"):
    address: bytes
    lane: int
    headers: bytes
    payload: bytes
    options: SendOptions | None


_encode = msgspec.msgpack.Encoder().encode
_VERSION_BYTE: Final = bytes([BYTE_FORM_VERSION])
_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    str(kind.__struct_config__.tag): kind for kind in (*COMMANDS, OutboxRemove, _SendForm)
}
_decode_fields = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_tag = msgspec.msgpack.Decoder(str).decode


def encode_command(command: Command) -> bytes:
    """Returns the command's byte form: a version byte, then the MessagePack array [operation, field, ...].

    Equal commands have equal bytes. A newer version may append fields that have defaults.
    """
    if isinstance(command, tuple):
        return _VERSION_BYTE + _encode(_SendForm(*command))
    if isinstance(command, AckRun):
        command = command.spelled_out()
    return _VERSION_BYTE + _encode(command)


def decode_command(data: bytes) -> Command:
    """Returns the command that `encode_command` turned into ``data``.

    Raises:
        ValueError: ``data`` is no command, or one of another version.
    """
    if data[:1] != _VERSION_BYTE:
        raise ValueError(f"command has byte form version {data[:1]!r}, expected {_VERSION_BYTE!r}")
    fields = data[1:]
    parts = _decode_fields(fields)
    kind = _TYPES.get(_decode_tag(parts[0])) if parts else None
    if kind is None:
        raise ValueError(f"command has an unknown operation: {fields[:40]!r}")
    command = msgspec.msgpack.decode(fields, type=kind)
    if isinstance(command, _SendForm):
        return (command.address, command.lane, command.headers, command.payload, command.options)
    return command


def repeat_of(command: MsgFetch, next_msg_id: int) -> MsgFetch:
    """Returns the FETCH with which a waiter that came up empty asks again.

    A group is at its start by now and must not be reset again; a stateless ``latest`` keeps meaning "from
    the moment it was accepted", so it becomes ``from_id`` with the ``next_msg_id`` that the first answer
    reported.
    """
    if not command.group_name and command.deliver == "latest":
        return msgspec.structs.replace(command, deliver="from_id", from_id=next_msg_id, force_deliver=False)
    return msgspec.structs.replace(command, force_deliver=False) if command.force_deliver else command
