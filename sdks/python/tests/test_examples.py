"""The examples and the README's code, run against the real broker."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mq9

HOME = Path(__file__).parent.parent
EXPECTED = {
    "quickstart.py": ["message 0 (urgent): {'task': 'greet', 'who': 'world'}"],
    "worker_pool.py": ["job 5 does not like to be first", f"jobs done: {list(range(12))}"],
    "request_reply.py": ["answer: HOW ARE YOU?"],
    "agent_registry.py": ["found word-counter: Counts the words of a text.", "6 words", "0 agents left"],
}


def run(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "always", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_has_a_test() -> None:
    assert {path.name for path in (HOME / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, start_broker: Any) -> None:
    # On the real clock: the second delivery in the pool comes after a delay.
    broker = start_broker(test_clock=False)
    output = run(HOME / "examples" / name, broker.url)
    for text in EXPECTED[name]:
        assert text in output
    broker.stop()


def _blocks(language: str) -> list[str]:
    text = (HOME / "README.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_quickstart_of_the_readme(broker: Any, tmp_path: Path) -> None:
    script = tmp_path / "quickstart.py"
    script.write_text(_blocks("python")[0].replace("nats://127.0.0.1:4222", broker.url), "utf-8")
    assert run(script) == "urgent {'task': 'greet', 'who': 'world'}\n"


async def test_consume_code_of_the_readme(broker: Any, capsys: Any) -> None:
    handler, loop = _blocks("python")[1:3]
    async with await mq9.connect(broker.url) as client:
        await client.mailbox_create("orders.inbox")
        await client.fetch("orders.inbox", group_name="billing", max_wait_ms=0)
        for number in range(2):
            await client.send("orders.inbox", f"order {number}")
        handler = handler.replace("await consumer.stop()", "await first(consumer)\nawait consumer.stop()")
        await _execute(handler, client=client, mq9=mq9, first=_first)
        await client.send("orders.inbox", "order 2")
        await _execute(f"{loop}    break\n", client=client)
    assert capsys.readouterr().out == "0 order 0\n1 order 1\n2 order 2\n"


async def _first(consumer: mq9.Consumer) -> None:
    for _ in range(10_000):
        if consumer.stats.acknowledged == 2:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("they never came")


async def _execute(code: str, **names: Any) -> None:
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    exec(f"async def run():\n{lines}", names)
    await names["run"]()


def test_commands_of_the_readme(broker: Any, tmp_path: Path) -> None:
    """Those that end by themselves, as a shell runs them."""
    block = _blocks("sh")[0]
    (tmp_path / "card.json").write_text('{"name": "t", "description": "translates contracts"}', "utf-8")
    script = block.replace("nats://127.0.0.1:4222", broker.url).replace(" --keep-alive", "")
    script = script.replace("orders.inbox", "readme.inbox").replace(" --follow", " --deliver earliest")
    folder = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '{"order": 17}' in done.stdout
    assert "translates contracts" in done.stdout
