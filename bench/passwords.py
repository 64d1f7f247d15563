"""Whether a flood of wrong passwords holds other clients up: an active client's latency beside it.

    .venv/bin/python bench/passwords.py

The flood comes from a process of its own: 32 sockets that connect with a wrong password, are refused, and
connect again. It comes from the same address as the active client, which is the worst case.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from connections import CONNECT, OWN_PROCESS, PROBES, Active, summary
from harness import MQ9, BenchmarkError, Mq9Broker, machine_facts

from mq9_broker.auth.passwords import hash_password

ATTACKERS = 32
USERS = "users:\n- user: alice\n  password: {}\nno_auth_user: guest\n"
GUEST = "- user: guest\n  password: {}\n"


async def attack(host: str, port: int) -> None:
    """Connect with wrong passwords until stdin ends, then print how often that was refused."""
    refused = 0

    async def one(number: int) -> None:
        nonlocal refused
        attempt = 0
        while True:
            reader, writer = await asyncio.open_connection(host, port)
            await reader.readuntil(b"\r\n")
            options = b'{"verbose":false,"pedantic":false,"user":"alice","pass":"%d-%d"}' % (number, attempt)
            writer.write(b"CONNECT " + options + b"\r\n")
            answer = await reader.read()
            if b"Authorization Violation" not in answer:
                raise SystemExit(f"not refused: {answer!r}")
            writer.close()
            refused += 1
            attempt += 1

    tasks = [asyncio.create_task(one(number)) for number in range(ATTACKERS)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(refused, flush=True)


async def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mq9-passwords-") as name:
        file = Path(name) / "broker.yaml"
        users, guest = USERS.split("no_auth_user", 1)
        hashed = hash_password("the right one")
        file.write_text(f"{users.format(hashed)}{GUEST.format(hashed)}no_auth_user{guest}")
        async with Mq9Broker(options=["--config", str(file)]) as broker:
            result = await measure(broker)
    print(json.dumps({"machine": await machine_facts(), **result}, indent=2))
    return 0


async def measure(broker: Mq9Broker) -> dict[str, object]:
    host, _, port = broker.host_port.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readuntil(b"\r\n")
    writer.write(CONNECT + b"SUB _INBOX.x.* 1\r\n")
    body = b'{"name":"active"}'
    writer.write(b"PUB %bMAILBOX.CREATE _INBOX.x.1 %d\r\n%b\r\n" % (MQ9.encode(), len(body), body))
    await reader.readuntil(b"}\r\n")
    active = await Active.connect(broker.host_port, "active", "")
    await active.latencies_ms(500)  # warm-up
    before = await active.latencies_ms(PROBES)
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, OWN_PROCESS, host, port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await asyncio.sleep(3)
        beside = await active.latencies_ms(PROBES)
        refused, _ = await asyncio.wait_for(attacker.communicate(b""), 60)
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    if not refused.strip().isdigit():
        raise BenchmarkError("the flood ended early")
    after = await active.latencies_ms(PROBES)
    writer.close()
    return {
        "refused": int(refused),
        "latency": {"before": summary(before), "beside the flood": summary(beside), "after": summary(after)},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == [OWN_PROCESS]:
        asyncio.run(attack(sys.argv[2], int(sys.argv[3])))
        sys.exit(0)
    try:
        sys.exit(asyncio.run(main()))
    except BenchmarkError as error:
        sys.exit(f"benchmark failed: {error}")
