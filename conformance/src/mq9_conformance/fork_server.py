"""Starts one program many times quickly: a process that has it loaded forks one for each request.

Half a second goes into loading the broker or the Python adapter; a run starts hundreds. What is forked is the
same program with the same arguments. Needs a kernel with pidfd (Linux); elsewhere each is started by itself.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20
_OUTPUT_LIMIT = 1 << 26
# stdin, stdout, stderr, and where the exit code is reported
_DESCRIPTORS = 4

BROKER = "mq9_conformance.reference_broker"
BROKEN_ADAPTER = "mq9_conformance.mutants.python_adapter"


def available() -> bool:
    """Says whether this machine can do it."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")


class ForkedProcess:
    """A forked process; what `asyncio.subprocess.Process` offers, as far as brokers and adapters need it."""

    def __init__(
        self,
        stdin: asyncio.WriteTransport,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
        ended: int,
    ) -> None:
        self.stdin: asyncio.WriteTransport | None = stdin
        self.stdout: asyncio.StreamReader | None = stdout
        self.stderr: asyncio.StreamReader | None = stderr
        self.returncode: int | None = None
        self.pid = 0
        self._ended = ended
        self._report = b""
        self._began = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()
        asyncio.get_running_loop().add_reader(ended, self._read)

    async def begin(self) -> None:
        """Waits until the process is there."""
        await self._began

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Waits for the end; returns the exit code, negative for a signal."""
        await self._done.wait()
        assert self.returncode is not None
        return self.returncode

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # ended, and not reported yet
                os.kill(self.pid, number)

    def _read(self) -> None:
        """Takes the lines that the server writes: the process id first, then the exit code."""
        data = os.read(self._ended, 64)
        self._report += data
        *lines, rest = self._report.split(b"\n")
        self._report = rest
        for line in lines:
            if not self._began.done():
                self.pid = int(line)
                self._began.set_result(None)
            else:
                self.returncode = int(line)
        if data:
            return
        asyncio.get_running_loop().remove_reader(self._ended)
        os.close(self._ended)
        if self.stdin is not None and not self.stdin.is_closing():
            self.stdin.abort()
        if self.returncode is None:
            self.returncode = -int(signal.SIGKILL)  # the server ended, and what it forked with it
        if not self._began.done():
            self._began.set_exception(EOFError("the process that forks has ended"))
        self._done.set()


class ForkServer:
    """The process that forks, seen from the one that asks. It starts at the first request.

    Args:
        program: A module: its `preload` is called once, its `main` in each process that is forked.
        environment: Variables that `preload` finds beside those of this process.
        folder: The working directory of `preload`.
    """

    def __init__(
        self,
        program: str = BROKER,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._program = program
        self._environment = dict(environment or {})
        self._folder = folder
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> ForkedProcess:
        """Forks the program.

        Args:
            arguments: What its command is given.
            environment: Variables beside those of this process.
            folder: The working directory.
        """
        async with self._starting:
            if self._socket is None:
                await self._start()
        assert self._socket is not None
        stdin_end, stdin = await _pipe_to_write()
        stdout, stdout_end = await _pipe()
        stderr, stderr_end = await _pipe()
        ended, ended_end = os.pipe()
        request = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)}
        descriptors = [stdin_end, stdout_end, stderr_end, ended_end]
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        process = ForkedProcess(stdin, stdout, stderr, ended)
        await process.begin()
        return process

    async def close(self) -> None:
        """Ends the process, and what it forked that still runs."""
        if self._socket is None or self._process is None:
            return
        self._socket.close()
        self._socket = None
        await self._process.wait()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mq9_conformance.fork_server",
                str(theirs.fileno()),
                self._program,
                env={**os.environ, **self._environment},
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """A pipe: a reader for this end, the descriptor of the other."""
    read_end, write_end = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_OUTPUT_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb"))
    return reader, write_end


async def _pipe_to_write() -> tuple[int, asyncio.WriteTransport]:
    """A pipe: the descriptor of the other end, a transport that writes for this one."""
    read_end, write_end = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(
        asyncio.BaseProtocol, os.fdopen(write_end, "wb")
    )
    return read_end, transport


def serve(requests: socket.socket, program: Any) -> None:
    """Forks a program for each request, until the other side closes; then ends what still runs."""
    program.preload()
    # What is loaded is never looked at again, so that its memory stays shared.
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # pidfd -> process id, where its end is reported
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    process, ended = running.pop(key.fd)
                    _, status = os.waitpid(process, 0)
                    os.close(key.fd)
                    _report(ended, os.waitstatus_to_exitcode(status))
                    os.close(ended)
                    continue
                data, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES, _DESCRIPTORS)
                if not data:
                    for process, _ in running.values():
                        os.kill(process, signal.SIGKILL)
                        os.waitpid(process, 0)
                    return
                stdin, stdout, stderr, ended = array.array("i", descriptors)
                process = os.fork()
                if process == 0:
                    inherited = [requests.fileno(), ended, *running, *(end for _, end in running.values())]
                    _become(json.loads(data), (stdin, stdout, stderr), inherited, program.main)
                for descriptor in (stdin, stdout, stderr):
                    os.close(descriptor)
                pidfd = os.pidfd_open(process)
                running[pidfd] = (process, ended)
                selector.register(pidfd, selectors.EVENT_READ)
                _report(ended, process)


def _report(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(descriptor, b"%d\n" % number)


def _become(
    request: Mapping[str, Any], streams: Sequence[int], inherited: Sequence[int], main: Callable[[], int]
) -> None:
    """In the forked process: takes on what the request says and runs the program; never returns."""
    code = 1
    try:
        for descriptor in inherited:
            os.close(descriptor)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        sys.argv[1:] = request["arguments"]
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # nobody above would show it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), importlib.import_module(sys.argv[2]))
