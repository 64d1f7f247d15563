"""The listener as its clients see it: raw bytes in, raw bytes out."""

import asyncio
import json
from collections import Counter

import pytest

from mq9_broker.transport import ListenerOptions

from .support import PLAIN, eventually, serving

VERBOSE = b'CONNECT {"verbose":true,"pedantic":false,"headers":true}\r\n'
PEDANTIC = b'CONNECT {"verbose":false,"pedantic":true,"headers":true}\r\n'


def sids(received: bytes) -> set[bytes]:
    return {line.split(b" ")[2] for line in received.split(b"\r\n") if line.startswith(b"MSG ")}


# INFO and CONNECT.


async def test_info_says_what_the_server_is() -> None:
    async with serving(ListenerOptions(server_name="here", max_payload=5000)) as served:
        client = await served.client()
        other = await served.client()
        verb, text = client.info.split(b" ", 1)
        info = json.loads(text)
        assert verb == b"INFO"
        assert info["server_name"] == "here"
        assert info["max_payload"] == 5000
        assert info["headers"] is True
        assert info["proto"] == 1
        assert (info["host"], info["port"]) == served.listener.address
        assert info["client_ip"] == "127.0.0.1"
        assert info["client_id"] != json.loads(other.info[5:])["client_id"]
        assert info["server_id"] == json.loads(other.info[5:])["server_id"]
        # Nothing is announced that is not so.
        assert not {"auth_required", "tls_required", "tls_available", "jetstream", "nonce", "ldm"} & set(info)


async def test_no_ping_before_connect() -> None:
    async with serving(ListenerOptions(ping_interval=0.2)) as served:
        client = await served.client(b"")
        assert await client.rest() == b"-ERR 'Stale Connection'\r\n"


async def test_connect_and_ping_in_one_packet() -> None:
    async with serving() as served:
        client = await served.client(PLAIN + b"PING\r\n")
        assert await client.until(b"\r\n") == b"PONG\r\n"


@pytest.mark.parametrize(
    ("connect", "error"),
    [
        (b"CONNECT {bad\r\n", b"Parser Error"),
        (b"CONNECT []\r\n", b"Parser Error"),
        (b'CONNECT {"verbose":"yes"}\r\n', b"Parser Error"),
        (b'CONNECT {"name":"\xff"}\r\n', b"Parser Error"),
        (b'CONNECT {"verbose":false,"protocol":2}\r\n', b"invalid client protocol"),
        (b'CONNECT {"verbose":false,"no_responders":true}\r\n', b"no responders requires headers support"),
    ],
)
async def test_refused_connect(connect: bytes, error: bytes) -> None:
    async with serving() as served:
        client = await served.client(b"")
        assert await client.refused(connect) == b"-ERR '" + error + b"'\r\n"


async def test_unknown_connect_fields_are_ignored() -> None:
    async with serving() as served:
        client = await served.client(b'CONNECT {"verbose":false,"user":"u","pass":null,"new":[1,{}]}\r\n')
        assert await client.ask(b"") == b""


# Publish and subscribe between clients.


async def test_wildcards_and_sids() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(
            b"SUB a.b 1\r\nSUB a.* 22\r\nSUB > xyz\r\nSUB *.b 4\r\nSUB a.> 5\r\nSUB a 6\r\nSUB b.* 7\r\n"
            b"PUB a.b 2\r\nhi\r\n"
        )
        assert sorted(got.split(b"MSG ")[1:]) == [
            b"a.b %b 2\r\nhi\r\n" % sid for sid in (b"1", b"22", b"4", b"5", b"xyz")
        ]


async def test_equal_sids_of_two_connections() -> None:
    async with serving() as served:
        one, two = await served.client(), await served.client()
        await one.ask(b"SUB one 1\r\n")
        await two.ask(b"SUB two 1\r\n")
        assert await one.ask(b"PUB two 1\r\nx\r\n") == b""
        assert await two.ask(b"PUB one 1\r\ny\r\n") == b"MSG two 1 1\r\nx\r\n"
        assert await one.ask(b"UNSUB 1\r\n") == b"MSG one 1 1\r\ny\r\n"
        await one.ask(b"PUB two 1\r\nz\r\n")
        assert await two.ask(b"") == b"MSG two 1 1\r\nz\r\n"


async def test_queue_group_gives_each_message_to_one_member() -> None:
    async with serving() as served:
        members = [await served.client() for _ in range(3)]
        for member in members:
            await member.ask(b"SUB work.* team 1\r\n")
        other = await served.client()
        await other.ask(b"SUB work.1 others 9\r\nSUB work.1 8\r\n")
        sender = await served.client()
        await sender.ask(b"PUB work.1 1\r\nx\r\n" * 300)
        counts = [(await member.ask(b"")).count(b"MSG work.1 1 1") for member in members]
        assert sum(counts) == 300
        assert min(counts) > 30  # each is chosen with probability 1/3
        text = await other.ask(b"")
        assert Counter(text.split(b"\r\n"))[b"MSG work.1 9 1"] == 300
        assert Counter(text.split(b"\r\n"))[b"MSG work.1 8 1"] == 300


async def test_a_queue_group_spans_subjects() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(
            b"SUB a.b team 1\r\nSUB a.* team 2\r\nSUB > team 3\r\n" + b"PUB a.b 1\r\nx\r\n" * 50
        )
        assert got.count(b"MSG") == 50
        assert {b" 1 1", b" 2 1", b" 3 1"} == {
            line[7:] for line in got.split(b"\r\n") if line.startswith(b"MSG")
        }


async def test_unsub_with_a_count() -> None:
    async with serving() as served:
        client = await served.client()
        publish = b"PUB a 1\r\nx\r\n"
        assert (await client.ask(b"SUB a 1\r\nUNSUB 1 2\r\n" + 3 * publish)).count(b"MSG") == 2
        # What was delivered before counts.
        assert (await client.ask(b"SUB a 1\r\n" + publish + b"UNSUB 1 2\r\n" + 3 * publish)).count(
            b"MSG"
        ) == 2
        assert (await client.ask(b"SUB a 1\r\n" + 2 * publish + b"UNSUB 1 2\r\n" + publish)).count(
            b"MSG"
        ) == 2
        assert (await client.ask(b"SUB a 1\r\nUNSUB 1\r\nUNSUB 1\r\nUNSUB 77\r\n" + publish)).count(
            b"MSG"
        ) == 0


async def test_headers_pass_through_untouched() -> None:
    headers = "NATS/1.0\r\nA: x\r\nA: y\r\na:z\r\nEmpty:\r\nBlank:  a b \r\nUtf: grüß 你\r\n\r\n".encode()
    async with serving() as served:
        client = await served.client()
        message = b"HPUB a r %d %d\r\n%bhi\r\n" % (len(headers), len(headers) + 2, headers)
        got = await client.ask(b"SUB a 1\r\n" + message)
        assert got == b"HMSG a 1 r %d %d\r\n%bhi\r\n" % (len(headers), len(headers) + 2, headers)


async def test_a_client_without_headers_gets_none() -> None:
    async with serving() as served:
        old = await served.client(b'CONNECT {"verbose":false}\r\n')
        await old.ask(b"SUB a 1\r\n")
        client = await served.client()
        await client.ask(b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")
        assert await old.ask(b"") == b"MSG a 1 2\r\nhi\r\n"
        assert await old.refused(b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n") == b"-ERR 'Parser Error'\r\n"


async def test_no_echo() -> None:
    async with serving() as served:
        client = await served.client(
            b'CONNECT {"verbose":false,"echo":false,"headers":true,"no_responders":true}\r\n'
        )
        other = await served.client()
        await other.ask(b"SUB a team 5\r\nSUB b 6\r\n")
        got = await client.ask(
            b"SUB a team 1\r\nSUB b 2\r\n" + b"PUB a 1\r\nx\r\n" * 20 + b"PUB b 1\r\nx\r\n"
        )
        assert got == b""
        assert (await other.ask(b"")).count(b"MSG") == 21


async def test_no_responders() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(b"SUB r.* 7\r\nPUB nobody r.1 2\r\nhi\r\n")
        assert got == b"HMSG r.1 7 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"
        # Not where somebody listens, not without a reply subject, not to others.
        watcher = await served.client()
        await watcher.ask(b"SUB r.* 1\r\n")
        assert (
            await client.ask(b"SUB somebody 8\r\nPUB somebody r.1 1\r\nx\r\n")
            == b"MSG somebody 8 r.1 1\r\nx\r\n"
        )
        assert await client.ask(b"PUB nobody 1\r\nx\r\n") == b""
        await client.ask(b"PUB nobody r.1 1\r\nx\r\n")
        assert await watcher.ask(b"") == b""


async def test_no_status_for_clients_that_did_not_ask() -> None:
    async with serving() as served:
        client = await served.client(b'CONNECT {"verbose":false,"headers":true}\r\n')
        assert await client.ask(b"SUB r.* 7\r\nPUB nobody r.1 2\r\nhi\r\n") == b""


async def test_verbose() -> None:
    async with serving() as served:
        client = await served.client(VERBOSE)
        got = await client.ask(b"SUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 1\r\nPUB $mq9.AI.X r 1\r\nx\r\n")
        assert got == b"+OK\r\n+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\n+OK\r\n+OK\r\n"


async def test_thousands_of_subscriptions_come_and_go() -> None:
    async with serving() as served:
        client = await served.client()
        await client.ask(b"".join(b"SUB s.%d.* %d\r\nSUB t.*.%d x%d\r\n" % (i, i, i, i) for i in range(5000)))
        got = await client.ask(b"PUB s.4999.a 1\r\nx\r\nPUB t.q.4998 1\r\nx\r\n")
        assert got == b"MSG s.4999.a 4999 1\r\nx\r\nMSG t.q.4998 x4998 1\r\nx\r\n"
        await client.ask(b"".join(b"UNSUB %d\r\nUNSUB x%d\r\n" % (i, i) for i in range(5000)))
        assert await client.ask(b"PUB s.4999.a 1\r\nx\r\nPUB t.q.4998 1\r\nx\r\n") == b""
        assert not served.listener.index.match(b"s.4999.a")


async def test_subscriptions_of_a_lost_connection_are_gone() -> None:
    async with serving() as served:
        gone = await served.client()
        await gone.ask(b"SUB a 1\r\nSUB a.* 2\r\nSUB > 3\r\nSUB a q 4\r\n")
        await gone.close()
        client = await served.client()
        await eventually(lambda: not served.listener.index.match(b"a"))
        got = await client.ask(b"SUB r 1\r\nPUB a r 1\r\nx\r\n")
        assert got.startswith(b"HMSG r 1 ")


# Requests below $mq9.AI.


async def test_requests_reach_the_handler_alone() -> None:
    async with serving() as served:
        spy = await served.client()
        await spy.ask(
            b"SUB > 1\r\nSUB $mq9.> 2\r\nSUB $mq9.AI.MSG.> 3\r\nSUB $mq9.AI.MSG.SEND.x 4\r\n"
            b"SUB *.AI.MSG.> 5\r\nSUB $mq9.AI.MSG.SEND.* 6\r\nSUB $mq9.AI.MSG.SEND.x team 7\r\n"
        )
        client = await served.client()
        headers = b"NATS/1.0\r\nmq9-key: k\r\n\r\n"
        got = await client.ask(
            b"SUB _INBOX.c.* 1\r\nSUB > 9\r\nPUB $mq9.AI.MSG.SEND.x _INBOX.c.1 2\r\nhi\r\n"
            b"PUB $mq9.AI.MSG.SEND.x 2\r\nho\r\n"
            b"HPUB $mq9.AI.MSG.SEND.x _INBOX.c.2 %d %d\r\n%bhu\r\n"
            % (len(headers), len(headers) + 2, headers)
        )
        assert served.handler.requests == [
            (b"$mq9.AI.MSG.SEND.x", b"_INBOX.c.1", None, b"hi"),
            (b"$mq9.AI.MSG.SEND.x", None, None, b"ho"),
            (b"$mq9.AI.MSG.SEND.x", b"_INBOX.c.2", headers, b"hu"),
        ]
        assert len(served.handler.calls) == 1
        assert sorted(got.split(b"MSG ")[1:]) == [
            b"_INBOX.c.1 1 4\r\n<hi>\r\n",
            b"_INBOX.c.1 9 4\r\n<hi>\r\n",
            b"_INBOX.c.2 1 4\r\n<hu>\r\n",
            b"_INBOX.c.2 9 4\r\n<hu>\r\n",
        ]
        assert await spy.ask(b"") == b""


async def test_just_outside_the_brokers_subjects_is_ordinary() -> None:
    async with serving() as served:
        client = await served.client()
        assert await client.ask(b"SUB $mq9.AI 1\r\nPUB $mq9.AI 1\r\nx\r\n") == b"MSG $mq9.AI 1 1\r\nx\r\n"
        assert (
            await client.ask(b"SUB $mq9.AIR.a 2\r\nPUB $mq9.AIR.a 1\r\nx\r\n")
            == b"MSG $mq9.AIR.a 2 1\r\nx\r\n"
        )
        assert served.handler.calls == []


async def test_replies_go_only_to_the_connection_that_asked() -> None:
    async with serving() as served:
        spy = await served.client()
        await spy.ask(b"SUB > 1\r\nSUB _INBOX.> 2\r\nSUB _INBOX.c.* 3\r\nSUB _INBOX.c.1 4\r\n")
        client = await served.client()
        assert await client.ask(b"SUB _INBOX.c.* 8\r\nPUB $mq9.AI.X _INBOX.c.1 1\r\na\r\n") == (
            b"MSG _INBOX.c.1 8 3\r\n<a>\r\n"
        )
        # A reply that none of its own subscriptions takes is dropped, not handed to others.
        assert await client.ask(b"PUB $mq9.AI.X _INBOX.d.1 1\r\na\r\n") == b""
        assert await spy.ask(b"") == b""


async def test_a_request_cannot_name_a_request_as_its_reply_subject() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(
            b"SUB > 1\r\nSUB $mq9.> 2\r\nSUB $mq9.AI.Y 3\r\nPUB $mq9.AI.X $mq9.AI.Y 1\r\na\r\n"
        )
        assert got == b""
        assert len(served.handler.requests) == 1


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize(
    ("subscriptions", "reply", "sids"),
    [
        (b"SUB in.* 1\r\n", b"in.1", [b"1"]),
        (b"SUB in.* 1\r\n", b"in.1.2", []),
        (b"SUB in.* 1\r\n", b"in", []),
        (b"SUB in.* 1\r\n", b"inn", []),
        (b"SUB in.* 1\r\n", b"in.", []),
        (b"SUB * 1\r\n", b"in", [b"1"]),
        (b"SUB in 1\r\n", b"in", [b"1"]),
        (b"SUB in.a 1\r\nSUB in.* 2\r\n", b"in.a", [b"1", b"2"]),
        (b"SUB in.a 1\r\nSUB in.* 2\r\n", b"in.b", [b"2"]),
        (b"SUB in.* 1\r\nSUB in.* 2\r\n", b"in.b", [b"1", b"2"]),
        (
            b"SUB in.> 1\r\nSUB in.* 2\r\nSUB > 3\r\nSUB *.b 4\r\nSUB *.c 5\r\n",
            b"in.b",
            [b"1", b"2", b"3", b"4"],
        ),
        (b"SUB in.* q 1\r\n", b"in.b", [b"1"]),
        (b"SUB in.* 1\r\nUNSUB 1\r\n", b"in.b", []),
        (b"SUB in.* 1\r\nSUB in.* 2\r\nUNSUB 1\r\n", b"in.b", [b"2"]),
        (b"SUB in.* 1\r\nUNSUB 1\r\nSUB in.* 3\r\n", b"in.b", [b"3"]),
        (b"SUB in.* 1\r\nUNSUB 1 1\r\n", b"in.b", [b"1"]),
    ],
)
async def test_replies_follow_subscriptions(
    subscriptions: bytes, reply: bytes, sids: list[bytes], count: int
) -> None:
    async with serving() as served:
        client = await served.client()
        # The replies around it go a simple way, which is tried for all of them together.
        around = b"PUB $mq9.AI.X other.%d 1\r\na\r\n"
        requests = [around % number for number in range(count)]
        requests[count // 2] = b"PUB $mq9.AI.X %b 1\r\na\r\n" % reply
        got = await client.ask(b"SUB other.* other\r\n" + subscriptions + b"".join(requests))
        frames = [frame for frame in got.split(b"MSG ")[1:] if not frame.startswith(b"other.")]
        assert got.count(b" other 3\r\n<a>\r\n") == count - 1
        assert sorted(frames) == [b"%b %b 3\r\n<a>\r\n" % (reply, sid) for sid in sids]


async def test_many_replies_at_once() -> None:
    async with serving() as served:
        served.handler.answer = lambda request: b"y" * int(request[3])
        for extra in (b"", b"SUB lit.eral 2\r\n", b"SUB x.*.y 3\r\n", b"SUB in.7 4\r\n", b"SUB > 5\r\n"):
            client = await served.client()
            sizes = [number * 37 % 900 for number in range(300)]
            requests = [b"PUB $mq9.AI.X in.%d 4\r\n%04d\r\n" % pair for pair in enumerate(sizes)]
            got = await client.ask(b"SUB in.* 1\r\n" + extra + b"".join(requests))
            expected = [b"in.%d 1 %d\r\n%b\r\n" % (n, size, b"y" * size) for n, size in enumerate(sizes)]
            assert [frame for frame in got.split(b"MSG ")[1:] if b" 1 " in frame] == expected
            others = [frame.split(b" ")[1] for frame in got.split(b"MSG ")[1:] if b" 1 " not in frame]
            assert others == {b"SUB in": [b"4"], b"SUB > ": [b"5"] * 300}.get(extra[:6], [])


async def test_one_member_of_a_connections_own_queue_group_gets_a_reply() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(
            b"SUB in.* q 1\r\nSUB in.* q 2\r\nSUB > q 3\r\n" + b"PUB $mq9.AI.X in.1 1\r\na\r\n" * 60
        )
        assert got.count(b"MSG") == 60
        assert {line.split(b" ")[2] for line in got.split(b"\r\n") if line[:3] == b"MSG"} == {
            b"1",
            b"2",
            b"3",
        }


async def test_counts_hold_for_replies() -> None:
    async with serving() as served:
        client = await served.client()
        request = b"PUB $mq9.AI.X in.1 1\r\na\r\n"
        assert (await client.ask(b"SUB in.* 1\r\nUNSUB 1 2\r\n" + 5 * request)).count(b"MSG") == 2
        # Replies delivered the fast way count as well.
        assert (await client.ask(b"SUB in.* 1\r\n" + 3 * request)).count(b"MSG") == 3
        assert (await client.ask(b"UNSUB 1 4\r\n" + 5 * request)).count(b"MSG") == 1
        # The old style of a request: a literal inbox for a single reply.
        old = b"SUB lit.%d %d\r\nUNSUB %d 1\r\nPUB $mq9.AI.X lit.%d 1\r\na\r\n"
        assert (await client.ask(b"".join(old % (i, i, i, i) for i in range(50)))).count(b"MSG") == 50
        assert served.listener.index.literal == {}


async def test_everything_of_one_read_is_handled_in_order_before_the_pong() -> None:
    async with serving() as served:
        client = await served.client()
        got = await client.ask(
            b"SUB in.* 1\r\n" + b"".join(b"PUB $mq9.AI.X in.%d 3\r\n%03d\r\n" % (i, i) for i in range(500))
        )
        assert [line for line in got.split(b"\r\n") if line[:1] == b"<"] == [
            b"<%03d>" % i for i in range(500)
        ]


async def test_a_connection_knows_what_it_listens_to() -> None:
    async with serving() as served:
        client = await served.client()
        await client.ask(
            b"SUB in.* 1\r\nSUB one 2\r\nUNSUB 2 1\r\nSUB > 3\r\nUNSUB 3\r\nSUB $mq9.AI.> 4\r\n"
            b"PUB $mq9.AI.X in.1 1\r\na\r\n"
        )
        (connection,) = served.handler.connections
        listened = [b"in.2", b"one", b"in", b"in.2.3", b"$mq9.AI.X"]
        assert [connection.listens(subject) for subject in listened] == [True, True, False, False, False]
        await client.ask(b"PUB $mq9.AI.X one 1\r\na\r\nUNSUB 1\r\n")
        assert not any(map(connection.listens, listened))
        await client.ask(b"SUB in.* 5\r\n")
        assert connection.listens(b"in.2")
        await client.close()
        await eventually(lambda: not connection.listens(b"in.2"))


async def test_replies_may_come_later_and_after_the_end() -> None:
    async with serving() as served:
        served.handler.answer = lambda _: None
        client = await served.client()
        await client.ask(b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\n")
        (connection,) = served.handler.connections
        connection.send_replies([(b"in.1", b"late"), (b"in.2", b"later")])
        assert await client.until(b"later\r\n") == b"MSG in.1 1 4\r\nlate\r\nMSG in.2 1 5\r\nlater\r\n"
        assert not connection.is_closed
        await client.close()
        await eventually(lambda: connection.is_closed)
        connection.send_replies([(b"in.1", b"too late")])
        await eventually(lambda: served.handler.closed == [connection])


async def test_replies_larger_than_max_payload_are_delivered() -> None:
    async with serving(ListenerOptions(max_payload=1024)) as served:
        served.handler.answer = lambda _: b"y" * 1_500_000
        client = await served.client()
        got = await client.ask(b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\n")
        assert got == b"MSG in.1 1 1500000\r\n" + b"y" * 1_500_000 + b"\r\n"


async def test_a_handler_that_fails_ends_that_connection_alone() -> None:
    async with serving() as served:
        other = await served.client()
        await other.ask(b"SUB in.* 1\r\n")
        client = await served.client()
        await client.ask(b"SUB in.* 1\r\n")

        def fail(_: object) -> bytes:
            raise RuntimeError("broken on purpose")

        answer, served.handler.answer = served.handler.answer, fail
        assert await client.refused(b"PUB $mq9.AI.X in.1 1\r\na\r\n") == b"-ERR 'Internal Error'\r\n"
        served.handler.answer = answer
        assert b"<a>" in await other.ask(b"PUB $mq9.AI.X in.1 1\r\na\r\n")


# The end.


async def test_lame_duck() -> None:
    async with serving() as served:
        client = await served.client()
        await client.ask(b"SUB in.* 1\r\n")
        old = await served.client(b'CONNECT {"verbose":false}\r\n')
        await old.ask(b"")
        served.listener.stop_accepting()
        info = json.loads((await client.until(b"\r\n")).removeprefix(b"INFO "))
        assert info["ldm"] is True
        # Who is connected is still served, old clients are not told anything, new ones are refused.
        assert await client.ask(b"PUB $mq9.AI.X in.1 1\r\na\r\n") == b"MSG in.1 1 3\r\n<a>\r\n"
        assert await old.ask(b"") == b""
        with pytest.raises(ConnectionRefusedError):
            await served.client()
        draining = asyncio.create_task(served.listener.drain(30))
        await client.close()
        await old.close()
        await asyncio.wait_for(draining, 5)


async def test_close_delivers_what_was_written() -> None:
    async with serving() as served:
        served.handler.answer = lambda _: b"y" * 3_000_000
        client = await served.client()
        await client.ask(b"SUB in.* 1\r\n")
        client.send(b"PUB $mq9.AI.X in.1 1\r\na\r\n")
        await eventually(lambda: len(served.handler.requests) == 1)
        closing = asyncio.create_task(served.listener.close(flush_timeout=10))
        got = await client.rest()
        assert got.startswith(b"MSG in.1 1 3000000\r\n" + b"y" * 3_000_000 + b"\r\nINFO ")
        await client.close()
        await closing
