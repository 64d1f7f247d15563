"""The conformance adapter of the Python SDK: JSON lines in, JSON lines out; see conformance/ADAPTERS.md."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import nats
from background import ConsumerRun, IterationRun, KeepAliveRun
from convert import NotUnderstood, arguments, result
from dispatch import OPERATIONS, SPEC_VERSION

import mq9

Request = dict[str, Any]
Background = ConsumerRun | IterationRun | KeepAliveRun

FEATURES = ["consume", "iterate", "keep_alive", "existing_connection"]


def error_fields(error: BaseException) -> dict[str, Any]:
    """An error of the SDK in the protocol's form."""
    if isinstance(error, mq9.Mq9Error):
        fields = {"kind": error.kind, "code": error.code, "field": error.field, "message": str(error)}
    elif isinstance(error, asyncio.CancelledError):
        fields = {"kind": "cancelled", "message": "cancelled"}
    else:
        fields = {"kind": "handler", "message": f"{type(error).__name__}: {error}"}
    return {name: value for name, value in fields.items() if value is not None}


class Adapter:
    """Carries out requests side by side; each answer goes out as soon as it is there."""

    def __init__(self) -> None:
        self.clients: dict[str, mq9.Client] = {}
        self.connections: dict[str, Any] = {}
        self.backgrounds: dict[str, Background] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.commands: dict[str, Callable[[Request], Awaitable[Any]]] = {
            "hello": self.hello,
            "connect": self.connect,
            "close": self.close,
            "connection_open": self.connection_open,
            "cancel": self.cancel,
            "consume": self.consume,
            "iterate": self.iterate,
            "agent_keep_alive": self.agent_keep_alive,
        }

    def write(self, line: dict[str, Any]) -> None:
        """Writes one line of the protocol."""
        sys.stdout.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    async def run(self) -> None:
        """Reads requests until the end of the input, then finishes."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=2**26)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            request: Request = json.loads(line)
            self.tasks[request["id"]] = asyncio.create_task(self.serve(request))
        for task in list(self.tasks.values()):
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for background in list(self.backgrounds.values()):
            await background.cancel()
        for client in list(self.clients.values()):
            await client.aclose()

    async def serve(self, request: Request) -> None:
        """Carries out one request and answers it."""
        number = request["id"]
        try:
            answer = {"ok": await self.carry_out(request)}
        except (mq9.Mq9Error, asyncio.CancelledError) as error:
            answer = {"error": error_fields(error)}
        except NotUnderstood as error:
            answer = {"harness_error": str(error)}
        except Exception as error:  # a mistake here, or one that the SDK lets out: red either way
            traceback.print_exc()
            answer = {"harness_error": f"{type(error).__name__}: {error}"}
        finally:
            self.tasks.pop(number, None)
        self.write({"id": number, **answer})

    async def carry_out(self, request: Request) -> Any:
        """Finds what a request asks for."""
        name = request["op"]
        if name in OPERATIONS:
            return await self.operation(request)
        if "of" in request and name != "cancel":
            background = self.backgrounds.get(request["of"])
            if background is None:
                raise NotUnderstood(f"nothing runs as {request['of']!r}")
            return await background.command(request)
        if name not in self.commands:
            raise NotUnderstood(f"there is no operation {name!r}")
        return await self.commands[name](request)

    def client(self, request: Request) -> mq9.Client:
        """The client that a request names."""
        client = self.clients.get(request["client"])
        if client is None:
            raise NotUnderstood(f"client {request['client']!r} was never connected")
        return client

    async def operation(self, request: Request) -> Any:
        """One operation of the specification."""
        operation = OPERATIONS[request["op"]]
        method = getattr(self.client(request), operation.method)
        value = await method(**arguments(request.get("args", {}), operation.parameters))
        return result(value, operation.result, request.get("decode", []))

    async def hello(self, request: Request) -> Any:
        """Says who this is."""
        return {"sdk": "python", "sdk_version": version("mq9"), "spec": SPEC_VERSION, "features": FEATURES}

    async def connect(self, request: Request) -> Any:
        """Connects a client, on an existing NATS connection if `existing` says so."""
        options = dict(request["args"])
        for name in [name for name in options if name.endswith("_ms")]:
            options[name[:-3]] = options.pop(name) / 1000
        if options.pop("existing", False):
            connection = await nats.connect(options.pop("servers"))
            self.connections[request["client"]] = connection
            options["nats"] = connection
        self.clients[request["client"]] = await mq9.connect(**options)
        return {}

    async def close(self, request: Request) -> Any:
        """Closes a client; the client stays known, so that calls on it can be tried."""
        await self.client(request).aclose()
        return {}

    async def connection_open(self, request: Request) -> Any:
        """Says whether the existing connection of a client is still open, then closes it."""
        connection = self.connections[request["client"]]
        is_open = connection.is_connected
        if is_open:
            await connection.flush()
        await connection.close()
        return is_open

    async def cancel(self, request: Request) -> Any:
        """Cancels a call (`target`) or something under way (`of`) as Python cancels: by its task."""
        if "of" in request:
            background = self.backgrounds.get(request["of"])
            if background is not None:
                await background.cancel()
            return {"ended": "cancelled"}
        task = self.tasks.get(request["target"])
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        return {"ended": "cancelled"}

    async def consume(self, request: Request) -> Any:
        """Begins to consume with a handler; the runner says how each handler ends."""
        run = ConsumerRun(self, request)
        run.start()
        self.backgrounds[request["as"]] = run
        return {}

    async def iterate(self, request: Request) -> Any:
        """Begins an `async for`."""
        run = IterationRun(self, request)
        self.backgrounds[request["as"]] = run
        return {}

    async def agent_keep_alive(self, request: Request) -> Any:
        """Begins to keep an agent registered."""
        run = KeepAliveRun(self, request)
        await run.start()
        self.backgrounds[request["as"]] = run
        return {}


def main() -> None:
    """Runs the adapter until the end of its input."""
    asyncio.run(Adapter().run())


if __name__ == "__main__":
    main()
