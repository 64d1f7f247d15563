"""The parser against a slow one written independently, in whatever chunks the input comes."""

from collections.abc import Sequence
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mq9_broker import native
from mq9_broker.transport import parser as under_test
from mq9_broker.transport.parser import Parser, ParserLimits

from .reference_parser import ReferenceParser

MAX_PAYLOAD = 40
MAX_CONTROL_LINE = 64
LIMITS = ParserLimits(MAX_PAYLOAD, MAX_CONTROL_LINE)

KINDS = {
    under_test.Publish: "publish",
    under_test.Subscribe: "subscribe",
    under_test.Unsubscribe: "unsubscribe",
    under_test.Connect: "connect",
    under_test.Ping: "ping",
    under_test.Pong: "pong",
    under_test.ProtocolError: "error",
}


def flat(events: Sequence[under_test.Event]) -> list[tuple[object, ...]]:
    result: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, list):
            result += [("request", *request) for request in event]
        else:
            result.append((KINDS[type(event)], *event))
    return result


def parse(chunks: Sequence[bytes], limits: ParserLimits = LIMITS) -> list[tuple[object, ...]]:
    """Parse as it is, in Python alone, and there with the fast way for many requests taken for a few too."""
    results = []
    usual = under_test._WORTH_SPLITTING
    for take_requests, threshold in ((native.take_requests, usual), (None, usual), (None, 0)):
        with (
            mock.patch.object(native, "take_requests", take_requests),
            mock.patch.object(under_test, "_WORTH_SPLITTING", threshold),
        ):
            parser = Parser(limits)
            results.append([event for chunk in chunks for event in flat(parser.feed(chunk))])
    assert results[0] == results[1] == results[2]
    return results[0]


def expected(data: bytes, limits: ParserLimits = LIMITS) -> list[tuple[object, ...]]:
    return ReferenceParser(limits.max_payload, limits.max_control_line).feed(data)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


request_subject = st.sampled_from([b"$mq9.AI.MSG.SEND.a", b"$mq9.AI.", b"$mq9.AI.X.*", b"$mq9.AI"])
subject = st.one_of(request_subject, st.sampled_from([b"a", b"a.b", b"a.*", b">", b"PUB", b"\xff", b"$mq9."]))
word = st.sampled_from([b"r", b"_INBOX.x.1", b"PUB", b"HPUB", b"2", b"0", b"$mq9.AI.z", b"5"])
blank = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b"\r", b"\x0b", b" \n"])
line_end = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\r\n"])
payload = st.one_of(
    st.binary(max_size=MAX_PAYLOAD + 1),
    st.sampled_from(
        [
            b"",
            b"\r\n",
            b"hi",
            b"\n",
            b"\r\nPUB $mq9.AI.X r 2\r\nhi",
            b"PUB $mq9.AI.X r 2",
            b"PING\r\n",
            b"a\r\nb\r\n",
        ]
    ),
)


@st.composite
def proper_request(draw: st.DrawFn) -> bytes:
    body = draw(payload)
    return b"PUB %b _INBOX.x.%d %d\r\n%b\r\n" % (
        draw(request_subject),
        draw(st.integers(0, 9)),
        len(body),
        body,
    )


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """A PUB or HPUB, mostly a right one."""
    body = draw(payload)
    length = len(body) + draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1]))
    words = [draw(st.sampled_from([b"PUB", b"PUB", b"HPUB", b"pub", b"hpUB"])), draw(subject)]
    words += draw(st.lists(word, max_size=draw(st.sampled_from([0, 1, 1, 1, 3]))))
    if words[0].upper() == b"HPUB":
        words.append(b"%d" % draw(st.integers(0, length + 1 if length >= 0 else 0)))
    words.append(
        draw(st.sampled_from([b"%d" % length] * 6 + [b"0%d" % max(length, 0), b"+2", b"x", b"9" * 11]))
    )
    line = words[0]
    for part in words[1:]:
        line += draw(blank) + part
    return line + draw(line_end) + body + draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"", b"xx"]))


@st.composite
def shifted_requests(draw: st.DrawFn) -> bytes:
    """Lines with words too many and too few that look right when read one after the other."""
    words = st.sampled_from([b"PUB", b"$mq9.AI.a", b"r", b"0", b"2"])
    lines = draw(st.lists(st.lists(words, max_size=7), min_size=2, max_size=4))
    bodies = st.sampled_from([b"", b"hi"])
    return b"".join(b" ".join([b"PUB $mq9.AI.x", *line]) + b"\r\n" + draw(bodies) + b"\r\n" for line in lines)


other_line = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"PONG\r\n",
            b"ping \r\n",
            b'CONNECT {"verbose":false}\r\n',
            b"CONNECT\r\n",
            b"SUB a 1\r\n",
            b"SUB a.* q 2\r\n",
            b"SUB a\r\n",
            b"UNSUB 1\r\n",
            b"UNSUB 1 5\r\n",
            b"UNSUB 1 -5\r\n",
            b"UNSUB\r\n",
            b"+OK\r\n",
            b"-ERR 'x'\r\n",
            b" PING\r\n",
            b"\r\n",
            b"PINGX\r\n",
            b"SUB " + b"a" * 80 + b" 1\r\n",
            b"PUB $mq9.AI." + b"a" * 46 + b" r 2\r\nhi\r\n",
            b"PUB $mq9.AI." + b"a" * 47 + b" r 2\r\nhi\r\n",
            b"PUB $mq9.AI." + b"a" * 48 + b" r 2\r\nhi\r\n",
            b"HPUB $mq9.AI." + b"a" * 50 + b" r 2 2\r\nhi\r\n",
        ]
    ),
    st.binary(max_size=12),
)
stream = st.one_of(
    st.lists(st.one_of(proper_request(), message(), other_line), max_size=8),
    st.lists(proper_request(), max_size=12),
    st.lists(message(), max_size=8),
    st.lists(shifted_requests(), max_size=2),
).map(b"".join)


@settings(max_examples=1500, deadline=None)
@given(stream, st.lists(st.integers(0, 2000), max_size=8))
@example(b"PUB $mq9.AI.a r 2 PUB\r\nhi\r\nPUB $mq9.AI.b 2\r\nhi\r\n", [])
@example(b"PUB $mq9.AI.a r 2\r\nhi\r\nPUB $mq9.AI.b q 2 more\r\nhi\r\n", [])
@example(b"PUB $mq9.AI.a r 2\r\nhi\r\nPUB $mq9.AI." + b"b" * 48 + b" q 2\r\nhi\r\n", [])
@example(b"PUB $mq9.AI.a r 2\r\nhi\r\nPUB $mq9.AI." + b"b" * 47 + b" q 2\r\nhi\r\n", [])
@example(b"PUB $mq9.AI.a r 2 2\r\nhi\r\nPING\r\n", [])
@example(b"HPUB $mq9.AI.a 2 2\r\nhi\r\nPING\r\n", [])
@example(b"HPUB $mq9.AI.a r 3 2\r\nhi\r\nPING\r\n", [])
@example(b"PUB $mq9.AI.a r\n2\r\nhi\r\nPUB $mq9.AI.b q 2\r\nhi\r\n", [])
@example(b"PUB $mq9.AI.a r 2\r\nhi\r\n PUB $mq9.AI.b q 2\r\nhi\r\n", [])
def test_same_as_the_reference_in_every_chunking(data: bytes, places: list[int]) -> None:
    wanted = expected(data)
    assert parse([data]) == wanted
    assert parse(cut(data, places)) == wanted
    assert parse([data[i : i + 1] for i in range(len(data))]) == wanted


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_noise(data: bytes, places: list[int]) -> None:
    assert parse(cut(data, places)) == expected(data)


def test_many_requests_in_one_chunk_are_one_list() -> None:
    data = b"".join(b"PUB $mq9.AI.MSG.SEND.a _INBOX.x.%d 2\r\nhi\r\n" % i for i in range(3000))
    parser = Parser(ParserLimits())
    events = parser.feed(data + b"PUB $mq9.AI.MSG.SEND.a r 2\r")
    assert len(events) == 1
    assert isinstance(events[0], list)
    assert [request[1] for request in events[0]] == [b"_INBOX.x.%d" % i for i in range(3000)]
    assert flat(parser.feed(b"\nhi\r\n")) == [("request", b"$mq9.AI.MSG.SEND.a", b"r", None, b"hi")]


def test_large_payload_in_single_bytes() -> None:
    body = bytes(range(256)) * 16
    data = b"PUB $mq9.AI.MSG.SEND.a r %d\r\n%b\r\nPING\r\n" % (len(body), body)
    events = parse([data[i : i + 1] for i in range(len(data))], ParserLimits())
    assert events == [("request", b"$mq9.AI.MSG.SEND.a", b"r", None, body), ("ping",)]


def test_largest_payload_and_one_byte_more() -> None:
    limits = ParserLimits(max_payload=5000)
    whole = b"PUB $mq9.AI.a r 5000\r\n" + b"x" * 5000 + b"\r\n"
    assert parse([whole], limits) == [("request", b"$mq9.AI.a", b"r", None, b"x" * 5000)]
    # The line alone is enough to refuse: the payload need not come.
    assert parse([b"PUB $mq9.AI.a r 5001\r\n"], limits) == [("error", "Maximum Payload Violation")]
    assert parse([b"HPUB $mq9.AI.a r 12 5001\r\n"], limits) == [("error", "Maximum Payload Violation")]


def test_short_payloads_are_bounded_too() -> None:
    limits = ParserLimits(max_payload=3)
    assert parse([b"PUB $mq9.AI.a r 4\r\nhigh\r\n"], limits) == [("error", "Maximum Payload Violation")]


def test_endless_line_is_refused_without_its_end() -> None:
    parser = Parser(ParserLimits())
    assert parser.feed(b"SUB " + b"a" * 4000) == []
    assert flat(parser.feed(b"a" * 200)) == [("error", "maximum control line exceeded")]
    assert parser.failed
    assert parser.feed(b" 1\r\nPING\r\n") == []


@pytest.mark.parametrize("garbage", [b"G", b"\x00", b"\x16\x03\x01", b" ", b"\r", b"\n", b"PUBX", b"PINGS"])
def test_unknown_verb_is_refused_at_once(garbage: bytes) -> None:
    assert parse([b"PING\r\n", garbage]) == [("ping",), ("error", "Unknown Protocol Operation")]


def test_what_came_before_an_error_counts() -> None:
    data = b"PUB $mq9.AI.a r 2\r\nhi\r\nPUB b 1\r\nx\r\nPUB $mq9.AI.a r 2\r\nhi\r\nNONSENSE\r\nPING\r\n"
    assert [event[0] for event in parse([data])] == ["request", "publish", "request", "error"]
