"""Backup, restore, inspect and check, beside a running broker and without one."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from nats.aio.client import Client

from mq9_broker.store import Batch, RocksdbStore

from .support import PROGRAM, Broker, connect, environment, request, run


async def fill(client: Client) -> None:
    await request(client, "MAILBOX.CREATE", {"name": "secret.box", "max_deliveries": 3})
    for number in range(50):
        await request(client, "MSG.SEND.secret.box", b"payload %d" % number)
    for headers in ({"mq9-delay": "3600"}, {"mq9-dedup-id": "d"}, {"mq9-key": "k", "mq9-ttl": "1000"}):
        await client.request("$mq9.AI.MSG.SEND.secret.box", b"x", headers=headers, timeout=10)
    config = {"num_msgs": 20, "lease_ms": 3_600_000, "max_wait_ms": 0}
    body = {"group_name": "g", "deliver": "earliest", "config": config}
    fetched = await request(client, "MSG.FETCH.secret.box", body)
    await request(
        client,
        "MSG.ACK.secret.box",
        {"group_name": "g", "msg_ids": [m["msg_id"] for m in fetched["messages"][:5]]},
    )
    await request(client, "AGENT.REGISTER", {"name": "agent", "mailbox": "secret.box", "ttl": 600})


async def state(client: Client) -> object:
    info = await request(client, "MAILBOX.INFO.secret.box")
    messages = await request(client, "MSG.QUERY.secret.box", {"from_id": 0, "limit": 1000})
    agents = await request(client, "AGENT.DISCOVER")
    return info, messages, agents["agents"]


def succeed(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["copy", "dump"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
async def test_backup_and_restore(tmp_path: Path, form: str, running: bool) -> None:
    # A path longer than a socket's may be.
    data, target, restored = tmp_path / ("d" * 100), tmp_path / "backup", tmp_path / "restored"
    more = ["--json-lines"] if form == "dump" else []
    with Broker("--data", str(data)) as broker:
        client = await connect(broker)
        await fill(client)
        before = await state(client)
        if running:
            await asyncio.to_thread(succeed, "backup", "--data", str(data), "--to", str(target), *more)
            # What comes later is not in it.
            await request(client, "MSG.SEND.secret.box", b"late")
            left = await asyncio.to_thread(os.listdir, data)
            assert not any(name.startswith("checkpoint-") for name in left)
        await client.close()
        broker.signal(signal.SIGTERM)
        await broker.wait_async()
    if not running:
        succeed("backup", "--data", str(data), "--to", str(target), *more)
    succeed("restore", "--from", str(target), "--data", str(restored))
    succeed("check", "--data", str(restored))
    with Broker("--data", str(restored)) as broker:
        client = await connect(broker)
        assert await state(client) == before
        assert (await request(client, "MSG.SEND.secret.box", b"next"))["error"] == ""
        await client.close()
    assert not await asyncio.to_thread(lambda: list(tmp_path.glob("**/*.partial")))


def test_a_dump_goes_through_a_pipe(tmp_path: Path) -> None:
    with Broker("--data", str(tmp_path / "data")):
        pass
    dumped = run("backup", "--data", str(tmp_path / "data"), "--to", "-", "--json-lines")
    lines = [json.loads(line) for line in dumped.stdout.splitlines()]
    assert (lines[0]["kind"], lines[-1]) == ("dump", {"kind": "end", "records": len(lines) - 2})
    again = subprocess.run(
        [PROGRAM, "restore", "--from", "-", "--data", str(tmp_path / "again")],
        input=dumped.stdout,
        text=True,
        capture_output=True,
        check=False,
        env=environment(),
    )
    assert again.returncode == 0, again.stderr
    assert (
        run("backup", "--data", str(tmp_path / "again"), "--to", "-", "--json-lines").stdout == dumped.stdout
    )


async def test_backups_under_load_are_consistent(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Broker("--data", str(data)) as broker:
        client = await connect(broker)
        await fill(client)
        stop = False

        async def load() -> int:
            sent = 0
            while not stop:
                replies = await asyncio.gather(
                    *(request(client, "MSG.SEND.secret.box", b"x" * 100) for _ in range(50))
                )
                sent += len(replies)
            return sent

        loading = asyncio.create_task(load())
        for number in range(3):
            target = tmp_path / f"backup-{number}"
            await asyncio.to_thread(succeed, "backup", "--data", str(data), "--to", str(target))
            await asyncio.to_thread(succeed, "check", "--data", str(target))
        await asyncio.to_thread(succeed, "check", "--data", str(data))
        stop = True
        assert await loading > 0
        await client.close()


async def test_inspect_shows_addresses_only_when_asked(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with Broker("--data", data) as broker:
        client = await connect(broker)
        await fill(client)
        text = await asyncio.to_thread(succeed, "inspect", "--data", data)
        assert "secret.box" not in text
        with_addresses = await asyncio.to_thread(succeed, "inspect", "--data", data, "--addresses")
        assert "secret.box" in with_addresses
        summary = json.loads(await asyncio.to_thread(succeed, "inspect", "--data", data, "--json"))
        expected = {"mailboxes": 1, "messages": 52, "delayed": 1, "groups": 1, "agents": 1, "leases": 1}
        assert summary | expected == summary
        await client.close()


def test_check_finds_damage(tmp_path: Path) -> None:
    with Broker("--data", str(tmp_path / "data")):
        pass
    store = RocksdbStore(tmp_path / "data" / "store")
    store.write(Batch((), [(b"Alost", (7).to_bytes(8, "big"))]))
    store.close()
    done = run("check", "--data", str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (
        1,
        "mailbox 7: an address leads to it, but nothing is there\n",
    )
    succeed("backup", "--data", str(tmp_path / "data"), "--to", str(tmp_path / "backup"))
    refused = run("restore", "--from", str(tmp_path / "backup"), "--data", str(tmp_path / "again"))
    assert refused.returncode == 1
    assert "inconsistent: mailbox 7" in refused.stderr
    assert not (tmp_path / "again" / "store").exists()


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    with Broker("--data", str(tmp_path / "data")):
        pass
    succeed("backup", "--data", str(tmp_path / "data"), "--to", str(tmp_path / "backup"))
    file = next((tmp_path / "backup" / "store").glob("*.sst"), None) or tmp_path / "backup/store/CURRENT"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = run("restore", "--from", str(tmp_path / "backup"), "--data", str(tmp_path / "again"))
    assert done.returncode == 1
    assert f"the file store/{file.name} is missing or damaged" in done.stderr
    assert list((tmp_path / "again").iterdir()) == []


def test_a_damaged_dump_is_not_restored(tmp_path: Path) -> None:
    with Broker("--data", str(tmp_path / "data")):
        pass
    lines = succeed("backup", "--data", str(tmp_path / "data"), "--to", "-", "--json-lines").splitlines()
    dump = tmp_path / "dump"
    for damaged, message in (
        (lines[:-1], f":{len(lines)}: the end is missing"),
        (
            [*lines[:-2], lines[-1]],
            ": 0 records, and there were 1" if len(lines) == 3 else " records, and there",
        ),
        ([lines[0], "{}", *lines[1:]], ":2: no or unknown 'kind'"),
        ([lines[0], "x", *lines[1:]], ":2: JSON is malformed"),
        (lines[1:], ":1: not a dump of mq9-broker"),
        ([lines[0].replace("mq9 1", "mq9 9"), *lines[1:]], "format 'mq9 9'"),
    ):
        dump.write_text("\n".join(damaged) + "\n")
        done = run("restore", "--from", str(dump), "--data", str(tmp_path / "again"))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert message in done.stderr
        assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize("command", ["backup", "restore", "inspect", "check"])
def test_help(command: str) -> None:
    text = " ".join(succeed(command, "--help").split())
    assert "--data DIR" in text
    assert "exit codes: 0" in text
    assert "example: mq9-broker" in text


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with Broker("--data", str(tmp_path / "data")):
        pass
    full, data, missing = str(tmp_path / "full"), str(tmp_path / "data"), str(tmp_path / "missing")
    for arguments, message in (
        (["backup", "--data", missing, "--to", str(tmp_path / "b")], f"{missing}: no such folder"),
        (["backup", "--data", data, "--to", full], f"--to {full}: not empty (it has 'x')"),
        (["backup", "--data", data, "--to", "-"], "--to -: a copy is a folder"),
        (["backup", "--data", data, "--to", str(tmp_path / "full/x"), "--json-lines"], "it exists already"),
        (["inspect", "--data", full], f"{full}: no mq9 data folder"),
        (["check", "--data", full], f"{full}: no mq9 data folder"),
        (["restore", "--from", full, "--data", str(tmp_path / "new")], "no complete backup"),
        (["restore", "--from", missing, "--data", str(tmp_path / "new")], f"--from {missing}: No such file"),
        (["restore", "--from", full, "--data", data], "--from"),
    ):
        done = run(*arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr
        assert done.stderr.startswith(f"mq9-broker: {arguments[0]}: ")
        assert done.stderr.count("\n") == 1
