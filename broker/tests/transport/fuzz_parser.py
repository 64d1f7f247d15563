"""Fuzzes the parser against the independent slow one, guided by coverage, for as long as you like.

    .venv/bin/python -m pytest broker/tests/transport/test_parser.py      # the short run, by hypothesis
    .venv/bin/python broker/tests/transport/fuzz_parser.py --seconds 600  # the long one

Inputs that reach lines of the parser in an order not seen before are kept and changed further. Each input
goes through the parser whole, in random pieces and byte by byte, with the compiled parts and without, with
the fast way for many requests and without; all results must be those of the slow parser. The first input that
is not so is printed, made as short as possible.
"""
# ruff: noqa: T201  # a command

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from mq9_broker import native
from mq9_broker.transport import parser as under_test
from mq9_broker.transport.parser import Parser, ParserLimits

HERE = Path(__file__).resolve().parent
LIMITS = ParserLimits(max_payload=40, max_control_line=64)
PIECES = [
    *(
        b"PUB ",
        b"HPUB ",
        b"SUB ",
        b"UNSUB ",
        b"PING\r\n",
        b"PONG\r\n",
        b"CONNECT {}\r\n",
        b"+OK\r\n",
        b"pub ",
    ),
    *(b"$mq9.AI.", b"$mq9.AI.MSG.SEND.a", b"a.b", b"_INBOX.x.1", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x0b"),
    *(b"0", b"1", b"2", b"5", b"40", b"41", b"9999999999", b"-1", b"hi", b"\x00\xff", b"a" * 60),
    b"PUB $mq9.AI.X r 2\r\nhi\r\n",
    b"HPUB $mq9.AI.X r 2 4\r\nhhhi\r\n",
    b"SUB a.* q 1\r\n",
    b"UNSUB 1 5\r\n",
    b"PUB a 2\r\nhi\r\n",
]
LARGEST_INPUT = 600


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ReferenceParser = _load("reference_parser").ReferenceParser


def flat(events: list[Any]) -> list[tuple[object, ...]]:
    """Return events as the slow parser has them."""
    result: list[tuple[object, ...]] = []
    kinds = {"Publish": "publish", "ProtocolError": "error"}
    for event in events:
        if isinstance(event, list):
            result += [("request", *request) for request in event]
        else:
            name = type(event).__name__
            result.append((kinds.get(name, name.lower()), *event))
    return result


# Whether compiled parts are used, and from how many bytes on the fast way is.
WAYS = ((True, 1024), (False, 1024), (False, 0))
TAKE_REQUESTS = native.take_requests


def parse(pieces: list[bytes], compiled: bool, threshold: int) -> list[tuple[object, ...]]:
    native.take_requests = TAKE_REQUESTS if compiled else None
    under_test._WORTH_SPLITTING = threshold
    parser = Parser(LIMITS)
    return [event for piece in pieces for event in flat(parser.feed(piece))]


def cut(data: bytes, rnd: random.Random) -> list[bytes]:
    edges = sorted({0, len(data), *(rnd.randrange(len(data) + 1) for _ in range(rnd.randrange(6)))})
    return [data[start:end] for start, end in pairwise(edges)]


def is_right(data: bytes, rnd: random.Random) -> bool:
    """Whether all ways to parse an input give the same."""
    wanted = ReferenceParser(LIMITS.max_payload, LIMITS.max_control_line).feed(data)
    chunkings = ([data], cut(data, rnd), [data[i : i + 1] for i in range(len(data))])
    return all(parse(pieces, *way) == wanted for pieces in chunkings for way in WAYS)


def coverage(data: bytes) -> set[tuple[int, int]]:
    """Return which lines of the parser follow each other when it reads an input."""
    seen: set[tuple[int, int]] = set()
    file = under_test.__file__
    last = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal last
        if frame.f_code.co_filename != file:
            return None
        if event == "line":
            seen.add((last, frame.f_lineno))
            last = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        parse([data], False, 0)
        parse([data[: len(data) // 2], data[len(data) // 2 :]], True, 1024)
    finally:
        sys.settrace(None)
    return seen


def changed(data: bytes, others: list[bytes], rnd: random.Random) -> bytes:
    """Return an input with some changes."""
    result = bytearray(data)
    for _ in range(rnd.randint(1, 5)):
        at = rnd.randrange(len(result) + 1)
        kind = rnd.randrange(6)
        if kind == 0:
            result[at:at] = rnd.choice(PIECES)
        elif kind == 1:
            del result[at : at + rnd.randint(1, 8)]
        elif kind == 2 and at < len(result):
            result[at] = rnd.randrange(256)
        elif kind == 3:
            other = rnd.choice(others)
            result[at:] = other[rnd.randrange(len(other) + 1) :]
        elif kind == 4:
            start = rnd.randrange(len(result) + 1)
            result[at:at] = result[start : start + rnd.randint(1, 40)]
        else:
            result += rnd.choice(PIECES)
    return bytes(result[:LARGEST_INPUT])


def shortened(data: bytes, rnd: random.Random) -> bytes:
    """Return a shorter input that is parsed wrongly too."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if is_right(shorter, rnd):
                at += size
            else:
                data = shorter
        size //= 2
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default 60)")
    parser.add_argument(
        "--seed", type=int, default=None, help="for the same run again (default: another each time)"
    )
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    rnd = random.Random(seed)
    print(f"seed {seed}", flush=True)
    corpus = list(PIECES)
    seen: set[tuple[int, int]] = set()
    ends = time.monotonic() + arguments.seconds
    count = 0
    while time.monotonic() < ends:
        data = changed(rnd.choice(corpus), corpus, rnd)
        count += 1
        if not is_right(data, rnd):
            print(f"WRONG after {count} inputs: {shortened(data, rnd)!r}")
            return 1
        found = coverage(data)
        if not found <= seen:
            seen |= found
            corpus.append(data)
    print(f"{count} inputs, {len(corpus)} kept, {len(seen)} pairs of lines reached, all parsed alike")
    return 0


if __name__ == "__main__":
    sys.exit(main())
