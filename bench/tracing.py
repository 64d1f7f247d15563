"""What OpenTelemetry traces cost the broker: CPU time of a SEND without them, and by the share traced.

    .venv/bin/python bench/tracing.py --total 100000

The collector is a small server in this process that takes everything and looks at nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics

import nats
from harness import Mq9Broker, mq9_request, run_load

SHARES = (None, "0", "0.01", "1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(length)
            writer.write(OK)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def measure(share: str | None, endpoint: str, total: int) -> tuple[float, float]:
    """Return the broker's CPU time of a SEND in µs, and SENDs a second."""
    options = (
        [] if share is None else ["--trace-endpoint", endpoint, "--trace-ratio", share, "--trace-limit", "0"]
    )
    async with Mq9Broker(options=options) as broker:
        client = await nats.connect(f"nats://{broker.host_port}", connect_timeout=30)
        address = str((await mq9_request(client, "MAILBOX.CREATE"))["mail_address"])
        await client.close()
        load = await run_load(
            broker,
            "request",
            subject=f"$mq9.AI.MSG.SEND.{address}",
            window=64,
            id_field="msg_id",
            connections=4,
            size=128,
            total=total if share != "1" else total // 5,
        )
        return load.server_us, load.per_second


async def main(total: int, rounds: int) -> None:
    server = await asyncio.start_server(collect, "127.0.0.1", 0, limit=2**26)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
    found: dict[str | None, list[tuple[float, float]]] = {share: [] for share in SHARES}
    for _ in range(rounds):
        for share in SHARES:
            found[share].append(await measure(share, endpoint, total))
    print("| share of requests traced | broker's CPU, µs a SEND | SEND/s |\n|---|---|---|")
    for share, results in found.items():
        cpu, rate = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"| {'no tracing' if share is None else share} | {cpu:.2f} | {rate:,.0f} |")
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total", type=int, default=100_000, help="SENDs a run (100000; a fifth for 1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs each (3); the median counts")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.total, arguments.rounds))
