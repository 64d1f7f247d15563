"""Clients that break the rules, do not read, or are gone: nobody else notices."""

import asyncio
import random
import socket

import pytest

from mq9_broker.transport import ListenerOptions, Request

from .support import PLAIN, RawClient, eventually, serving

VERBOSE = b'CONNECT {"verbose":true,"pedantic":false,"headers":true}\r\n'
PEDANTIC = b'CONNECT {"verbose":false,"pedantic":true,"headers":true}\r\n'


# Clients that break the rules: each gets its -ERR and goes, and nobody else notices.


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"NONSENSE\r\n", b"Unknown Protocol Operation"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"Unknown Protocol Operation"),
        (b"GET / HTTP/1.1\r\n", b"Unknown Protocol Operation"),
        (b"PUB a 2\r\nlonger\r\n", b"Unknown Protocol Operation"),
        (b"PUB a 10\r\nshort\r\nPING\r\nPING\r\n", b"Unknown Protocol Operation"),
        (b"PUB a\r\n", b"Parser Error"),
        (b"PUB a -1\r\n", b"Parser Error"),
        (b"PUB a b c 1\r\n", b"Parser Error"),
        (b"SUB a\r\n", b"Parser Error"),
        (b"SUB a b c d\r\n", b"Parser Error"),
        (b"HPUB a 15 14\r\nNATS/1.0\r\n\r\nhi\r\n", b"Parser Error"),
        (b"HPUB a x 14\r\n", b"Parser Error"),
        (b"HPUB a 14\r\n", b"Parser Error"),
        (b"PUB a 1048577\r\n", b"Maximum Payload Violation"),
        (b"PUB $mq9.AI.MSG.SEND.a r 1048577\r\n", b"Maximum Payload Violation"),
        (b"PUB a 1048577\r\n" + b"x" * 1048577 + b"\r\n", b"Maximum Payload Violation"),
        (b"SUB " + b"a" * 2**20, b"maximum control line exceeded"),
        (b"PUB " + b"a" * 5000 + b" 1\r\nx\r\n", b"maximum control line exceeded"),
    ],
)
async def test_fatal_errors(data: bytes, error: bytes) -> None:
    async with serving() as served:
        bystander = await served.client()
        await bystander.ask(b"SUB a 1\r\n")
        client = await served.client()
        await client.ask(b"SUB in.* 1\r\n")
        got = await client.refused(b"PUB $mq9.AI.X in.1 1\r\na\r\n" + data)
        assert got == b"MSG in.1 1 3\r\n<a>\r\n-ERR '" + error + b"'\r\n"
        assert await bystander.ask(b"PUB a 1\r\nx\r\n") == b"MSG a 1 1\r\nx\r\n"
        await eventually(lambda: len(served.handler.closed) == 1)


@pytest.mark.parametrize("subject", [b"a..b", b".a", b"a.", b">.a", b"a.>.b"])
async def test_invalid_subscription_subjects(subject: bytes) -> None:
    async with serving() as served:
        client = await served.client()
        assert await client.ask(b"SUB %b 1\r\n" % subject) == b"-ERR 'Invalid Subject'\r\n"


@pytest.mark.parametrize("subject", [b"a..b", b".a", b"a.", b"a.*", b">", b"a.>"])
async def test_invalid_publish_subjects(subject: bytes) -> None:
    async with serving() as served:
        data = b"PUB %b 1\r\nx\r\n" % subject
        assert await (await served.client(PEDANTIC)).ask(data) == b"-ERR 'Invalid Publish Subject'\r\n"
        assert await (await served.client()).ask(data) == b""


async def test_wildcards_inside_a_token_are_literal() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(b"SUB a*.b 1\r\nPUB a*.b 1\r\nx\r\nPUB ab.b 1\r\nx\r\n")
        assert got == b"MSG a*.b 1 1\r\nx\r\n"


async def test_request_subjects_are_checked_for_pedantic_clients_only() -> None:
    async with serving() as served:
        data = b"SUB in.* 1\r\nPUB $mq9.AI.MSG.SEND.* in.1 1\r\nx\r\n"
        reply = b"MSG in.1 1 3\r\n<x>\r\n"
        assert await (await served.client()).ask(data) == reply
        error = b"-ERR 'Invalid Publish Subject'\r\n"
        assert await (await served.client(PEDANTIC)).ask(data) == error + reply


async def test_half_a_line_holds_nobody_up() -> None:
    async with serving() as served:
        slow = await served.client(PLAIN + b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1")
        client = await served.client()
        assert await client.ask(b"") == b""
        slow.send(b"\r\na")
        assert await client.ask(b"") == b""
        slow.send(b"\r\n")
        assert await slow.until(b">\r\n") == b"MSG in.1 1 3\r\n<a>\r\n"


async def test_the_largest_payload_is_accepted() -> None:
    async with serving() as served:
        client = await served.client()
        body = bytes(range(256)) * 4096
        served.handler.answer = lambda request: b"%d" % len(request[3])
        got = await client.ask(b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1048576\r\n" + body + b"\r\n")
        assert got == b"MSG in.1 1 7\r\n1048576\r\n"
        assert served.handler.requests[0][3] == body


async def test_noise_hurts_nobody_else() -> None:
    noise = random.Random(9)
    pieces = [
        b"PUB ",
        b"HPUB ",
        b"SUB ",
        b"CONNECT ",
        b"\r\n",
        b"\n",
        b" ",
        b"$mq9.AI.X",
        b"9",
        b"0",
        b"{",
        b"\x00",
        b">",
    ]
    async with serving(ListenerOptions(max_payload=1024)) as served:
        bystander = await served.client()
        await bystander.ask(b"SUB in.* 1\r\n")
        for number in range(300):
            client = await served.client(PLAIN if number % 2 else b"")
            client.send(
                b"".join(noise.choices(pieces, k=noise.randrange(1, 60))) + noise.randbytes(number % 40)
            )
            if number % 3:
                await client.close()
        got = await bystander.ask(b"PUB $mq9.AI.X in.1 1\r\na\r\n")
        assert got == b"MSG in.1 1 3\r\n<a>\r\n"


# Clients that do not read, or are gone.


async def test_slow_consumer_is_cut_alone() -> None:
    options = ListenerOptions(max_pending=2**20, write_high_water=2**18)
    async with serving(options) as served:
        slow = await served.client()
        await slow.ask(b"SUB flood 1\r\n")
        quick = await served.client()
        await quick.ask(b"SUB flood 1\r\n")
        sender = await served.client()
        message = b"PUB flood 65536\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(10_000):
            await sender.ask(message)
            await quick.until(b"x\r\n")
            if len(list(served.listener.connections)) == 2:
                break
        assert len(list(served.listener.connections)) == 2
        await eventually(lambda: len(served.handler.closed) == 1)
        assert await quick.ask(b"PUB flood 1\r\ny\r\n") == b"MSG flood 1 1\r\ny\r\n"


async def test_requests_that_the_handler_leaves_wait_until_the_client_has_read() -> None:
    options = ListenerOptions(write_high_water=2**18)
    async with serving(options) as served:
        pending: list[int] = []

        def answer(request: Request) -> bytes:
            pending.extend(connection.pending for connection in served.listener.connections)
            return request[3] * 2**18

        served.handler.most = 4
        served.handler.answer = answer
        client = await served.client()
        requests = b"".join(b"PUB $mq9.AI.X in.%d 1\r\n%d\r\n" % (n, n) for n in range(10)) * 4
        client.send(b"SUB in.* 1\r\n" + requests + b"PING\r\n")
        got = await client.until(b"PONG\r\n")
        assert got.count(b"MSG in.") == 40
        assert [request[3] for request in served.handler.requests] == [b"%d" % n for n in range(10)] * 4
        assert max(map(len, served.handler.calls)) == 4
        assert max(pending) <= 2**18
        client.send(b'CONNECT {"verbose":true}\r\n' + requests + b"PING\r\n")
        got = await client.until(b"PONG\r\n")
        assert (got.count(b"MSG in."), got.count(b"+OK\r\n")) == (40, 41)


async def test_output_of_a_single_read_is_bounded_too() -> None:
    options = ListenerOptions(max_pending=2**20, write_high_water=2**18)
    async with serving(options) as served:
        greedy = await served.client()
        await greedy.ask(b"".join(b"SUB flood %d\r\n" % number for number in range(500)))
        sender = await served.client()
        connection = next(c for c in served.listener.connections if c.client_id == 1)
        assert await sender.ask(b"PUB flood 262144\r\n" + b"x" * 262144 + b"\r\n") == b""
        await eventually(lambda: connection.is_closed)
        # 500 times 256 KiB would be 125 MiB; it was cut long before that was put together.
        assert connection.taken < 32 * 2**20


async def test_requests_wait_for_a_client_that_does_not_read_its_replies() -> None:
    options = ListenerOptions(write_high_water=2**16, write_deadline=60)
    async with serving(options) as served:
        served.handler.answer = lambda request: request[3] + b"y" * 100_000
        # A small window, so that little is on its way outside of the broker.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
        client = RawClient(*await asyncio.open_connection(sock=sock, limit=2**16))
        assert (await client.until(b"\r\n")).startswith(b"INFO ")
        client.send(PLAIN + b"SUB in.* 1\r\n")
        client.send(b"".join(b"PUB $mq9.AI.X in.%d 6\r\n%06d\r\n" % (i, i) for i in range(2000)))
        await eventually(lambda: len(served.handler.requests) > 0)
        handled = 0
        while handled != len(served.handler.requests):
            handled = len(served.handler.requests)
            await asyncio.sleep(0.1)
        assert handled < 1000
        # Others are served meanwhile.
        assert await (await served.client()).ask(b"") == b""
        # Once it reads, everything is carried out, in order, and nothing is lost.
        for number in range(2000):
            assert await client.until(b"\r\n") == b"MSG in.%d 1 100006\r\n" % number
            assert (await client.reader.readexactly(100_008)).startswith(b"%06d" % number)
        assert [request[3] for request in served.handler.requests] == [b"%06d" % i for i in range(2000)]
        await client.close()


async def test_a_verbose_client_that_has_to_wait_gets_one_ok_a_request() -> None:
    async with serving(ListenerOptions(write_high_water=2**16, write_deadline=60)) as served:
        served.handler.answer = lambda _: b"y" * 100_000
        client = await served.client(VERBOSE)
        await client.ask(b"SUB in.* 1\r\n")
        client.send(b"PUB $mq9.AI.X in.1 1\r\na\r\n" * 500 + b"PING\r\n")
        await eventually(lambda: any(connection.is_held_up for connection in served.listener.connections))
        received = await client.until(b"PONG\r\n")
        assert received.count(b"+OK\r\n") == received.count(b"MSG in.1 1 100000\r\n") == 500


async def test_a_client_that_takes_nothing_for_long_is_cut() -> None:
    options = ListenerOptions(write_high_water=2**16, write_deadline=0.3)
    async with serving(options) as served:
        served.handler.answer = lambda _: b"y" * 1_000_000
        client = await served.client()
        client.send(b"SUB in.* 1\r\n" + b"PUB $mq9.AI.X in.1 1\r\na\r\n" * 100)
        # The reader of this client stops reading beyond its limit, so the broker's output piles up.
        client.reader._limit = 1024  # type: ignore[attr-defined]
        await eventually(lambda: len(served.handler.closed) == 1)


async def test_silent_clients_are_asked_and_cut() -> None:
    async with serving(ListenerOptions(ping_interval=0.4, max_pings_out=2)) as served:
        silent = await served.client()
        lively = await served.client()
        pings = 0
        while len(list(served.listener.connections)) == 2:
            assert await lively.until(b"\r\n") == b"PING\r\n"
            pings += 1
            lively.send(b"PONG\r\n")
            if pings > 20:
                break
        assert await silent.rest() == b"PING\r\nPING\r\n-ERR 'Stale Connection'\r\n"
        assert await lively.ask(b"") in (b"", b"PING\r\n")


async def test_too_many_connections() -> None:
    async with serving(ListenerOptions(max_connections=1)) as served:
        first = await served.client()
        await first.ask(b"")
        second = await served.client()
        assert await second.rest() == b"-ERR 'maximum connections exceeded'\r\n"
        assert await first.ask(b"") == b""
