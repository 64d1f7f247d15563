"""The client's half of the NATS protocol, parsed: bytes in, events out. Knows nothing of sockets.

The result does not depend on how the bytes were cut into chunks, but for one thing: requests that follow
each other within a chunk come as one list.

A line ends with LF, usually CR LF; its words are separated by blanks (space, tab, CR, VT, FF). Verbs are
taken in any case.
"""

from itertools import repeat
from typing import NamedTuple

from mq9_broker import native
from mq9_broker.transport.interface import REQUEST_PREFIX, Request

DEFAULT_MAX_PAYLOAD = 1024 * 1024
DEFAULT_MAX_CONTROL_LINE = 4096

UNKNOWN_OPERATION = "Unknown Protocol Operation"
PARSER_ERROR = "Parser Error"
MAXIMUM_PAYLOAD_VIOLATION = "Maximum Payload Violation"
MAXIMUM_CONTROL_LINE_EXCEEDED = "maximum control line exceeded"

# What a client may send. "+OK" is allowed, and ignored, as the reference server does.
_VERBS = (b"PUB", b"HPUB", b"SUB", b"UNSUB", b"PING", b"PONG", b"CONNECT", b"+OK")
_REQUEST_LINE = b"PUB " + REQUEST_PREFIX
_REQUEST_LINES = (_REQUEST_LINE, b"HPUB " + REQUEST_PREFIX)
# Bytes from which on the fast way for many requests is faster.
_WORTH_SPLITTING = 1024
_PARTS_OF_A_SPLIT = 1024
_SHORT_PAYLOAD = 4096
_DIGITS_OF_A_LENGTH = 10


class Publish(NamedTuple):
    """A message for other clients: PUB or HPUB outside `$mq9.AI.`."""

    subject: bytes
    reply: bytes | None
    headers: bytes | None
    payload: bytes


class Subscribe(NamedTuple):
    """SUB, with the queue group if there is one."""

    subject: bytes
    queue: bytes | None
    sid: bytes


class Unsubscribe(NamedTuple):
    """UNSUB; `limit` is the number of messages after which the subscription ends, 0 = now."""

    sid: bytes
    limit: int


class Connect(NamedTuple):
    """CONNECT, with its JSON as it came."""

    options: bytes


class Ping(NamedTuple):
    """PING."""


class Pong(NamedTuple):
    """PONG."""


class ProtocolError(NamedTuple):
    """The client broke the protocol; nothing that it sends afterwards is looked at."""

    text: str


# A list holds requests below `$mq9.AI.` that came one after the other.
Event = list[Request] | Publish | Subscribe | Unsubscribe | Connect | Ping | Pong | ProtocolError


class _ProtocolViolation(Exception):  # noqa: N818  # named after what it is; raised at most once a connection
    """Ends the parsing of a connection."""


class ParserLimits:
    """What a client may send; one object for all connections.

    Args:
        max_payload: bytes of a message, its headers included.
        max_control_line: bytes of a line without its LF.
    """

    __slots__ = ("max_control_line", "max_payload", "short_lengths")

    def __init__(
        self, max_payload: int = DEFAULT_MAX_PAYLOAD, max_control_line: int = DEFAULT_MAX_CONTROL_LINE
    ) -> None:
        self.max_payload = max_payload
        self.max_control_line = max_control_line
        # Short lengths as they stand on the wire: looking one up costs less than int().
        self.short_lengths = {
            b"%d" % length: length for length in range(min(_SHORT_PAYLOAD, max_payload) + 1)
        }


class Parser:
    """Turns the bytes of one client into events.

    Attributes:
        failed: a `ProtocolError` was returned; further input is ignored.
    """

    __slots__ = ("_limits", "_missing", "_plain", "_rest", "failed")

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        # A line or message whose end has not come yet. Once its length is known, `_missing` is the number
        # of bytes still to come, and they are gathered in a bytearray and looked at only when complete.
        self._rest: bytes | bytearray = b""
        self._missing = 0
        # The last chunk held no headers: worth trying the fast way on the next.
        self._plain = True
        self.failed = False

    def set_limits(self, limits: ParserLimits) -> None:
        """Let other limits hold from the next line on."""
        self._limits = limits

    def feed(self, data: bytes) -> list[Event]:
        """Parse what has come and return what it says, in order."""
        if self.failed:
            return []
        if self._missing > 0:
            self._missing -= len(data)
            if not isinstance(self._rest, bytearray):
                self._rest = bytearray(self._rest)
            self._rest += data
            if self._missing > 0:
                return []
            data = bytes(self._rest)
            self._missing = 0
        elif self._rest:
            data = bytes(self._rest) + data
        events: list[Event] = []
        requests: list[Request] = []
        if native.take_requests is not None:
            limits = self._limits
            requests, position = native.take_requests(
                data, REQUEST_PREFIX, limits.max_payload, limits.max_control_line
            )
            if position == len(data):
                self._rest = b""
                return [requests] if requests else events
            data = data[position:]
        elif self._plain:
            if len(data) >= _WORTH_SPLITTING and data.startswith(_REQUEST_LINE):
                data = self._split_requests(data, requests)
        else:
            self._plain = True
        self._rest = self._parse(data, requests, events)
        return events

    def _split_requests(self, data: bytes, requests: list[Request]) -> bytes:
        """Take requests without headers off the front of `data`, append them, return what remains.

        The fast way: a few operations on whole lists, each a loop in C, instead of a few on every message.
        Whatever does not look as expected is left to `_parse`, which knows everything.
        """
        limits = self._limits
        max_control_line = limits.max_control_line
        while True:
            parts = data.split(b"\r\n", _PARTS_OF_A_SPLIT)
            rest = parts.pop()
            count = len(parts) // 2
            lines = parts[: 2 * count : 2]
            payloads = parts[1::2]
            # What joins the lines is also what ends a line: one too many, and a line ended within.
            joined = b"\n".join(lines)
            fields = joined.split()
            if (
                joined.count(b"\n" + _REQUEST_LINE) != count - 1
                or joined.count(b"\n") != count - 1
                or len(fields) != 4 * count
                # A line with a word too many could make up for one with a word too few. But then what
                # follows is shifted, and a verb stands for a subject, or a verb or subject for a length.
                or b"PUB" in fields[1::4]
                or list(map(limits.short_lengths.get, fields[3::4])) != list(map(len, payloads))
                or (len(joined) >= max_control_line and max(map(len, lines)) >= max_control_line)
            ):
                return data
            requests += zip(fields[1::4], fields[2::4], repeat(None), payloads)
            if len(parts) == _PARTS_OF_A_SPLIT and rest.startswith(_REQUEST_LINE):
                data = rest
            elif len(parts) > 2 * count:
                return parts[-1] + b"\r\n" + rest
            else:
                return rest

    def _parse(self, data: bytes, requests: list[Request], events: list[Event]) -> bytes:
        """Parse `data`, append what it says to `events`, return its unfinished end.

        Args:
            data: complete and incomplete lines and messages.
            requests: those that came just before, not yet among the events.
            events: the list to append to.
        """
        limits = self._limits
        max_control_line = limits.max_control_line
        short_length = limits.short_lengths.get
        starts_with = data.startswith
        position = 0
        end = len(data)
        try:
            while position < end:
                newline = data.find(b"\n", position)
                if newline < 0:
                    _check_unfinished_line(data[position:], max_control_line)
                    break
                line = data[position:newline]
                fields = line.split()
                if starts_with(_REQUEST_LINES, position) and len(line) <= max_control_line:
                    # A request as it usually is; whatever is not so goes on below.
                    start = newline + 1
                    stop = start + short_length(fields[-1], end)
                    if starts_with(b"\r\n", stop):
                        words = len(fields)
                        if words == 4 and line.startswith(b"P"):
                            requests.append((fields[1], fields[2], None, data[start:stop]))
                            position = stop + 2
                            continue
                        middle = start + short_length(fields[-2], end)
                        if words == 5 and start < middle <= stop and line.startswith(b"H"):
                            self._plain = False
                            requests.append((fields[1], fields[2], data[start:middle], data[middle:stop]))
                            position = stop + 2
                            continue
                verb = _verb(line, fields)
                if len(line) > max_control_line:
                    raise _ProtocolViolation(MAXIMUM_CONTROL_LINE_EXCEEDED)
                if verb == b"PUB" or verb == b"HPUB":  # noqa: PLR1714  # the hot comparison comes first
                    subject, reply, header_length, length = _publish_arguments(fields, limits)
                    start = newline + 1
                    stop = start + length
                    if not starts_with(b"\r\n", stop):
                        if stop + 1 < end or data[stop:end] not in (b"", b"\r"):
                            raise _ProtocolViolation(UNKNOWN_OPERATION)
                        self._missing = stop + 1 - end if stop >= end else 1
                        break
                    headers = None
                    if header_length:
                        self._plain = False
                        headers = data[start : start + header_length]
                        start += header_length
                    position = stop + 2
                    if subject.startswith(REQUEST_PREFIX):
                        requests.append((subject, reply, headers, data[start:stop]))
                        continue
                    event: Event | None = Publish(subject, reply, headers, data[start:stop])
                else:
                    event = _event_of_line(verb, line, fields)
                    position = newline + 1
                if event is not None:
                    if requests:
                        events.append(requests)
                        requests = []
                    events.append(event)
        except _ProtocolViolation as violation:
            self.failed = True
            position = end
            if requests:
                events.append(requests)
            events.append(ProtocolError(str(violation)))
        else:
            if requests:
                events.append(requests)
        return data[position:]


def _verb(line: bytes, fields: list[bytes]) -> bytes:
    """Return the verb of a complete line in upper case."""
    if fields and line.startswith(fields[0]):
        verb = fields[0]
        if verb in _VERBS:
            return verb
        verb = verb.upper()
        if verb in _VERBS:
            return verb
    raise _ProtocolViolation(UNKNOWN_OPERATION)


def _check_unfinished_line(line: bytes, max_control_line: int) -> None:
    """Refuse a line that can only become wrong, without waiting for its end."""
    fields = line.split(None, 1)
    start = fields[0].upper() if fields and line.startswith(fields[0]) else b""
    is_whole = len(start) < len(line)  # otherwise the verb itself may go on
    if not (start in _VERBS if is_whole else any(verb.startswith(start) for verb in _VERBS)):
        raise _ProtocolViolation(UNKNOWN_OPERATION)
    if len(line) > max_control_line:
        raise _ProtocolViolation(MAXIMUM_CONTROL_LINE_EXCEEDED)


def _publish_arguments(fields: list[bytes], limits: ParserLimits) -> tuple[bytes, bytes | None, int, int]:
    """Return subject, reply subject, length of the headers and length of all, of a PUB or HPUB."""
    header_length = 0
    lengths = 1
    if len(fields[0]) == len(b"HPUB"):
        lengths = 2
        header_length = _length(fields[-2]) if len(fields) >= 4 else 0
    if len(fields) == 3 + lengths:
        reply = fields[2]
    elif len(fields) == 2 + lengths:
        reply = None
    else:
        raise _ProtocolViolation(PARSER_ERROR)
    length = _length(fields[-1])
    if header_length > length:
        raise _ProtocolViolation(PARSER_ERROR)
    if length > limits.max_payload:
        raise _ProtocolViolation(MAXIMUM_PAYLOAD_VIOLATION)
    return fields[1], reply, header_length, length


def _length(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _DIGITS_OF_A_LENGTH:
        raise _ProtocolViolation(PARSER_ERROR)
    return int(digits)


def _event_of_line(verb: bytes, line: bytes, fields: list[bytes]) -> Event | None:
    """Return what a line without a payload says."""
    if verb == b"PING":
        return Ping()
    if verb == b"PONG":
        return Pong()
    if verb == b"SUB" and 3 <= len(fields) <= 4:
        return Subscribe(fields[1], fields[2] if len(fields) == 4 else None, fields[-1])
    if verb == b"UNSUB" and 2 <= len(fields) <= 3:
        # As in the reference server, a count that is none means now.
        limit = fields[2] if len(fields) == 3 else b"0"
        return Unsubscribe(fields[1], int(limit) if limit.isdigit() and len(limit) <= 18 else 0)
    if verb == b"CONNECT" and len(fields) > 1:
        return Connect(line[len(verb) :].strip())
    if verb == b"+OK":
        return None
    raise _ProtocolViolation(PARSER_ERROR)
