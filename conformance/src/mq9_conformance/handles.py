"""Things under way in a scenario: waiting calls, subscriptions, consumers, iterations, keep-alives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .adapter import AdapterProcess, Channel, SdkClient, decode_object, encode_ids
from .matching import match, same, show
from .patience import PATIENCE
from .rawnats import RawClient, Subscription
from .results import CallFailed, Failure, HarnessError
from .scenario import Step
from .values import ScenarioError, json_bytes, payload_bytes

if TYPE_CHECKING:
    from .player import Player


class Call:
    """A call that has not been answered yet."""

    def __init__(
        self, task: asyncio.Future[Any], number: int | None = None, adapter: AdapterProcess | None = None
    ) -> None:
        self._task, self._number, self._adapter = task, number, adapter
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def act(self, step: Step, player: Player) -> None:
        """Carries out `await`, `pending` or `cancel`."""
        if step.action == "pending":
            if self._task.done():
                error = self._task.exception()
                raise Failure(f"{step.target} was answered already: {error or show(self._task.result())}")
            return
        if step.action == "cancel":
            if self._adapter is None or self._number is None:
                raise ScenarioError(f"{step.target}.cancel: only calls of an SDK can be cancelled")
            await self._adapter.request("cancel", target=self._number)
            if "expect_error" not in step.extra:
                step = Step(
                    step.target, step.action, step.args, {"expect_error": {"kind": "cancelled"}}, step.line
                )
        await player.check_outcome(step, lambda: self._task)

    async def abandon(self) -> None:
        """Ends the call at the end of a scenario."""
        if not self._task.done():
            if self._adapter is not None and self._number is not None and self._adapter.alive:
                await self._adapter.request("cancel", timeout_s=3, target=self._number)
            self._task.cancel()


class SubscriptionHandle:
    """A subscription of a raw client."""

    def __init__(self, client: RawClient, subscription: Subscription, player: Player) -> None:
        self._client, self._subscription, self._player = client, subscription, player

    async def act(self, step: Step, player: Player) -> None:
        """Carries out `message`, `none` or `unsubscribe`."""
        if step.action == "message":
            try:
                delivery = await asyncio.wait_for(self._subscription.queue.get(), 5)
            except asyncio.TimeoutError:
                raise Failure(f"no message came to {self._subscription.subject}") from None
            player.report(match(step.args, delivery.as_data(), player.variables, "message"))
        elif step.action == "none":
            await player.flush_raw_clients()
            if not self._subscription.queue.empty():
                message = self._subscription.queue.get_nowait().as_data()
                raise Failure(f"a message came to {self._subscription.subject}: {show(message)}")
        else:
            self._client.unsubscribe(self._subscription, step.args.get("max"))
            await self._client.flush()

    async def abandon(self) -> None:
        """Nothing: the connection is closed with the scenario."""


class _Background:
    """What consumers, iterations and keep-alives have in common: a label and events."""

    operation = ""

    def __init__(self, client: SdkClient, channel: Channel, player: Player) -> None:
        self.client, self.channel, self.player = client, channel, player
        self.ended = False

    async def start(self, args: Mapping[str, Any], **fields: Any) -> Any:
        """Begins; the answer comes when it runs, or could not be begun."""
        encoded = {
            name: encode_ids(value) if name == "from_id" else value
            for name, value in args.items()
            if name != "card"
        }
        if "card" in args:
            encoded["card_json"] = json_bytes(args["card"]).decode()
        fields["as"] = self.channel.label
        answer = await self.client.adapter.request(
            self.operation, client=self.client.name, args=encoded, **fields
        )
        return {} if answer is None else answer

    async def tell(self, operation: str, **fields: Any) -> Any:
        """Sends a command that concerns this."""
        return await self.client.adapter.request(operation, of=self.channel.label, **fields)

    def message(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A message of an event or answer as scenarios compare it."""
        return decode_object(self.client.spec, self.client.spec.types["objects"]["message"]["fields"], data)

    async def abandon(self) -> None:
        """Ends this at the end of a scenario."""
        if not self.ended and self.client.adapter.alive:
            await self.tell("cancel")


class Consumer(_Background):
    """A consumer with a handler; what the handler does is decided here, message by message."""

    operation = "consume"

    def __init__(self, client: SdkClient, channel: Channel, player: Player, plan: Any) -> None:
        super().__init__(client, channel, player)
        self._plan = plan if isinstance(plan, Mapping) else {"default": plan}
        self._outcomes = {
            name: list(v) if isinstance(v, list) else [v]
            for name, v in (self._plan.get("by_payload") or {}).items()
        }
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._errors: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._endings: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._held: list[dict[str, Any]] = []
        self._stop: asyncio.Future[Any] | None = None
        self._pump = asyncio.ensure_future(self._read())

    async def start(self, args: Mapping[str, Any], **fields: Any) -> Any:
        """Begins to consume."""
        try:
            return await super().start(args, **fields)
        except CallFailed:
            self.ended = True
            raise

    async def _read(self) -> None:
        while True:
            event = await self.channel.events.get()
            if event["event"] == "message":
                message = {**self.message(event["message"]), "delivery": event["delivery"]}
                self._messages.put_nowait(message)
                await self._handle(message)
            elif event["event"] == "error":
                self._errors.put_nowait(event["error"])
            elif event["event"] == "ended":
                self.ended = True
                self._endings.put_nowait(event)

    async def _handle(self, message: dict[str, Any]) -> None:
        text = message.get("payload", b"").decode("utf-8", "replace")
        outcomes = self._outcomes.get(text)
        if outcomes:
            outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        else:
            outcome = self._plan.get("default", "ok")
        if outcome == "hold":
            self._held.append(message)
        else:
            with contextlib.suppress(CallFailed, HarnessError):
                await self.tell("finish", delivery=message["delivery"], outcome=outcome)

    async def act(self, step: Step, player: Player) -> None:
        """Carries out `message`, `finish`, `error`, `quiet`, `stop`, `cancel` or `ended`."""
        action = step.action
        if action in {"message", "error", "ended"}:
            queue = {"message": self._messages, "error": self._errors, "ended": self._endings}[action]
            event = await self._next(queue, f"{step.target}.{action}")
            player.report(match(step.args, event, player.variables, action))
        elif action == "finish":
            held = await self._take_held(player.variables.resolve(step.args))
            await self.tell("finish", delivery=held["delivery"], outcome=str(step.args.get("outcome", "ok")))
        elif action == "quiet":
            await asyncio.sleep(0.1)
            for queue, what in ((self._messages, "message"), (self._errors, "error")):
                if not queue.empty():
                    raise Failure(f"{step.target}: one more {what}: {show(queue.get_nowait())}")
        elif action == "stop":
            await self._stop_step(step, player)
        else:
            await self.tell("cancel")

    async def _stop_step(self, step: Step, player: Player) -> None:
        if step.args.get("inside"):
            held = await self._take_held({})
            await self.tell("finish", delivery=held["delivery"], outcome="stop")
            return
        if step.label:
            task = asyncio.ensure_future(self.tell("stop"))
            player.handles[step.label] = Call(task)
            await asyncio.sleep(0.05)
            return
        await player.check_outcome(step, lambda: self.tell("stop"))

    async def _next(self, queue: asyncio.Queue[dict[str, Any]], what: str) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(queue.get(), PATIENCE.event_s)
        except asyncio.TimeoutError:
            raise Failure(f"{what}: nothing came within {PATIENCE.event_s:g} s") from None

    async def _take_held(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        for _ in range(100):
            for message in self._held:
                by_id = "msg_id" not in wanted or same(wanted["msg_id"], message.get("msg_id"))
                by_payload = "payload" not in wanted or payload_bytes(wanted["payload"]) == message.get(
                    "payload"
                )
                if by_id and by_payload:
                    self._held.remove(message)
                    return message
            await asyncio.sleep(0.05)
        raise Failure(f"no handler holds {show(dict(wanted)) if wanted else 'a message'}")

    async def abandon(self) -> None:
        """Lets every handler end, then cancels."""
        try:
            if self.client.adapter.alive:
                for message in self._held:
                    with contextlib.suppress(CallFailed, HarnessError):
                        await self.tell("finish", delivery=message["delivery"], outcome="ok")
                await super().abandon()
        finally:
            self._pump.cancel()


class Iteration(_Background):
    """The language's own iteration over a consumer."""

    operation = "iterate"

    async def act(self, step: Step, player: Player) -> None:
        """Carries out `next`, `ack`, `nack`, `renew`, `leave` or `cancel`."""
        args = player.variables.resolve(step.args)
        if step.action == "next":
            if step.label:
                player.handles[step.label] = Call(asyncio.ensure_future(self._next()))
                await asyncio.sleep(0.05)
                return
            await player.check_outcome(step, self._next)
        elif step.action in {"ack", "nack", "renew"}:
            fields = {name: encode_ids(value) if name == "msg_id" else value for name, value in args.items()}
            await player.check_outcome(step, lambda: self.tell(f"message_{step.action}", **fields))
        elif step.action == "leave":
            self.ended = True
            await player.check_outcome(step, lambda: self.tell("leave"))
        elif step.action == "cancel":
            self.ended = True
            await self.tell("cancel")
        else:
            raise ScenarioError(f"{step.title}: an iteration has no such action")

    async def _next(self) -> Any:
        answer = await self.tell("next")
        return self.message(answer) if isinstance(answer, Mapping) else answer


class KeepAlive(_Background):
    """The agent helper: registers, reports, and unregisters when it is stopped."""

    operation = "agent_keep_alive"

    async def act(self, step: Step, player: Player) -> None:
        """Carries out `stop`."""
        if step.action != "stop":
            raise ScenarioError(f"{step.title}: a keep-alive has only `stop`")
        self.ended = True
        await player.check_outcome(step, lambda: self.tell("stop"))


__all__ = ["Call", "Consumer", "Iteration", "KeepAlive", "SubscriptionHandle"]
