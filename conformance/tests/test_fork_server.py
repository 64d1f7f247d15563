"""What is forked ends as other processes do, and with the process that forks it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mq9_conformance import fork_server
from mq9_conformance.adapter import AdapterConfig, AdapterProcess, find_adapters
from mq9_conformance.brokers import ReferenceBroker
from mq9_conformance.fork_server import ForkedProcess, ForkServer
from mq9_conformance.results import CallFailed, HarnessError
from mq9_conformance.spec import find_spec

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


@pytest.mark.parametrize("known_before", [{}, {"MQ9_MUTANT": ""}], ids=["sound", "mutants"])
async def test_a_broker_has_the_variables_it_was_given(known_before: dict[str, str]) -> None:
    server = ForkServer(environment=known_before)
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


@pytest.fixture
async def broken_adapter() -> AsyncIterator[AdapterConfig]:
    [config] = [config for config in find_adapters(find_spec().parent) if config.name == "python"]
    server = ForkServer(fork_server.BROKEN_ADAPTER, folder=config.folder)
    yield replace(config, fork_server=server)
    await server.close()


async def test_adapters_have_the_mutant_that_each_was_given(broken_adapter: AdapterConfig) -> None:
    answers = {}
    for mutant in ("timeout-is-closed", "bounds-clamp", "field-is-not-named"):
        process = AdapterProcess(replace(broken_adapter, environment={"MQ9_MUTANT": mutant}), sys.executable)
        await process.start()
        assert process.hello["sdk"] == "python"
        with pytest.raises(CallFailed) as refused:
            await process.request("connect", client="c", args={"servers": []})
        answers[mutant] = refused.value.field
        assert await process.stop() is None
        assert not process.alive
    assert answers == {"timeout-is-closed": "servers", "bounds-clamp": "servers", "field-is-not-named": None}


async def test_an_adapter_with_an_unknown_mutant_says_so(broken_adapter: AdapterConfig) -> None:
    process = AdapterProcess(replace(broken_adapter, environment={"MQ9_MUTANT": "x"}), sys.executable)
    with pytest.raises(HarnessError, match="there is no adapter mutant 'x'"):
        await process.start()
    assert "ended with 1" in str(await process.stop())
