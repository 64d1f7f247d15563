"""What another process in front of the broker could take off it, and what handing over would cost.

    .venv/bin/python bench/processes.py

A process in front (one of several behind one port by SO_REUSEPORT, say) would read sockets, do TLS, parse,
and hand requests over to the one process that has the engine; replies go the other way. Each part is measured
alone, in CPU time of its thread (kernel included), in chunks of 64 SENDs of 128 bytes; the best of many runs
counts. The sockets are local ones: TCP costs more, in one process as in two.
"""

from __future__ import annotations

import asyncio
import marshal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from connections import make_certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mq9_broker.auth.passwords import hash_password
from mq9_broker.clock import WallClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore
from mq9_broker.transport.parser import Parser, ParserLimits

REQUESTS = 64
RUNS = 3000
HANDSHAKES = 200
MIB = 2**20


def best(work: Callable[[], object], runs: int, times: int = 1) -> float:
    """Return the least CPU time of one of `times` in microseconds."""
    least = float("inf")
    for _ in range(runs):
        began = time.thread_time()
        work()
        least = min(least, time.thread_time() - began)
    return least * 1e6 / times


class Sink:
    """A connection that drops its replies."""

    is_closed = False

    def __init__(self) -> None:
        self.replies: list[tuple[bytes, bytes]] = []

    def listens(self, subject: bytes) -> bool:
        return True

    def send_replies(self, replies: list[tuple[bytes, bytes]]) -> None:
        self.replies = replies


def chunk(mailbox: bytes) -> bytes:
    return b"".join(
        b"PUB $mq9.AI.MSG.SEND.%b _INBOX.client.%d 128\r\n%b\r\n" % (mailbox, number, b"x" * 128)
        for number in range(REQUESTS)
    )


def passing(data: bytes) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return how to write data to a socket and how to read it at the other end; call them in turn."""
    one, other = socket.socketpair()
    for end in (one, other):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    return lambda: one.sendall(data), lambda: other.recv(MIB)


def in_turn(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Return what each of two costs that are done one after the other, a request."""
    least = [float("inf"), float("inf")]
    for _ in range(RUNS):
        for place, work in enumerate((first, second)):
            began = time.thread_time()
            work()
            least[place] = min(least[place], time.thread_time() - began)
    return least[0] * 1e6 / REQUESTS, least[1] * 1e6 / REQUESTS


async def requests() -> None:
    mailbox = b"0123456789abcdef0123456789abcdef"
    data = chunk(mailbox)
    shell = Shell(Engine(MemoryStore(), EngineLimits()), WallClock())
    shell.start(asyncio.get_running_loop())
    sink = Sink()
    shell.handle(sink, [(b"$mq9.AI.MAILBOX.CREATE", b"x.1", None, b'{"name":"%b"}' % mailbox)])
    parser = Parser(ParserLimits(MIB, 4096))
    parsed: Any = parser.feed(data)[0]
    parsing = best(lambda: parser.feed(data), RUNS, REQUESTS)
    carrying_out = best(lambda: shell.handle(sink, parsed), RUNS, REQUESTS)
    shell.close()
    _, reading = in_turn(*passing(data))
    writing, _ = in_turn(*passing(b"".join(b for reply in sink.replies for b in reply)))
    handing = {}
    for name, value in (("requests", parsed), ("replies", sink.replies)):
        for form, encode, decode in (
            ("marshal", marshal.dumps, marshal.loads),
            ("MessagePack", msgspec.msgpack.encode, msgspec.msgpack.decode),
        ):
            text = encode(value)
            write, read = passing(text)
            written, taken = in_turn(write, read)
            handing[name, form] = (
                best(lambda e=encode, v=value: e(v), RUNS, REQUESTS) + written,
                best(lambda d=decode, t=text: d(t), RUNS, REQUESTS) + taken,
            )
    form = min(
        ("marshal", "MessagePack"), key=lambda f: sum(handing["requests", f]) + sum(handing["replies", f])
    )
    ask_out, ask_in = handing["requests", form]
    answer_out, answer_in = handing["replies", form]
    print("| a SEND | µs |\n|---|---|")
    print(f"| read from the client's socket | {reading:.2f} |")
    print(f"| parse | {parsing:.2f} |")
    print(f"| shell and engine | {carrying_out:.2f} |")
    print(f"| write the reply to the client's socket | {writing:.2f} |")
    print(f"| hand the request over ({form}): sender, receiver | {ask_out:.2f}, {ask_in:.2f} |")
    print(f"| hand the reply back: sender, receiver | {answer_out:.2f}, {answer_in:.2f} |")
    alone = reading + parsing + carrying_out + writing
    front = alone - carrying_out + ask_out + answer_in
    behind = carrying_out + ask_in + answer_out
    print(f"\nOne process: {alone:.2f} µs. In front {front:.2f}, behind {behind:.2f}: ", end="")
    more, times = front + behind - alone, alone / max(front, behind)
    print(f"{more:+.2f} µs of CPU a SEND, at best {times:.2f} times as many.")


def make_rsa(folder: Path) -> tuple[Path, Path]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate, _ = make_certificate(folder)
    period = x509.load_pem_x509_certificate(certificate.read_bytes())
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(period.not_valid_before_utc)
        .not_valid_after(period.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    files = folder / "rsa.pem", folder / "rsa-key.pem"
    files[0].write_bytes(built.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[float, Callable[[bytes], float]]:
    """Return the server's CPU time of a handshake in µs, and what tells that of encrypting data."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server)
    spent = 0.0
    done = [False, False]
    while not all(done):
        for place, end in enumerate((other, one)):
            began = time.thread_time()
            try:
                end.do_handshake()
                done[place] = True
            except ssl.SSLWantReadError:
                done[place] = False
            if end is one:
                spent += time.thread_time() - began

    def encrypt(data: bytes) -> float:
        began = time.thread_time()
        rest = memoryview(data)
        while rest:
            rest = rest[one.write(rest) :]
        to_client.read()
        return (time.thread_time() - began) * 1e6

    return spent * 1e6, encrypt


def tls() -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    print("\n| TLS | µs |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for kind, (certificate, key) in (
            ("P-256", make_certificate(Path(name))),
            ("RSA 2048", make_rsa(Path(name))),
        ):
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(certificate, key)
            costs = [handshake(server, client) for _ in range(HANDSHAKES)]
            print(f"| a handshake, {kind}, server's part | {min(cost for cost, _ in costs):.0f} |")
        encrypt = costs[-1][1]
        print(f"| 1 MiB encrypted | {min(encrypt(b'x' * MIB) for _ in range(50)):.0f} |")


def passwords() -> None:
    for rounds in (10, 11):
        cost = best(lambda r=rounds: hash_password("x", r), 5)
        print(f"| a password, bcrypt with {rounds} rounds | {cost:.0f} |")


if __name__ == "__main__":
    asyncio.run(requests())
    tls()
    passwords()
