"""A run's JSON, made in one piece, is that of its messages one by one."""

import json
from base64 import b64decode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker.engine.rendering import message_json, middle, run_json
from mq9_broker.engine.segments import Segment


@given(
    first_id=st.one_of(st.integers(0, 500), st.integers(0, 2**63 - 300)),
    payloads=st.lists(st.binary(max_size=9), min_size=1, max_size=130),
    count=st.integers(0, 1),
)
def test_a_run_renders_like_its_messages(first_id: int, payloads: list[bytes], count: int) -> None:
    ids = range(first_id, first_id + len(payloads))
    segment = Segment.run(b"key", 1_795_446_271_123, ids, msgspec.json.encode(payloads))
    same = middle(2, segment.create_ms)
    one_by_one = b",".join(message_json(m, same, count) for m in segment.messages if m is not None)
    rest = same[1:] + (b',"delivery_count":1}' if count else b"}")
    assert run_json(first_id, segment.texts(), rest) == one_by_one
    parsed = json.loads(b"[%b]" % one_by_one)
    assert [item["msg_id"] for item in parsed] == list(segment.ids)
    assert [b64decode(item["payload"]) for item in parsed] == payloads


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_run_without_one_message_is_none_any_more(gone: int) -> None:
    segment = Segment.run(b"key", 1, range(7, 10), b'["YQ==","Yg==","Yw=="]')
    assert [segment.get(i) for i in segment.ids] == [(7, b"", b"a"), (8, b"", b"b"), (9, b"", b"c")]
    assert segment.texts() == [b'"YQ=="', b'"Yg=="', b'"Yw=="']
    segment.take_out(gone)
    assert segment.run_json is None
    assert segment.live == 2
    assert segment.get(7 + gone) is None
    left = [(i, b"", p) for i, p in zip((7, 8, 9), (b"a", b"b", b"c"), strict=True) if i != 7 + gone]
    assert [segment.get(i) for i, _, _ in left] == left
    segment.thin_out()
    assert segment.messages == left
    assert list(segment.ids) == [i for i, _, _ in left]
