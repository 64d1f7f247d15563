"""Whether TLS clients that all come at once hold up those that are connected: the longest turn of the loop.

    .venv/bin/python bench/handshakes.py --clients 300

All send the first message of their handshake at the same moment; a timer in the broker's loop sees how long
it is kept waiting, until the broker has answered all of them. The clients do their part before that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import tempfile
import time
from pathlib import Path

import uvloop
from connections import make_certificate
from harness import machine_facts

from mq9_broker.transport import Listener, ListenerOptions
from mq9_broker.transport.tls import TlsOptions, load_context


class Nothing:
    """A handler that is never asked for anything."""

    def handle(self, _: object, requests: list[object]) -> int:
        return len(requests)

    def connection_closed(self, _: object) -> None:
        """Nothing to forget."""


def first_message(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake needs a server")


async def measure(clients: int, certificate: Path, key: Path) -> dict[str, object]:
    listener = Listener(
        Nothing(), ListenerOptions(), None, TlsOptions(load_context(certificate, key, None), True, "first")
    )
    address = await listener.start("127.0.0.1", 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hellos = [first_message(context) for _ in range(clients)]
    loop = asyncio.get_running_loop()
    sockets = []
    for _ in range(clients):
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, (address or listener.address)[:2])
        sockets.append(one)
    longest, last, turns = 0.0, time.perf_counter(), 0

    def look() -> None:
        nonlocal longest, last, turns
        now = time.perf_counter()
        longest, last, turns = max(longest, now - last), now, turns + 1
        timer[0] = loop.call_later(0.001, look)

    timer = [loop.call_soon(look)]
    await asyncio.sleep(0.1)
    quiet, longest = longest, 0.0
    began, cpu = time.perf_counter(), time.process_time()
    for one, hello in zip(sockets, hellos, strict=True):
        one.send(hello)
    last = time.perf_counter()
    answers = await asyncio.gather(*(loop.sock_recv(one, 65536) for one in sockets))
    seconds = time.perf_counter() - began
    assert all(answers)
    timer[0].cancel()
    for one in sockets:
        one.close()
    await listener.close()
    return {
        "machine": await machine_facts(),
        "clients": clients,
        "seconds_until_all_are_answered": round(seconds, 3),
        "cpu_us_a_client": round((time.process_time() - cpu) * 1e6 / clients),
        "longest_turn_ms": round(longest * 1000, 1),
        "longest_turn_before_ms": round(quiet * 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=300, help="how many come at once (300)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = uvloop.run(measure(arguments.clients, *make_certificate(Path(name))))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
