"""Keeping an agent in the registry as long as a program runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mq9._base import Mq9Error
from mq9._generated import constants
from mq9._generated.errors import AgentNotFoundError

if TYPE_CHECKING:
    from mq9._client import Client

_logger = logging.getLogger("mq9")


class AgentKeepAlive:
    """An agent that is registered as long as the block runs; made by `Client.agent_keep_alive`."""

    def __init__(self, client: Client, name: str, body: Mapping[str, Any]) -> None:
        self._client = client
        self._name = name
        self._body = body
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AgentKeepAlive:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Registers the agent and begins to report it; the block does so by itself.

        Raises:
            Mq9Error: If it could not be registered.
        """
        if self._task is None:
            await self._register()
            self._task = asyncio.create_task(self._report(), name=f"mq9-keep-alive {self._name}")
            self._client._open.add(self)

    async def stop(self) -> None:
        """Ends the reports and unregisters the agent; calling it again is fine.

        Raises:
            Mq9Error: If it could not be unregistered; it goes by itself when its ttl is over.
        """
        task, self._task = self._task, None
        if task is None:
            return
        self._client._open.discard(self)
        task.cancel()
        await asyncio.wait({task})
        await self._client.agent_unregister(self._name)

    _close = stop

    async def _register(self) -> None:
        await self._client.agent_register(
            self._name, ttl=constants.AGENT_KEEP_ALIVE_REGISTER_TTL, **self._body
        )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(constants.AGENT_KEEP_ALIVE_REPORT_EVERY_MS / 1000)
            try:
                with suppress(AgentNotFoundError):
                    await self._client.agent_report(self._name)
                    continue
                await self._register()
            except Mq9Error as error:
                _logger.warning("agent %s could not be reported, trying again later: %s", self._name, error)
