"""What several clients send in one turn of the event loop: carried out together, each in its order."""

import asyncio
from typing import Any

import pytest

from mq9_broker.transport import Request
from mq9_broker.transport.connection import Connection

from .support import PLAIN, RecordingHandler, Served, serving

GREETING = PLAIN + b"SUB in.* 1\r\n"
REQUEST = b"PUB $mq9.AI.X in.%d %d\r\n%b\r\n"


class _Channel:
    """In place of a socket."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        pass


class _Client:
    def __init__(self, served: Served) -> None:
        self.channel = _Channel()
        self.connection = Connection(served.listener)
        self.connection.connection_made(self.channel)  # type: ignore[arg-type]

    def sends(self, data: bytes) -> None:
        self.connection.data_received(data)

    def taken(self) -> bytes:
        written, self.channel.written = self.channel.written, []
        return b"".join(written)


async def _turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def _clients(served: Served, count: int) -> list[_Client]:
    clients = [_Client(served) for _ in range(count)]
    for client in clients:
        client.sends(GREETING)
    await _turn()
    for client in clients:
        client.taken()
    return clients


def _payloads(handler: RecordingHandler) -> list[bytes]:
    return [payload for _, _, _, payload in handler.requests]


async def test_one_turn_is_one_call_of_the_handler() -> None:
    async with serving() as served:
        clients = await _clients(served, 3)
        for number, client in enumerate(clients):
            client.sends(REQUEST % (number, 2, b"a%d" % number))
        assert served.handler.requests == []
        await _turn()
        assert served.handler.rounds == [3]
        assert _payloads(served.handler) == [b"a0", b"a1", b"a2"]
        assert [client.taken() for client in clients] == [
            b"MSG in.%d 1 4\r\n<a%d>\r\n" % (number, number) for number in range(3)
        ]


async def test_each_clients_order_is_kept_whatever_comes_in_between() -> None:
    async with serving() as served:
        first, second = await _clients(served, 2)
        first.sends(REQUEST % (1, 1, b"a"))
        second.sends(REQUEST % (1, 1, b"b"))
        first.sends(b"PING\r\n" + REQUEST % (2, 1, b"c"))
        second.sends(b"SUB more 2\r\n" + REQUEST % (2, 1, b"d"))
        first.sends(REQUEST % (3, 1, b"e"))
        await _turn()
        assert _payloads(served.handler) == [b"a", b"c", b"e", b"b", b"d"]
        answers = b"MSG in.1 1 3\r\n<a>\r\nPONG\r\nMSG in.2 1 3\r\n<c>\r\nMSG in.3 1 3\r\n<e>\r\n"
        assert first.taken() == answers


async def test_several_reads_of_one_client_are_one_part() -> None:
    async with serving() as served:
        first, second = await _clients(served, 2)
        for number in range(3):
            first.sends(REQUEST % (number, 1, b"%d" % number))
        second.sends(REQUEST % (9, 1, b"9"))
        await _turn()
        assert served.handler.rounds == [2]
        assert [len(call) for call in served.handler.calls] == [3, 1]
        assert _payloads(served.handler) == [b"0", b"1", b"2", b"9"]


async def test_what_the_handler_left_of_a_part_is_carried_out_as_well() -> None:
    async with serving() as served:
        clients = await _clients(served, 2)
        served.handler.most = 2
        for client in clients:
            client.sends(b"".join(REQUEST % (number, 1, b"%d" % number) for number in range(5)))
        await _turn()
        for client in clients:
            answers = b"".join(b"MSG in.%d 1 3\r\n<%d>\r\n" % (number, number) for number in range(5))
            assert client.taken() == answers


async def test_what_was_left_comes_before_what_the_client_sent_next() -> None:
    async with serving() as served:
        first, second = await _clients(served, 2)
        served.handler.most = 2
        first.sends(b"".join(REQUEST % (number, 1, b"%d" % number) for number in range(5)))
        second.sends(REQUEST % (1, 1, b"x"))
        first.sends(REQUEST % (5, 1, b"5"))
        await _turn()
        assert first.taken() == b"".join(
            b"MSG in.%d 1 3\r\n<%d>\r\n" % (number, number) for number in range(6)
        )


async def test_many_clients_are_carried_out_a_few_at_a_time() -> None:
    async with serving() as served:
        clients = await _clients(served, 50)
        for client in clients:
            client.sends(REQUEST % (1, 1, b"a"))
        await _turn()
        # The replies of one call are all in memory before the first is written.
        assert max(served.handler.rounds) <= 16
        assert [client.taken() for client in clients] == [b"MSG in.1 1 3\r\n<a>\r\n"] * 50


async def test_much_input_does_not_wait_for_the_end_of_the_turn() -> None:
    async with serving() as served:
        (client,) = await _clients(served, 1)
        payload = b"x" * 1_000_000
        for number in range(5):
            client.sends(REQUEST % (number, len(payload), payload))
        assert len(served.handler.requests) == 5
        client.sends(REQUEST % (5, 1, b"a"))
        await _turn()
        assert len(served.handler.requests) == 6


async def test_a_failing_handler_ends_nobody_who_came_later() -> None:
    async with serving() as served:
        first, second, third = await _clients(served, 3)

        def fail(request: Request) -> bytes:
            raise RuntimeError("broken on purpose")

        answer, served.handler.answer = served.handler.answer, fail
        first.sends(REQUEST % (1, 1, b"a"))
        second.sends(REQUEST % (1, 1, b"a"))
        await _turn()
        served.handler.answer = answer
        assert first.taken() == second.taken() == b"-ERR 'Internal Error'\r\n"
        third.sends(REQUEST % (1, 1, b"a"))
        await _turn()
        assert third.taken() == b"MSG in.1 1 3\r\n<a>\r\n"


async def test_an_unexpected_failure_ends_its_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        first, second = await _clients(served, 2)

        def fail(connection: Connection, event: object) -> None:
            raise RuntimeError("broken on purpose")

        monkeypatch.setattr(Connection, "_unsubscribe", fail)
        first.sends(b"UNSUB 1\r\n")
        second.sends(REQUEST % (1, 1, b"a"))
        await _turn()
        assert first.taken() == b"-ERR 'Internal Error'\r\n"
        assert second.taken() == b"MSG in.1 1 3\r\n<a>\r\n"


async def test_who_sends_no_more_is_answered_first() -> None:
    async with serving() as served:
        client = await served.client(GREETING)
        await client.ask(b"")
        client.send(REQUEST % (1, 1, b"a"))
        client.writer.write_eof()
        assert await client.rest() == b"MSG in.1 1 3\r\n<a>\r\n"


async def test_what_a_client_sent_before_it_went_away_is_carried_out() -> None:
    async with serving() as served:
        (client,) = await _clients(served, 1)
        client.sends(REQUEST % (1, 1, b"a"))
        client.connection.connection_lost(ConnectionResetError())
        assert _payloads(served.handler) == [b"a"]
        await _turn()
        assert len(served.handler.closed) == 1
