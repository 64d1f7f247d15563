import pytest

from mq9_conformance.frames import (
    FrameError,
    FrameParser,
    header_block,
    message,
    parse_headers,
    publish,
    subject_matches,
)

STREAM = (
    b'INFO {"a": 1}\r\nPING\r\n'
    + publish("a.b", "in.1", b"", b"pay\r\nload")
    + publish("a.b", None, header_block([("X", "one"), ("X", ""), ("y", b"\xc3\xbc")]), b"")
    + message("in.1", "7", header_block([], "503"), b"")
    + b"SUB a.> q 3\r\nUNSUB 3 5\r\n-ERR 'Slow Consumer'\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_frames_are_the_same_however_they_are_cut(size):
    parser, frames = FrameParser(), []
    for start in range(0, len(STREAM), size):
        frames += parser.feed(STREAM[start : start + size])
    assert [frame.verb for frame in frames] == ["INFO", "PING", "PUB", "HPUB", "HMSG", "SUB", "UNSUB", "-ERR"]
    assert b"".join(frame.raw for frame in frames) == STREAM
    assert (frames[2].subject, frames[2].reply_to, frames[2].payload) == ("a.b", "in.1", b"pay\r\nload")
    assert frames[3].headers == [("X", "one"), ("X", ""), ("y", "ü")]
    assert frames[3].reply_to is None
    assert (frames[4].status, frames[4].reply_to) == (503, None)


def test_a_frame_without_a_size_is_an_error():
    with pytest.raises(FrameError, match="no sizes"):
        FrameParser().feed(b"PUB a.b x\r\n")


def test_a_status_line_is_no_header():
    assert parse_headers(b"NATS/1.0 404 No Messages\r\nA: b\r\n\r\n") == (404, [("A", "b")])


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b", "a.c", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_subjects_match(pattern, subject, expected):
    assert subject_matches(pattern, subject) is expected
