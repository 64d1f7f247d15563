"""A bare socket to the broker: for bytes that no NATS client would send."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from .matching import show
from .rawnats import body_bytes
from .results import Failure
from .timeline import Timeline
from .values import ScenarioError

_WAIT_S = 5.0
_BUFFER = 1 << 16  # small, so that a client that does not read is soon seen to be slow


class TcpClient:
    """One socket; `act` carries out the steps of a scenario."""

    def __init__(self, address: Callable[[], tuple[str, int]], timeline: Timeline) -> None:
        self._address, self._timeline = address, timeline
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._received = bytearray()

    async def act(self, action: str, args: Mapping[str, Any], written: Mapping[str, Any]) -> None:
        """Carries out `open`, `write`, `expect`, `closed` or `close`."""
        if action == "open":
            self._reader, self._writer = await asyncio.open_connection(*self._address(), limit=_BUFFER)
            self._received.clear()
            await self._until(re.compile(rb"INFO [^\r]*\r\n"), "INFO")
            return
        if self._reader is None or self._writer is None:
            raise ScenarioError(f"tcp.{action} before tcp.open")
        if action == "write":
            data = body_bytes(args)
            self._timeline.add("tcp", f"> {show(data, 200)}")
            try:
                self._writer.write(data)
                await self._writer.drain()
            except ConnectionError as error:
                self._timeline.add("tcp", f"while writing: {error}")
        elif action == "expect":
            await self._until(_pattern(args, written), show(dict(args)))
        elif action == "closed":
            await self._closed()
            if args and not _pattern(args, written).search(bytes(self._received)):
                raise Failure(
                    f"tcp: expected {show(dict(args))} before the end, got {show(bytes(self._received))}"
                )
        else:
            await self.close()

    async def close(self) -> None:
        """Closes the socket."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), 1)
        self._reader = self._writer = None

    async def _until(self, pattern: re.Pattern[bytes], what: str) -> None:
        assert self._reader is not None
        deadline = asyncio.get_running_loop().time() + _WAIT_S
        while True:
            found = pattern.search(bytes(self._received))
            if found:
                del self._received[: found.end()]
                return
            left = deadline - asyncio.get_running_loop().time()
            try:
                data = await asyncio.wait_for(self._reader.read(1 << 16), max(left, 0.001))
            except (asyncio.TimeoutError, ConnectionError) as error:
                why = "nothing more came" if isinstance(error, asyncio.TimeoutError) else str(error)
                raise Failure(f"tcp: expected {what}, got {show(bytes(self._received))}; {why}") from None
            if not data:
                raise Failure(
                    f"tcp: expected {what}, got {show(bytes(self._received))}; the broker closed it"
                )
            self._timeline.add("tcp", f"< {show(data, 200)}")
            self._received += data

    async def _closed(self) -> None:
        assert self._reader is not None
        deadline = asyncio.get_running_loop().time() + _WAIT_S
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                data = await asyncio.wait_for(self._reader.read(1 << 16), max(left, 0.001))
            except asyncio.TimeoutError:
                raise Failure(
                    f"tcp: the broker keeps the connection open; received {show(bytes(self._received))}"
                ) from None
            except ConnectionError:
                return
            if not data:
                return
            self._timeline.add("tcp", f"< {show(data, 200)}")
            self._received += data


def _pattern(args: Mapping[str, Any], written: Mapping[str, Any]) -> re.Pattern[bytes]:
    if "regex" in written:
        return re.compile(str(written["regex"]).encode(), re.DOTALL)
    return re.compile(re.escape(body_bytes(args)))
