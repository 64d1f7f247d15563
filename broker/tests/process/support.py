"""A broker in a process of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

PROGRAM = str(Path(sys.executable).parent / "mq9-broker")
LIVENESS = 30.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The test's environment without options of a broker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MQ9_")}
    return {**kept, **(extra or {})}


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself."""
    return subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=LIVENESS,
        env=environment(env),
        check=False,
    )


class Broker:
    """A running `mq9-broker serve`, on free ports."""

    def __init__(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        arguments = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(env)
        )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline()
        ready = re.fullmatch(r"mq9-broker ready nats=(\S+) http=(\S+)\n", self.ready_line)
        if not ready:
            self.process.kill()
            raise AssertionError(f"no ready line: {self.ready_line!r} {self.process.communicate()[1]}")
        self.nats_url = ready[1]
        self.http_url = ready[2]

    @property
    def port(self) -> int:
        return int(self.nats_url.rpartition(":")[2])

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=LIVENESS)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code and what else was printed."""
        out, err = self.process.communicate(timeout=LIVENESS)
        return self.process.returncode, out, err

    async def wait_async(self) -> tuple[int, str, str]:
        return await asyncio.to_thread(self.wait)


async def request(client: Client, subject: str, body: object = None, timeout: float = 10) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    reply = await client.request(f"$mq9.AI.{subject}", data, timeout=timeout)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def connect(broker: Broker, **options: Any) -> Client:
    return await nats.connect(broker.nats_url, allow_reconnect=False, **options)
