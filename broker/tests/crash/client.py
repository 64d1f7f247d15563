"""A small NATS client for tests that kill the broker: what is under way when it dies fails at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import count
from typing import Any


class Lost(Exception):  # noqa: N818  # no error: what a killed broker leaves behind
    """The broker has gone; whether the request was carried out is not known."""


class Client:
    """One connection; requests of it take effect in the order of the calls."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = count()
        self._replies: dict[bytes, asyncio.Future[dict[str, Any]]] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int) -> Client:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readline()
        except OSError as error:
            raise Lost from error
        writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB i.* 1\r\n')
        return cls(reader, writer)

    async def request(
        self, subject: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The reply of a request; its place among others is that of this call."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        inbox = b"i.%d" % next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        if self._task.done() or self._writer.is_closing():
            raise Lost
        self._replies[inbox] = future
        target = f"$mq9.AI.{subject}".encode()
        if headers:
            block = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
            head = block.encode()
            self._writer.write(
                b"HPUB %b %b %d %d\r\n%b%b\r\n"
                % (target, inbox, len(head), len(head) + len(payload), head, payload)
            )
        else:
            self._writer.write(b"PUB %b %b %d\r\n%b\r\n" % (target, inbox, len(payload), payload))
        reply: dict[str, Any] = await future
        return reply

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                if line.startswith(b"MSG "):
                    _, inbox, _, length = line.split()
                    data = (await self._reader.readexactly(int(length) + 2))[:-2]
                    future = self._replies.pop(inbox)
                    if not future.done():
                        future.set_result(json.loads(data))
                elif line == b"PING\r\n":
                    self._writer.write(b"PONG\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # as good as an end
        finally:
            for future in self._replies.values():
                if not future.done():
                    future.set_exception(Lost())
                    future.exception()  # nobody may be waiting any more
            self._replies.clear()
            self._writer.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
