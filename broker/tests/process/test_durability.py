"""What was answered survives: a kill, a restart, a full disk; and no reply leaves before its fdatasync."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from .support import LIVENESS, Broker, connect, request

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.name != "posix" or os.geteuid() != 0:
        pytest.skip("NOT RUN: needs root, to mount a tmpfs")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT RUN: mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def until_it_works(client: Client, subject: str, body: Any) -> dict[str, Any]:
    for _ in range(int(LIVENESS * 10)):
        reply = await request(client, subject, body)
        if reply.get("code") != "unavailable":
            return reply
        await asyncio.sleep(0.1)
    raise AssertionError(f"{subject} stays unavailable")


async def all_ids(client: Client, name: str) -> list[int]:
    found: list[int] = []
    while True:
        reply = await request(
            client, f"MSG.QUERY.{name}", {"from_id": found[-1] + 1 if found else 0, "limit": 1000}
        )
        if not reply["messages"]:
            return found
        found += [message["msg_id"] for message in reply["messages"]]


@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_full_disk(small_disk: Path, fsync: str) -> None:
    options = ("--data", str(small_disk / "data"), "--reserve", "12MiB", "--fsync", fsync)
    others = [small_disk / "first", small_disk / "second"]
    for other in others:
        other.write_bytes(bytes(7 * MIB))
    payload = os.urandom(30_000)
    acknowledged: list[int] = []

    async def fill(client: Client) -> None:
        for _ in range(3000):
            reply = await request(client, "MSG.SEND.box", payload)
            if reply["error"]:
                assert reply["code"] == "unavailable"
                return
            acknowledged.append(reply["msg_id"])
        raise AssertionError("the disk never filled")

    with Broker(*options) as broker:
        client = await connect(broker)
        await request(client, "MAILBOX.CREATE", {"name": "box"})
        await fill(client)
        assert (await request(client, "MAILBOX.CREATE", {"name": "new"}))["code"] == "unavailable"
        # What is there is read meanwhile, once the broker has found its feet.
        reply = await until_it_works(client, "MSG.QUERY.box", {"from_id": 0, "limit": 1})
        assert reply["messages"][0]["msg_id"] == 0
        others[0].unlink()
        acknowledged.append((await until_it_works(client, "MSG.SEND.box", b"small"))["msg_id"])
        found = await all_ids(client, "box")
        assert found == sorted(set(found))
        assert set(acknowledged) <= set(found), "something acknowledged is lost"
        await fill(client)
        await client.close()
        broker.process.kill()
        await broker.wait_async()
    with Broker(*options) as broker:
        client = await connect(broker)
        others[1].unlink()
        acknowledged.append((await until_it_works(client, "MSG.SEND.box", b"small"))["msg_id"])
        found = await all_ids(client, "box")
        assert found == sorted(set(found))
        assert set(acknowledged) <= set(found), "something acknowledged is lost"
        await client.close()
        broker.signal(signal.SIGTERM)
        code, _, errors = await broker.wait_async()
        assert code == 0
        assert "Traceback" not in errors


def _strace_or_not_run() -> str:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("NOT RUN: no strace on the path (on Debian: apt-get install strace)")
    return strace


async def test_no_reply_leaves_before_the_fdatasync_of_its_batch(tmp_path: Path) -> None:
    strace = _strace_or_not_run()
    trace = tmp_path / "trace"
    with Broker("--data", str(tmp_path / "data"), "--fsync", "always") as broker:
        tracer = await asyncio.to_thread(
            subprocess.Popen,
            [
                strace,
                "-f",
                "-y",
                "-tt",
                "-s",
                "100000",
                "-e",
                "trace=write,writev,sendto,sendmsg,fdatasync,fsync",
                "-o",
                str(trace),
                "-p",
                str(broker.process.pid),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        line = await asyncio.to_thread(tracer.stderr.readline)
        if "attached" not in line:
            tracer.kill()
            tracer.communicate()
            pytest.skip(f"NOT RUN: strace may not attach here: {line.strip()}")
        clients = [await connect(broker) for _ in range(3)]
        await request(clients[0], "MAILBOX.CREATE", {"name": "box"})
        payloads: dict[int, bytes] = {}

        async def work(client: Client, number: int) -> None:
            for turn in range(30):
                payload = b"payload-%d-%d" % (number, turn)
                payloads[(await request(client, "MSG.SEND.box", payload))["msg_id"]] = payload

        await asyncio.gather(*(work(client, number) for number, client in enumerate(clients)))
        for client in clients:
            await client.close()
        tracer.terminate()
        await asyncio.to_thread(tracer.communicate)
    assert len(payloads) == 90
    replies, syncs = check_order(trace.read_text(), payloads)
    assert replies == 90
    assert 0 < syncs <= 100


def check_order(trace: str, payloads: dict[int, bytes]) -> tuple[int, int]:
    """Check that each reply to a SEND leaves after a sync that began after its message was in the log.

    Returns:
        How many replies and syncs there were.
    """
    names = {b64encode(payload).decode(): msg_id for msg_id, payload in payloads.items()}
    any_name = re.compile("|".join(re.escape(f'"{name}"').replace('"', r'\\"') for name in names))
    logged: set[int] = set()
    synced: set[int] = set()
    running: dict[str, set[int]] = {}
    replies = syncs = 0
    for line in trace.splitlines():
        found = re.match(r"(\d+)\s+\S+ (.*)", line)
        if not found:
            continue
        thread, call = found.groups()
        if re.match(r"writev?\(\d+<[^>]*\.log>", call):
            logged |= {names[name.strip('\\"')] for name in any_name.findall(call)}
            continue
        if re.match(r"f(data)?sync\(\d+<[^>]*\.log>", call):
            running[thread] = set(logged)
        if re.match(r"f(data)?sync\(\d+<[^>]*\.log>.* = 0$|<\.\.\. f(data)?sync resumed>.* = 0$", call):
            synced |= running.pop(thread, set())
            syncs += 1
        elif '"MSG _INBOX' in call:
            for number in re.findall(r'\\"msg_id\\":(\d+)}', call):
                replies += 1
                assert int(number) in synced, f"the reply to message {number} left before its sync: {line}"
    return replies, syncs
