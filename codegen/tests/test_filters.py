"""A parameter that is added to the protocol, here a filter of DISCOVER, reaches the broker's search."""

import shutil
import subprocess
import sys
from pathlib import Path

from mq9_codegen.cli import main

ROOT = Path(__file__).resolve().parents[2]
CURSOR = "  cursor: {type: cursor, in: body, optional: true, origin: added,"
TAGS = '  tags: {type: "list<tag>", in: body, optional: true, origin: added, doc: "Has all of these."}\n'

PROGRAM = """
import asyncio, json
from mq9_broker.clock import ManualClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.discovery import Discovery
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore

got = []
Discovery.answer = lambda self, command, reply: (got.append(command), reply(b'{"error":""}'))

class Connection:
    is_closed = False
    def listens(self, subject):
        return True
    def send_replies(self, replies):
        for _, reply in replies:
            print(reply.decode())

async def run():
    shell = Shell(Engine(MemoryStore(), EngineLimits()), ManualClock(0))
    shell.start(asyncio.get_running_loop())
    for body in ({"text": "x", "tags": ["a", "b"]}, {"text": "x", "tags": "a"}):
        request = (b"$mq9.AI.AGENT.DISCOVER", b"r", None, json.dumps(body).encode())
        shell.handle(Connection(), [request])
    print([command.tags for command in got])

asyncio.run(run())
"""


def test_a_filter_that_the_specification_adds_is_checked_and_reaches_the_search(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    shutil.copytree(ROOT / "broker" / "src", tmp_path / "broker" / "src")
    discover = tmp_path / "spec" / "operations" / "agent.discover.yaml"
    before, found, after = discover.read_text("utf-8").partition(CURSOR)
    assert found
    discover.write_text(before + TAGS + found + after, "utf-8")
    arguments = ["generate", "--spec", str(tmp_path / "spec"), "--out", str(tmp_path), "--target", "broker"]
    assert main(arguments) == 0
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(tmp_path / "broker" / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accepted, refused, commands = done.stdout.splitlines()
    assert accepted == '{"error":""}'
    assert '"code":"invalid_argument"' in refused
    assert "tags: " in refused
    assert commands == "[('a', 'b')]"
