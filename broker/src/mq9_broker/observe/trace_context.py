"""The headers `traceparent` and `tracestate` in NATS header blocks; see https://www.w3.org/TR/trace-context."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
#: How many bytes `with_parent` adds to a message as it is stored, at most.
ADDED_BYTES: Final = 100

_FIRST_LINE: Final = b"NATS/1.0\r\n"
_LAST_LINE: Final = b"\r\n\r\n"
_SAMPLED: Final = 1
# version - trace id - span id - flags; what a version after 00 may add stands behind another dash.
_FORM: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


class TraceContext(NamedTuple):
    """What a header block says of the trace that its request belongs to.

    Attributes:
        is_named: Whether there is a `traceparent` at all, be it well formed or not.
        trace_id: 0 where no valid context is given.
        span_id: The sender's span; 0 likewise.
        is_sampled: Whether the sender records its span.
        state: Values of `tracestate`, in their order.
    """

    is_named: bool = False
    trace_id: int = 0
    span_id: int = 0
    is_sampled: bool = False
    state: tuple[str, ...] = ()


NO_CONTEXT: Final = TraceContext()


def context_of(block: bytes | None) -> TraceContext:
    """Return the trace context in a header block; names match in any case, a `traceparent` twice is none."""
    if block is None or TRACEPARENT not in block.lower():
        return NO_CONTEXT
    parents: list[bytes] = []
    state: list[str] = []
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        lower = name.lower()
        if lower == TRACEPARENT:
            parents.append(value.strip(b" \t"))
        elif lower == TRACESTATE:
            state.append(value.strip(b" \t").decode("ascii", "replace"))
    found = _FORM.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return TraceContext(is_named=bool(parents))
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return TraceContext(is_named=True)
    return TraceContext(True, trace_id, span_id, bool(int(found[4], 16) & _SAMPLED), tuple(state))


def parse(value: str) -> TraceContext:
    """Return the context that one value of `traceparent` names."""
    return context_of(b"traceparent:" + value.encode("utf-8", "replace"))


def with_parent(block: bytes | None, trace_id: int, span_id: int) -> bytes | None:
    """Return a header block with a `traceparent` of a recorded span more; as it is where it is malformed."""
    line = b"traceparent: 00-%032x-%016x-01" % (trace_id, span_id)
    if block is None:
        return _FIRST_LINE + line + _LAST_LINE
    if not block.startswith(_FIRST_LINE) or not block.endswith(_LAST_LINE):
        return block
    return block[:-2] + line + _LAST_LINE
