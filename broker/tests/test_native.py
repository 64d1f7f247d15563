"""The compiled parts do what Python does, and neither crash nor leak, whatever they are given."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mq9_broker import native
from mq9_broker._generated.commands import MsgAck
from mq9_broker._generated.limits import MAX_MSG_IDS
from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.engine.rendering import run_json
from mq9_broker.search.weights import HalfWeights
from mq9_broker.shell.bodies import BodyDecoder
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.store.sorted_map import OrderedBytes, SortedMap, scan

NATIVE = Path(__file__).resolve().parent.parent / "native"


def build_module() -> Any:
    spec = spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_there_where_they_can_be_made() -> None:
    assert native.IS_COMPILED is (build_module().why_not() == "")


# Without a compiler there is nothing to compare, and these compare Python with itself.
def render(run: bytes, index: int, count: int, first_id: int, rest: bytes, room: int) -> bytes | None:
    if native.render_run is not None:
        return native.render_run(run, index, count, first_id, rest, room)
    text = run_json(first_id, run[1:-1].split(b",")[index : index + count], rest)
    return text if len(text) < room else None


@given(
    first_id=st.one_of(
        st.integers(0, 1100), st.integers(0, 2**62), st.integers(1, 18).map(lambda digits: 10**digits - 3)
    ),
    payloads=st.lists(st.binary(max_size=9), min_size=1, max_size=300),
    part=st.tuples(st.integers(0, 299), st.integers(1, 300)),
    rest=st.binary(max_size=20),
)
def test_a_part_of_a_run_renders_as_in_python(
    first_id: int, payloads: list[bytes], part: tuple[int, int], rest: bytes
) -> None:
    run = msgspec.json.encode(payloads)
    index = part[0] % len(payloads)
    count = min(part[1], len(payloads) - index)
    wanted = run_json(first_id, run[1:-1].split(b",")[index : index + count], rest)
    assert render(run, index, count, first_id, rest, len(wanted) + 1) == wanted
    assert render(run, index, count, first_id, rest, len(wanted)) is None
    assert render(run, index, count, first_id, rest, -1) is None


needs_compiled = pytest.mark.skipif(
    build_module().why_not() != "", reason="NOT RUN: no C compiler, so there are no compiled parts"
)


@needs_compiled
@pytest.mark.parametrize(
    "arguments",
    [
        (b"[]", 0, 1, 1, b"", 99),
        (b"", 0, 1, 1, b"", 99),
        (b"[", 0, 1, 1, b"", 99),
        (b'["a","b"]', 0, 3, 1, b"", 99),
        (b'["a","b"]', 1, 2, 1, b"", 99),
        (b'["a","b"]', 2, 1, 1, b"", 99),
        (b'["a","b"]', 3, 1, 1, b"", 99),
        (b'["a","b"]', 2**62, 1, 1, b"", 99),
        (b'["a","b"]', -1, 1, 1, b"", 99),
        (b'["a","b"]', 0, 0, 1, b"", 99),
        (b'["a","b"]', 0, -1, 1, b"", 99),
        (b'["a","b"]', 0, 2**62, 1, b"", 99),
        (b'["a","b"]', 0, 1, 2**63 - 1, b"", 99),
        (b'["a",,"b"]', 0, 3, 1, b"", 99),
        (b'["a","b",]', 0, 3, 1, b"", 99),
    ],
)
def test_no_part_of_a_run(arguments: tuple[Any, ...]) -> None:
    assert native.render_run is not None
    with pytest.raises(ValueError, match="render_run"):
        native.render_run(*arguments)


@needs_compiled
@given(st.binary(max_size=60), st.integers(-2, 20), st.integers(-2, 20), st.integers(0, 2**64 - 1))
def test_noise_instead_of_a_run(run: bytes, index: int, count: int, first_id: int) -> None:
    assert native.render_run is not None
    try:
        text = native.render_run(run, index, count, first_id, b"}", 1000)
    except ValueError:
        return
    assert text is not None
    assert text.count(b'{"msg_id":') >= count


needs_halves = pytest.mark.skipif(
    not native.IS_COMPILED or native.compare_nibbles is None,
    reason="NOT RUN: no compiled parts, or a processor without AVX2",
)


def test_wrong_arguments_are_type_errors() -> None:
    if not native.IS_COMPILED:
        return
    wrong: list[tuple[Callable[..., object], tuple[object, ...]]] = []
    for function, count in ((native.take_requests, 4), (native.consecutive_ids, 2), (native.render_run, 6)):
        assert function is not None
        wrong += [(function, (None,) * count), (function, (b"",) * count), (function, (b"",) * (count - 1))]
    stored = native.new_map()
    for method, count in (
        (stored.set, 2), (stored.discard_range, 2), (stored.first, 2), (stored.last, 2), (stored.page, 3),
        (stored.get, 1), (stored.discard, 1), (stored.update, 1),
    ):  # fmt: skip
        wrong += [(method, ("a",) * count), (method, (bytearray(),) * count), (method, (b"",) * (count + 1))]
    wrong += [
        (stored.update, (pairs,)) for pairs in ([1], [(b"a",)], [(b"a", 1)], [("a", b"")], [[b"a", b"b"]])
    ]
    wrong += [(type(stored), (1,))]
    for call, arguments in wrong:
        with pytest.raises(TypeError):
            call(*arguments)


ACK = BodyDecoder(next(op for op in OPERATIONS if op.name == "msg.ack"), lambda: "")
SUBJECT = {"mail_address": b"a.b"}


def ack_in_python(body: bytes) -> MsgAck | None:
    try:
        command = ACK.decode(dict(SUBJECT), body)
    except RefusedError:
        return None
    assert isinstance(command, MsgAck)
    return command


def ids_agree(body: bytes) -> bool:
    """Whether the short cut was taken; what it says is what Python says."""
    found = native.consecutive_ids(body, MAX_MSG_IDS) if native.consecutive_ids is not None else None
    if found is None:
        return False
    group, first, last = found
    if len(group) <= 256 and group:
        ids = (None, tuple(range(first, last + 1))) if last >= 0 else (first, ())
        assert ack_in_python(body) == MsgAck(b"a.b", group, *ids)
    return True


@pytest.mark.parametrize("first", [0, 1, 9, 99, 10**17, 10**18 - 100])
@pytest.mark.parametrize("count", [1, 2, 100, MAX_MSG_IDS])
def test_consecutive_ids_are_seen(first: int, count: int) -> None:
    if first + count > 10**18:
        count = 2
    for indent in (None, 1):
        body = json.dumps({"group_name": "g h", "msg_ids": list(range(first, first + count))}, indent=indent)
        assert ids_agree(body.encode()) is native.IS_COMPILED
        turned = json.dumps({"msg_ids": list(range(first, first + count)), "group_name": "g"}, indent=indent)
        assert ids_agree(turned.encode()) is native.IS_COMPILED
        alone = json.dumps({"group_name": "g h", "msg_id": first}, indent=indent)
        assert ids_agree(alone.encode()) is native.IS_COMPILED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"group_name":"g","msg_ids":[]}',
        b'{"group_name":"g","msg_ids":[2,1]}',
        b'{"group_name":"g","msg_ids":[1,1]}',
        b'{"group_name":"g","msg_ids":[1,3]}',
        b'{"group_name":"g","msg_ids":[01]}',
        b'{"group_name":"g","msg_ids":[-1]}',
        b'{"group_name":"g","msg_ids":[1.0]}',
        b'{"group_name":"g","msg_ids":[1e2]}',
        b'{"group_name":"g","msg_ids":[1,]}',
        b'{"group_name":"g","msg_ids":["1"]}',
        b'{"group_name":"g","msg_ids":[9223372036854775807]}',
        b'{"group_name":"g","msg_ids":[1]',
        b'{"group_name":"g","msg_ids":[1]}}',
        b'{"group_name":"g","msg_ids":[1],}',
        b'{"group_name":"g","msg_ids":[1],"msg_ids":[2]}',
        b'{"group_name":"g","group_name":"h","msg_ids":[1]}',
        b'{"group_name":"g","msg_ids":[1],"mail_address":"x"}',
        b'{"group_name":"g\\u0041","msg_ids":[1]}',
        b'{"group_name":"g","msg_id":null}',
        b'{"group_name":"g","msg_id":-1}',
        b'{"group_name":"g","msg_id":01}',
        b'{"group_name":"g","msg_id":1.5}',
        b'{"group_name":"g","msg_id":"1"}',
        b'{"group_name":"g","msg_id":1,"msg_ids":[1]}',
        b'{"group_name":"g","msg_ids":[1],"msg_id":1}',
        b'{"group_name":"g","msg_id":1,"msg_id":1}',
        b'{"group_name":"g","msg_id":1',
        b'{"group_name":"g\xc3\xa4","msg_ids":[1]}',
        b'{"group_name":"g","msg_ids":[1]}\x00',
        b'{"group_name":"g","msg_ids":[' + b",".join(b"%d" % i for i in range(MAX_MSG_IDS + 1)) + b"]}",
    ],
)
def test_other_bodies_go_the_long_way(body: bytes) -> None:
    assert not ids_agree(body)
    for end in range(len(body)):
        ids_agree(body[:end])


pieces = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"group_name"', b'"msg_ids"', b'"g"', b"1", b"2", b"3", b" ",
     b"\n", b'{"group_name":"g","msg_ids":[', b"]}", b'"msg_id"', b"\\", b"\xff", b"0", b"-", b"."]
)  # fmt: skip


@settings(max_examples=1500)
@given(st.lists(pieces, max_size=14).map(b"".join))
@example(b'{"group_name":"g","msg_ids":[1,2]}')
def test_bodies_of_odd_pieces(body: bytes) -> None:
    ids_agree(body)


keys = st.one_of(st.binary(max_size=2), st.integers(0, 3000).map(lambda n: n.to_bytes(2, "big") + b"key"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, st.binary(max_size=3)),
        st.tuples(st.just("discard"), keys),
        st.tuples(st.just("discard_range"), keys, keys),
        st.tuples(st.just("fill"), st.integers(0, 2500), st.integers(1, 1500)),
    ),
    max_size=12,
)


def contents(stored: OrderedBytes) -> list[tuple[bytes, bytes]]:
    return list(scan(stored, b"", b"\xff" * 9))


@settings(max_examples=150, deadline=None)
@given(steps, st.lists(st.tuples(keys, keys), max_size=8))
def test_the_map_is_that_of_python(changes: list[tuple[Any, ...]], places: list[tuple[bytes, bytes]]) -> None:
    one, other = native.new_map(), SortedMap[bytes]()
    for name, *arguments in changes:
        for stored in (one, other):
            if name == "fill":
                start, count = arguments
                stored.update([((start + n * 7 % count).to_bytes(2, "big"), b"%d" % n) for n in range(count)])
            else:
                getattr(stored, name)(*arguments)
        assert len(one) == len(other)
    assert contents(one) == contents(other)
    for start, end in places:
        assert one.get(start) == other.get(start)
        assert one.first(start, end) == other.first(start, end)
        assert one.last(start, end) == other.last(start, end)
        for most in (-1, 0, 1, 700):
            assert one.page(start, end, most) == (other.page(start, end, most) if most >= 0 else [])
    one.clear()
    assert (len(one), contents(one)) == (0, [])


def test_the_map_holds_and_lets_go() -> None:
    key, value, second = bytes(bytearray(b"the key")), bytes(bytearray(b"value")), bytes(bytearray(b"second"))
    before = [sys.getrefcount(item) for item in (key, value, second)]
    stored = native.new_map()
    stored.set(key, value)
    stored.set(key, second)
    assert [sys.getrefcount(item) for item in (key, value, second)] == [
        before[0] + 1,
        before[1],
        before[2] + 1,
    ]
    stored.update([(key, None)])
    stored.set(key, value)
    stored.discard_range(b"", b"\xff")
    stored.set(key, value)
    found = stored.first(b"", b"\xff")
    assert found == (key, value)
    del stored, found
    assert [sys.getrefcount(item) for item in (key, value, second)] == before


def test_a_map_that_changes_while_it_is_read() -> None:
    stored = native.new_map()
    stored.update([(b"%05d" % n, b"") for n in range(5000)])
    seen = 0
    for key, _ in scan(stored, b"", b"\xff"):
        stored.discard(key)
        stored.discard_range(b"%05d" % (seen + 2), b"%05d" % (seen + 40))
        seen += 1
    assert 0 < seen < 5000


@needs_halves
def test_halves_of_bytes_are_multiplied_as_in_python() -> None:
    assert native.compare_nibbles is not None
    random = np.random.default_rng(2)
    for blocks, count in ((1, 1), (3, 7), (4, 2), (9, 5), (64, 3)):
        for low, high in ((-128, 128), (-128, -127), (127, 128)):
            query = random.integers(low, high, 64 * blocks).astype(np.int8)
            rows = random.integers(0, 256, (count, blocks, 32)).astype(np.uint8)
            rows[0] = 255
            scales = random.random(count).astype(np.float32)
            found = np.zeros(count, np.float32)
            native.compare_nibbles(query.data, rows.data, scales.data, found.data, 12.5, 0.25).finish()
            halves = np.stack((rows & 15, rows >> 4), 2).reshape(count, -1).astype(np.int32)
            products = (halves @ query.astype(np.int32) - 12.5) * scales.astype(float) * 0.25
            np.testing.assert_array_equal(found, products.astype(np.float32))


needs_products = pytest.mark.skipif(
    not native.IS_COMPILED or native.multiply_halves is None,
    reason="NOT RUN: no compiled parts, or a processor without AVX2, FMA and F16C",
)


@needs_products
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 13, 64, 65, 400])
@pytest.mark.parametrize(("depth", "columns"), [(1, 16), (17, 32), (512, 768), (1280, 256)])
def test_products_with_16_bit_floats_are_those_of_python(count: int, depth: int, columns: int) -> None:
    random = np.random.default_rng(count + depth)
    matrix = random.normal(size=(depth, columns)).astype(np.float16).astype(np.float32)
    rows = random.normal(size=(count, depth + 3)).astype(np.float32)[:, 3:]
    found = rows @ HalfWeights(matrix)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows.astype(float) @ matrix.astype(float), rtol=1e-4, atol=1e-4)


@needs_products
@pytest.mark.parametrize(
    "sizes",
    [
        (4, 32, 63, 1), (4, 30, 64, 1), (3, 32, 64, 1), (8, 32, 64, 1), (4, 64, 64, 1), (4, 32, 64, 0),
        (4, 32, 64, -1), (4, 32, 64, 2**62), (4, 0, 0, 1), (4, 32, 0, 1),
    ],
)  # fmt: skip
def test_products_of_sizes_that_do_not_go_together(sizes: tuple[int, int, int, int]) -> None:
    assert native.multiply_halves is not None
    rows, matrix, results = (memoryview(bytearray(size)) for size in sizes[:3])
    with pytest.raises(ValueError, match="multiply_halves"):
        native.multiply_halves(rows, matrix, results, sizes[3])
    with pytest.raises(BufferError):
        native.multiply_halves(rows, matrix, memoryview(bytes(64)), 1)


class Compared:
    """A comparison of so many rows that another thread helps, and what it gives."""

    def __init__(self, seed: int, count: int = 10_000) -> None:
        random = np.random.default_rng(seed)
        self.query = random.integers(-128, 128, 64).astype(np.int8)
        self.rows = random.integers(0, 256, (count, 1, 32)).astype(np.uint8)
        self.scales = np.ones(count, np.float32)
        self.found = np.full(count, -1, np.float32)
        halves = np.stack((self.rows & 15, self.rows >> 4), 2).reshape(count, -1).astype(np.int32)
        self.expected = (halves @ self.query.astype(np.int32)).astype(np.float32)

    def begin(self) -> native.Begun:
        """Begin with it once more."""
        assert native.compare_nibbles is not None
        self.found[:] = -1
        return native.compare_nibbles(
            self.query.data, self.rows.data, self.scales.data, self.found.data, 0.0, 1.0
        )

    def check(self) -> None:
        """Everything is there."""
        np.testing.assert_array_equal(self.found, self.expected)


@needs_halves
def test_several_comparisons_at_once_whoever_helps() -> None:
    compared = [Compared(seed) for seed in range(4)]
    for _ in range(50):
        begun = [each.begin() for each in compared]
        for one in begun[::-1]:
            one.finish()
            one.finish()
        for each in compared:
            each.check()

    def often(each: Compared) -> None:
        for _ in range(200):
            each.begin().finish()
            each.check()

    with ThreadPoolExecutor(len(compared)) as pool:
        list(pool.map(often, compared))
        for _ in range(100):
            one = compared[0].begin()
            for ended in [pool.submit(one.finish) for _ in compared]:
                ended.result()
            compared[0].check()


@needs_halves
def test_a_comparison_that_nobody_finishes_is_done_before_its_buffers_go() -> None:
    compared = Compared(5)
    for _ in range(200):
        begun = compared.begin()
        del begun
        compared.check()
    before = sys.getrefcount(compared.query), sys.getrefcount(compared.found)
    begun = compared.begin()
    begun.finish()
    assert (sys.getrefcount(compared.query), sys.getrefcount(compared.found)) == before


@needs_halves
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT RUN: no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_has_a_helper_of_its_own() -> None:
    compared = Compared(6)
    for _ in range(20):
        begun = compared.begin()
        child = os.fork()
        if child == 0:
            begun.finish()
            is_right = np.array_equal(compared.found, compared.expected)
            compared.begin().finish()
            os._exit(0 if is_right and np.array_equal(compared.found, compared.expected) else 1)
        begun.finish()
        compared.check()
        assert os.waitpid(child, 0)[1] == 0


@needs_halves
@pytest.mark.parametrize(
    ("query", "rows", "scales", "found"),
    [
        (0, 0, 0, 0),
        (64, 32, 4, 0),
        (64, 32, 8, 8),
        (64, 64, 4, 8),
        (32, 16, 4, 4),
        (64, 33, 4, 4),
        (64, 32, 5, 5),
    ],
)
def test_halves_of_sizes_that_do_not_go_together_are_refused(
    query: int, rows: int, scales: int, found: int
) -> None:
    assert native.compare_nibbles is not None
    first, second, third = (memoryview(bytes(size)) for size in (query, rows, scales))
    with pytest.raises(ValueError, match="do not go together"):
        native.compare_nibbles(first, second, third, memoryview(bytearray(found)), 0.0, 1.0)
    with pytest.raises((BufferError, TypeError)):
        native.compare_nibbles(first, second, third, memoryview(bytes(found)), 0.0, 1.0)
    with pytest.raises(TypeError):
        native.compare_nibbles(first, second, third, memoryview(bytearray(found)), "x", 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        native.compare_nibbles(first)  # type: ignore[call-arg]
