"""Brokers that are forked end as others do, and with the process that forks them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mq9_conformance import fork_server
from mq9_conformance.brokers import ReferenceBroker
from mq9_conformance.fork_server import ForkedProcess, ForkServer

pytestmark = pytest.mark.skipif(not fork_server.available(), reason="NOT RUN: this kernel has no pidfd")
SERVE = ["serve", "--listen", "127.0.0.1:0", "--http", "off", "--store", "memory"]


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    yield server
    await server.close()


async def started(server: ForkServer, folder: Path) -> ForkedProcess:
    process = await server.spawn(SERVE, {}, folder)
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"mq9-broker ready nats=")
    return process


async def test_a_broker_that_is_asked_to_end_ends_with_0(server: ForkServer, tmp_path: Path) -> None:
    process = await started(server, tmp_path)
    process.terminate()
    assert await process.wait() == 0
    process.kill()  # changes nothing


async def test_a_killed_broker_ends_with_its_signal_and_others_go_on(
    server: ForkServer, tmp_path: Path
) -> None:
    process, other = await started(server, tmp_path), await started(server, tmp_path)
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    assert other.returncode is None
    other.terminate()
    assert await other.wait() == 0


async def test_brokers_that_are_asked_for_at_once_come_from_one_process(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    create = asyncio.create_subprocess_exec

    async def counted(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal begun
        begun += 1
        return await create(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    brokers = await asyncio.gather(*(started(server, tmp_path) for _ in range(3)))
    assert begun == 1
    assert [broker.returncode for broker in brokers] == [None] * 3


async def test_a_broker_that_cannot_start_says_why(server: ForkServer, tmp_path: Path) -> None:
    process = await server.spawn(["serve", "--listen", "nowhere"], {}, tmp_path)
    assert process.stderr is not None
    assert b"expected HOST:PORT" in await process.stderr.read()
    assert await process.wait() == 2


async def test_an_error_before_the_broker_runs_is_shown(server: ForkServer, tmp_path: Path) -> None:
    process = await server.spawn(SERVE, {}, tmp_path / "missing")
    assert process.stderr is not None
    assert b"FileNotFoundError" in await process.stderr.read()
    assert await process.wait() == 1


async def test_with_the_server_its_brokers_end(server: ForkServer, tmp_path: Path) -> None:
    process = await started(server, tmp_path)
    await server.close()
    assert await process.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("mutants", [False, True])
async def test_a_broker_has_the_variables_it_was_given(mutants: bool) -> None:
    server = ForkServer(mutants=mutants)
    broker = ReferenceBroker(
        ("127.0.0.1", 0), environment={"MQ9_MAX_PAYLOAD": "2222", "MQ9_MUTANT": ""}, fork_server=server
    )
    try:
        await broker.start()
        reader, writer = await asyncio.open_connection(*broker.address())
        assert b'"max_payload":2222,' in await reader.readline()
        writer.close()
        await broker.stop()
    finally:
        await broker.kill()
        broker.remove_data()
        await server.close()
