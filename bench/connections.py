"""What idle connections and waiting FETCHes cost: broker memory each, and an active client's latency.

    .venv/bin/python bench/connections.py                      # 18,000 connections, 10,000 waiting FETCHes
    .venv/bin/python bench/connections.py --tls --idle 5000    # the same with TLS

The idle clients live in processes of their own, because a process may open 20,000 files here. They are bare
sockets that speak the few lines needed: no client library, which would cost more than the broker. Exit
status 1 when a connection costs more than the target.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import ipaddress
import json
import re
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import MQ9, BenchmarkError, Mq9Broker, machine_facts

TARGET_BYTES = 4096
TARGET_BYTES_TLS = 24 * 1024
CLIENTS_A_PROCESS = 6000
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
PROBES = 2000
OWN_PROCESS = "--hold"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1; return its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


# In the process that holds idle clients.


def hold(host: str, port: int, count: int, first: int, certificate: str) -> None:
    """Open connections with a subscription each, then do as told on stdin, until it ends.

    `wait MAILBOX NUMBER`: that many of the connections begin a FETCH that waits.
    """
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    clients: list[socket.socket] = []
    for number in range(count):
        client = socket.create_connection((host, port), 30)
        if context is not None:
            client = context.wrap_socket(client, server_hostname="127.0.0.1")
        read_until(client, b"\r\n")
        client.sendall(CONNECT + b"SUB _INBOX.idle%d.* 1\r\nPING\r\n" % (first + number))
        read_until(client, b"PONG\r\n")
        clients.append(client)
    print("held", flush=True)
    for line in sys.stdin:
        _, mailbox, number = line.split()
        body = b'{"group_name":"g","config":{"max_wait_ms":300000,"lease_ms":1000}}'
        for place, client in enumerate(clients[: int(number)]):
            subject = f"{MQ9}MSG.FETCH.{mailbox}".encode()
            inbox = b"_INBOX.idle%d.1" % (first + place)
            client.sendall(b"PUB %b %b %d\r\n%b\r\nPING\r\n" % (subject, inbox, len(body), body))
        for client in clients[: int(number)]:
            read_until(client, b"PONG\r\n")
        print("waiting", flush=True)


def read_until(client: socket.socket, end: bytes) -> None:
    received = b""
    while not received.endswith(end):
        data = client.recv(65536)
        if not data:
            raise SystemExit(f"the broker ended the connection: {received!r}")
        received += data


# In the process that measures.


class Holder:
    """A process that holds idle clients."""

    def __init__(self, process: asyncio.subprocess.Process, count: int) -> None:
        self._process = process
        self.count = count

    @classmethod
    async def start(cls, address: str, count: int, first: int, certificate: str) -> Holder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, OWN_PROCESS, address, str(count), str(first), certificate),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process, count)

    async def expect(self, word: str) -> None:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 300)
        if line.decode().strip() != word:
            raise BenchmarkError(f"the process with idle clients ended: {line!r}")

    async def wait(self, mailbox: str, number: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"wait {mailbox} {number}\n".encode())
        await self.expect("waiting")

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is its own: sockets are the system's, and not in it."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise BenchmarkError("this system does not tell a process's memory")
    return int(found[1]) * 1024


class Active:
    """One client that sends a message and waits for the answer, again and again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mailbox: str) -> None:
        self._reader, self._writer = reader, writer
        self._request = b"PUB %bMSG.SEND.%b _INBOX.active.1 16\r\n0123456789abcdef\r\n" % (
            MQ9.encode(),
            mailbox.encode(),
        )

    @classmethod
    async def connect(cls, address: str, mailbox: str, certificate: str) -> Active:
        host, _, port = address.rpartition(":")
        context = ssl.create_default_context(cafile=certificate) if certificate else None
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=context, server_hostname="127.0.0.1" if context else None
        )
        await reader.readuntil(b"\r\n")
        writer.write(CONNECT + b"SUB _INBOX.active.* 1\r\n")
        return cls(reader, writer, mailbox)

    async def latencies_ms(self, count: int) -> list[float]:
        """Return how long each of some SENDs took."""
        found = []
        for _ in range(count):
            began = time.perf_counter()
            self._writer.write(self._request)
            await self._reader.readuntil(b"\r\n")
            reply = await self._reader.readuntil(b"\r\n")
            found.append((time.perf_counter() - began) * 1000)
            if b'"error":""' not in reply:
                raise BenchmarkError(f"SEND: {reply!r}")
        return found


def summary(latencies: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=1000)
    return {"p50_ms": round(cuts[499], 3), "p99_ms": round(cuts[989], 3), "p99.9_ms": round(cuts[998], 3)}


async def measure(idle: int, waiting: int, tls: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="mq9-connections-") as name:
        options: list[str] = ["--ping-interval", "3600"]
        certificate = ""
        if tls:
            files = make_certificate(Path(name))
            options += ["--tls-cert", str(files[0]), "--tls-key", str(files[1]), "--tls-handshake", "first"]
            certificate = str(files[0])
        async with Mq9Broker(options=options) as broker:
            return await measure_broker(broker, idle, waiting, certificate)


async def measure_broker(broker: Mq9Broker, idle: int, waiting: int, certificate: str) -> dict[str, object]:
    setup = await Active.connect(broker.host_port, "x", certificate)
    setup._writer.write(
        b'PUB %bMAILBOX.CREATE _INBOX.active.1 17\r\n{"name":"active"}\r\n' % MQ9.encode()
        + b'PUB %bMAILBOX.CREATE _INBOX.active.1 16\r\n{"name":"quiet"}\r\n' % MQ9.encode()
    )
    for _ in range(4):
        await setup._reader.readuntil(b"\r\n")
    active = await Active.connect(broker.host_port, "active", certificate)
    await active.latencies_ms(PROBES)  # warm-up
    alone = await active.latencies_ms(PROBES)
    before = resident_bytes(broker.pid)
    holders: list[Holder] = []
    try:
        began = time.monotonic()
        for first in range(0, idle, CLIENTS_A_PROCESS):
            count = min(CLIENTS_A_PROCESS, idle - first)
            holders.append(await Holder.start(broker.host_port, count, first, certificate))
        during = []
        held = asyncio.gather(*(holder.expect("held") for holder in holders))
        while not held.done():
            during += await active.latencies_ms(50)
        await held
        connected_s = time.monotonic() - began
        with_idle = resident_bytes(broker.pid)
        beside = await active.latencies_ms(PROBES)
        left = waiting
        for holder in holders:
            number = min(left, holder.count)
            left -= number
            if number:
                await holder.wait("quiet", number)
        with_waiting = resident_bytes(broker.pid)
        beside_waiting = await active.latencies_ms(PROBES)
    finally:
        for holder in holders:
            await holder.end()
    return {
        "idle": idle,
        "tls": bool(certificate),
        "bytes_a_connection": round((with_idle - before) / idle),
        "waiting": waiting - left,
        "bytes_a_waiting_fetch": round((with_waiting - with_idle) / (waiting - left))
        if waiting - left
        else 0,
        "resident_mb": round(with_waiting / 2**20, 1),
        "connected_in_s": round(connected_s, 1),
        "latency": {
            "alone": summary(alone),
            "while clients connect": summary(during),
            "beside idle connections": summary(beside),
            "beside waiting FETCHes": summary(beside_waiting),
        },
    }


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=int, default=18_000, help="idle connections (default 18000)")
    parser.add_argument("--waiting", type=int, default=10_000, help="of them, FETCHes that wait (10000)")
    parser.add_argument("--tls", action="store_true", help="with TLS")
    arguments = parser.parse_args()
    result = await measure(arguments.idle, arguments.waiting, arguments.tls)
    print(json.dumps({"machine": await machine_facts(), **result}, indent=2))
    target = TARGET_BYTES_TLS if arguments.tls else TARGET_BYTES
    if int(str(result["bytes_a_connection"])) > target:
        print(f"MISSED: more than {target} bytes a connection", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == [OWN_PROCESS]:
        host, _, port = sys.argv[2].rpartition(":")
        hold(host, int(port), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        sys.exit(0)
    try:
        sys.exit(asyncio.run(main()))
    except BenchmarkError as error:
        sys.exit(f"benchmark failed: {error}")
