"""What goes on between requests: consumers with a handler, `async for`, keep-alives."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from convert import NotUnderstood, arguments, object_
from dispatch import CONSUME

import mq9

if TYPE_CHECKING:
    from adapter import Adapter, Request


class HandlerFailed(Exception):  # noqa: N818 (what a user's handler raises)
    """What a handler raises when the runner says that it fails."""


class ConsumerRun:
    """A consumer with a handler. Every handler waits for the runner to say how it ends."""

    def __init__(self, adapter: Adapter, request: Request) -> None:
        self.adapter, self.label = adapter, request["as"]
        self.client = adapter.client(request)
        self.options = arguments(request["args"], CONSUME)
        self.fail_error_hook = request.get("fail_error_hook", False)
        self.deliveries = itertools.count(1)
        self.outcomes: dict[int, asyncio.Future[str]] = {}
        self.consumer: Any = None
        self.waiter: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; an argument that is not as it should be raises here."""
        self.consumer = self.client.consume(handler=self.handle, on_error=self.failed, **self.options)
        self.waiter = asyncio.create_task(self.wait())

    async def handle(self, message: mq9.Message) -> None:
        """The handler: reports the message, then ends as the runner says."""
        number = next(self.deliveries)
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.outcomes[number] = outcome
        fields = object_(message, "message", [])
        self.adapter.write({"event": "message", "of": self.label, "delivery": number, "message": fields})
        how = await outcome
        if how == "fail":
            raise HandlerFailed("the runner said that this handler fails")
        if how == "stop":
            await self.consumer.stop()

    async def failed(self, error: Exception, message: mq9.Message | None) -> None:
        """The error hook."""
        from adapter import error_fields  # noqa: PLC0415 (the two modules need each other)

        fields = error_fields(error)
        if message is not None:
            fields["msg_id"] = str(message.msg_id)
        self.adapter.write({"event": "error", "of": self.label, "error": fields})
        if self.fail_error_hook:
            raise HandlerFailed("the runner said that the error hook fails")

    async def wait(self) -> None:
        """Waits for the end, as a program would, and reports it."""
        from adapter import error_fields  # noqa: PLC0415 (the two modules need each other)

        how, error = "stopped", None
        try:
            await self.consumer
        except asyncio.CancelledError:
            how = "cancelled"
        except Exception as problem:  # whatever a consumer ends with is reported
            how, error = "failed", error_fields(problem)
        line = {"event": "ended", "of": self.label, "how": how}
        self.adapter.write({**line, "error": error} if error else line)

    async def command(self, request: Request) -> Any:
        """Carries out `finish` or `stop`."""
        if request["op"] == "finish":
            outcome = self.outcomes.pop(request["delivery"], None)
            if outcome is not None and not outcome.done():
                outcome.set_result(request["outcome"])
            return {}
        if request["op"] == "stop":
            await self.consumer.stop()
            return {}
        raise NotUnderstood(f"a consumer has no {request['op']!r}")

    async def cancel(self) -> None:
        """Cancels the task that waits for the consumer."""
        if self.waiter is not None:
            self.waiter.cancel()
            await asyncio.wait({self.waiter})


class IterationRun:
    """An `async for` whose body asks the runner after each message whether to go on."""

    def __init__(self, adapter: Adapter, request: Request) -> None:
        self.client = adapter.client(request)
        self.consumer = self.client.consume(**arguments(request["args"], CONSUME))
        self.messages: dict[int, mq9.Message] = {}
        self.wanted: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self.loop: asyncio.Task[None] | None = None
        self.asked: asyncio.Future[Any] | None = None

    async def iterate(self) -> None:
        """The loop itself."""
        async with self.consumer as consumer:
            self.asked = await self.wanted.get()
            async for message in consumer:
                self.messages[message.msg_id] = message
                if self.asked is not None and not self.asked.done():
                    self.asked.set_result(object_(message, "message", []))
                self.asked = await self.wanted.get()
                if self.asked is None:
                    break

    async def command(self, request: Request) -> Any:
        """Carries out `next`, `leave`, or one of a message's own methods."""
        name = request["op"]
        if name == "next":
            return await self.next()
        if name in {"leave", "stop"}:
            if self.loop is None:
                await self.consumer.stop()
                return {}
            if name == "stop":
                await self.consumer.stop()
            else:
                self.wanted.put_nowait(None)
            await asyncio.wait({self.loop})
            return {}
        methods = {"message_ack": "ack", "message_nack": "nack", "message_renew": "renew"}
        if name not in methods:
            raise NotUnderstood(f"an iteration has no {name!r}")
        message = self.messages[int(request["msg_id"])]
        options = {key: request[key] for key in ("delay_ms", "lease_ms") if key in request}
        answer = await getattr(message, methods[name])(**options)
        return {} if answer is None else answer

    async def next(self) -> Any:
        """Asks the loop for one more message; null when the loop has ended."""
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.wanted.put_nowait(asked)
        if self.loop is None:
            self.loop = asyncio.create_task(self.iterate())
        await asyncio.wait({asked, self.loop}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
        self.loop.result()
        return None

    async def cancel(self) -> None:
        """Cancels the task that runs the loop."""
        if self.loop is not None:
            self.loop.cancel()
            await asyncio.wait({self.loop})
        else:
            await self.consumer.stop()


class KeepAliveRun:
    """An agent that stays registered until it is stopped."""

    def __init__(self, adapter: Adapter, request: Request) -> None:
        args = dict(request["args"])
        if "card_json" in args:
            args = {**arguments({"card_json": args.pop("card_json")}, {"card": ("card", "json")}), **args}
        self.keep_alive = adapter.client(request).agent_keep_alive(**args)

    async def start(self) -> None:
        """Registers."""
        await self.keep_alive.start()

    async def command(self, request: Request) -> Any:
        """Carries out `stop`."""
        if request["op"] != "stop":
            raise NotUnderstood(f"a keep-alive has no {request['op']!r}")
        await self.keep_alive.stop()
        return {}

    async def cancel(self) -> None:
        """Ends it."""
        with suppress(mq9.Mq9Error):
            await self.keep_alive.stop()
