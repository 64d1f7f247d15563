"""The trace context in header blocks."""

import pytest

from mq9_broker.observe.trace_context import NO_CONTEXT, TraceContext, context_of, parse, with_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
NAMED = TraceContext(is_named=True)


def block(*lines: str) -> bytes:
    return ("\r\n".join(["NATS/1.0", *lines]) + "\r\n\r\n").encode()


def test_a_context_is_read() -> None:
    found = context_of(block("a: b", f"traceparent: {PARENT}", "tracestate: x=1,y=2", "Tracestate:z=3"))
    assert found == TraceContext(True, int(TRACE, 16), int(SPAN, 16), True, ("x=1,y=2", "z=3"))
    assert found == context_of(block(f"TraceParent:{PARENT}  ", "TRACESTATE: x=1,y=2", "tracestate: z=3"))


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_the_sender_says_whether_it_is_sampled(flags: str, is_sampled: bool) -> None:
    assert parse(f"00-{TRACE}-{SPAN}-{flags}").is_sampled is is_sampled


def test_a_later_version_may_add_something() -> None:
    assert parse(f"01-{TRACE}-{SPAN}-01-more").trace_id == int(TRACE, 16)
    assert parse(f"01-{TRACE}-{SPAN}-01").trace_id == int(TRACE, 16)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0é",
    ],
)
def test_what_is_no_context_names_none(value: str) -> None:
    assert parse(value) == NAMED


def test_without_or_with_two_there_is_no_context() -> None:
    assert context_of(None) is NO_CONTEXT
    assert context_of(block("a: b", "about: traceparent")) == NO_CONTEXT
    assert context_of(block(f"traceparent: {PARENT}", f"Traceparent: {PARENT}")) == NAMED
    assert context_of(b"traceparent") == NO_CONTEXT
    assert context_of(b"\xff: \xfe\r\ntraceparent: \xff") == NAMED


def test_a_context_is_put_in() -> None:
    trace_id, span_id = int(TRACE, 16), int(SPAN, 16)
    assert with_parent(None, trace_id, span_id) == block(f"traceparent: {PARENT}")
    assert with_parent(block("a: b"), trace_id, span_id) == block("a: b", f"traceparent: {PARENT}")
    assert with_parent(block(), trace_id, span_id) == block(f"traceparent: {PARENT}")


def test_a_malformed_block_stays_as_it_is() -> None:
    for malformed in (b"", b"HTTP/1.1 200\r\n\r\n", b"NATS/1.0\r\na: b\r\n"):
        assert with_parent(malformed, 1, 1) == malformed
