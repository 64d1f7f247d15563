"""The generator must not take a faulty server for a fast one: every fault it is meant to see ends its run."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compile_generator

FILLER = bytes(ord(" ") + (i * 7) % 95 for i in range(128))
Reply = Callable[[str, bytes], bytes | None]


def batch(*ids: int, payload: bytes = FILLER, error: str = "") -> bytes:
    item = {"payload": base64.b64encode(payload).decode(), "encoding": "base64"}
    return json.dumps(
        {"error": error, "messages": [{"msg_id": i, **item} for i in ids], "lease_id": "L"},
        separators=(",", ":"),
    ).encode()


class ScriptedServer:
    """A NATS server of one connection that answers each request by a function."""

    def __init__(self, reply: Reply, *, times: int = 1) -> None:
        self._reply, self._times = reply, times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1048576}\r\n')
        while line := (await reader.readline()).decode():
            words = line.split()
            if words[0] == "PING":
                writer.write(b"PONG\r\n")
            elif words[0] == "PUB":
                body = (await reader.readexactly(int(words[-1]) + 2))[:-2]
                answer = self._reply(words[1], body)
                if answer is not None:
                    writer.write(
                        b"MSG %b 1 %d\r\n%b\r\n" % (words[2].encode(), len(answer), answer) * self._times
                    )
        writer.close()

    async def load(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            common = ("--server", f"127.0.0.1:{port}", "--connections", "1", "--timeout", "2")
            process = await asyncio.create_subprocess_exec(
                str(compile_generator()), *arguments, *common, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode is not None
        return process.returncode, json.loads(output)


def counting() -> Reply:
    ids = iter(range(1_000_000))
    return lambda subject, body: b'{"error":"","msg_id":%d}' % next(ids)


async def test_counts_replies_and_their_ids() -> None:
    status, figures = await ScriptedServer(counting()).load(
        "request", "--subject", "s", "--total", "500", "--id-field", "msg_id"
    )
    assert (status, figures["messages"], figures["errors"]) == (0, 500, 0)


@pytest.mark.parametrize(
    ("reply", "times", "why"),
    [
        (lambda subject, body: b'{"error":"mailbox s does not exist"}', 1, "an error reply"),
        (lambda subject, body: b'{"error":{"code":503}}', 1, "an error reply"),
        (lambda subject, body: b'{"error":"","msg_id":7}', 1, "an id came twice"),
        (lambda subject, body: b'{"error":""}', 1, "a reply without its id"),
        (lambda subject, body: None, 1, "not finished in time"),
        (counting(), 2, "a reply to nothing that waits"),
    ],
)
async def test_faulty_replies_fail_the_run(reply: Reply, times: int, why: str) -> None:
    arguments = ("request", "--subject", "s", "--total", "50", "--id-field", "msg_id")
    status, figures = await ScriptedServer(reply, times=times).load(*arguments)
    assert status == 1
    assert figures["first_error"].startswith(why)


def script(*fetches: bytes, ack: bytes = b'{"error":""}') -> Reply:
    replies = iter(fetches)
    return lambda subject, body: next(replies, batch()) if ".FETCH." in subject else ack


async def test_takes_every_batch_and_acknowledges_it() -> None:
    seen: list[tuple[str, Any]] = []
    answer = script(batch(0, 1, 2), batch(3, 4))

    def reply(subject: str, body: bytes) -> bytes | None:
        seen.append((subject.split(".")[3], json.loads(body)))
        return answer(subject, body)

    status, figures = await ScriptedServer(reply).load(
        "fetch", "--mailbox", "m", "--lease-ms", "1000", "--total", "5"
    )
    assert (status, figures["messages"], figures["cycles"]) == (0, 5, 2)
    assert [operation for operation, _ in seen] == ["FETCH", "ACK", "FETCH", "ACK"]
    assert seen[1][1] == {"group_name": "bench", "msg_ids": [0, 1, 2]}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (script(batch(0, 1), batch(1, 2)), "an id came twice"),
        (script(batch(0, 0)), "an id came twice"),
        (script(batch(0, 1, payload=FILLER[1:])), "a message with another payload"),
        (script(batch(0, 1, error="unavailable")), "an error reply"),
        (script(batch(0, 1), ack=b'{"error":"internal"}'), "an error reply"),
        (script(batch(*range(11))), "a batch is longer than asked"),
        (script(batch(0, 1).replace(b"lease_id", b"lease")), "a leased batch without lease_id"),
        (script(*[batch()] * 3, batch(0)), "not finished in time"),
    ],
)
async def test_faulty_batches_fail_the_run(reply: Reply, why: str) -> None:
    arguments = ("fetch", "--mailbox", "m", "--lease-ms", "1000", "--total", "50", "--batch", "10")
    status, figures = await ScriptedServer(reply).load(*arguments)
    assert status == 1
    assert figures["first_error"].startswith(why)
