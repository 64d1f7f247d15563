"""What the broker's own code costs, without sockets: bytes as clients send them in, bytes of the replies out.

`MQ9_PURE=1 .venv/bin/python bench/in_process.py workers` does the same without the compiled parts. Of the
times of all cycles it prints the 1st and 10th percentile and the median: the first says most where other
processes work.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from pathlib import Path

from compare import BATCH, CONNECTIONS, PAYLOAD_BYTES, WINDOW

from mq9_broker._generated import SUBJECT_PREFIX
from mq9_broker.clock import WallClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore, RocksdbStore, Store
from mq9_broker.transport.connection import Connection
from mq9_broker.transport.listener import Listener

CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"protocol":1}\r\nSUB _INBOX.%d.* 1\r\nPING\r\n'
)
FETCH = b'{"group_name":"%b","deliver":"earliest","config":{"num_msgs":%d,"max_wait_ms":2000,"lease_ms":%d}}'


class Client:
    """A connection, and in place of its socket this."""

    def __init__(self, listener: Listener, number: int) -> None:
        self._inbox = b"_INBOX.%d.1" % number
        self._written: list[bytes] = []
        self.group = b"shared"
        self.batch: list[bytes] = []
        self._connection = Connection(listener)
        self._connection.connection_made(self)  # type: ignore[arg-type]
        self._connection.data_received(CONNECT % number)
        self._written.clear()

    def request(self, operation: bytes, body: bytes, times: int = 1) -> tuple[float, bytes]:
        """Let the broker carry out a request, or several of the kind; return seconds and what it answered."""
        line = b"PUB %b%b %b %d\r\n" % (SUBJECT_PREFIX, operation, self._inbox, len(body))
        data = (line + body + b"\r\n") * times
        began = time.perf_counter()
        self._connection.data_received(data)
        seconds = time.perf_counter() - began
        answer = b"".join(self._written)
        self._written.clear()
        if answer.count(b'"error":""') != times:
            raise SystemExit(f"{operation!r}: {answer[:300]!r}")
        return seconds, answer

    def write(self, data: bytes) -> None:
        self._written.append(data)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""


def show(name: str, seconds: list[float], each: int = 1) -> None:
    seconds.sort()
    figures = (seconds[int(len(seconds) * part)] / each * 1e6 for part in (0.01, 0.1, 0.5))
    print(f"{name:<6} p1 {next(figures):7.2f}   p10 {next(figures):7.2f}   p50 {next(figures):7.2f} µs")


async def measure(load: str, cycles: int, store: Store) -> None:
    shell = Shell(Engine(store, EngineLimits()), WallClock())
    shell.start(asyncio.get_running_loop())
    listener = Listener(shell)
    clients = [Client(listener, number) for number in range(CONNECTIONS)]
    _, answer = clients[0].request(b"MAILBOX.CREATE", b"{}")
    box = answer.split(b'"mail_address":"', 1)[1].split(b'"', 1)[0]
    sends, fetches, acks = [], [], []
    messages = cycles * BATCH // (1 if load == "workers" else CONNECTIONS)
    for number in range(messages // WINDOW + CONNECTIONS):
        client = clients[number % CONNECTIONS]
        sends.append(client.request(b"MSG.SEND." + box, b"x" * PAYLOAD_BYTES, WINDOW)[0])
    show("SEND", sends, WINDOW)
    lease_ms = 60_000 if load == "workers" else 0
    for number, client in enumerate(clients):
        client.group = b"shared" if load == "workers" else b"own%d" % number
    for turn in range(2 * cycles):
        client = clients[turn % CONNECTIONS]
        if not client.batch:
            seconds, answer = client.request(b"MSG.FETCH." + box, FETCH % (client.group, BATCH, lease_ms))
            client.batch = re.findall(rb'"msg_id":(\d+)', answer)
            fetches.append(seconds)
            continue
        ids = b'"msg_ids":[%b]' % b",".join(client.batch) if lease_ms else b'"msg_id":' + client.batch[-1]
        seconds, _ = client.request(b"MSG.ACK." + box, b'{"group_name":"%b",%b}' % (client.group, ids))
        client.batch = []
        acks.append(seconds)
    show("FETCH", fetches)
    show("ACK", acks)
    shell.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("load", choices=("workers", "readers"))
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--on-disk", action="store_true", help="with the rocksdb store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store: Store = RocksdbStore(Path(folder) / "data") if arguments.on_disk else MemoryStore()
        asyncio.run(measure(arguments.load, arguments.cycles, store))
        store.close()
