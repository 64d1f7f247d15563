"""Consuming a mailbox: fetch under a lease, hand over, renew meanwhile, acknowledge or give back.

One batch at a time. Each message of it is *waiting*, then *running*, then *settled*; a lease covers all that
are not settled:

    FETCH -> waiting -> running -> handler returned -> ACK  -> settled
                |          `-----> handler failed  -> error hook, NACK with a growing delay -> settled
                `-> stop(), cancelled -> NACK -> settled
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mq9._base import Mq9Error
from mq9._encode import invalid
from mq9._generated import constants
from mq9._generated.models import Message
from mq9._message import Delivery, delivery_of, set_delivery

if TYPE_CHECKING:
    from mq9._client import Client

Handler = Callable[[Message], Awaitable[object]]
ErrorHook = Callable[[Exception, "Message | None"], "Awaitable[object] | object"]

_logger = logging.getLogger("mq9")
_inside: ContextVar[Consumer | None] = ContextVar("mq9_inside_handler", default=None)


@dataclass(slots=True)
class ConsumerStats:
    """What a consumer has done so far.

    Attributes:
        delivered: Messages handed to the handler or the loop.
        acknowledged: Messages confirmed.
        failed: Messages whose handler failed.
        given_back: Messages given back.
        failed_acks: ACKs that failed; those messages come again.
        failed_fetches: FETCHes that failed; each was followed by a pause.
    """

    delivered: int = 0
    acknowledged: int = 0
    failed: int = 0
    given_back: int = 0
    failed_acks: int = 0
    failed_fetches: int = 0


class Consumer:
    """A running consumer; made by `Client.consume`.

    With a handler it runs by itself: `await consumer` waits until it has ended, `await consumer.stop()` ends
    it. Without one it is iterated: `async for message in consumer`. As a context manager it is stopped at the
    end of the block.

    Attributes:
        stats: What it has done so far.
    """

    def __init__(
        self,
        client: Client,
        mail_address: str,
        group_name: str,
        handler: Handler | None,
        *,
        num_msgs: int,
        max_wait_ms: int,
        lease_ms: int,
        concurrency: int,
        auto_ack: bool,
        start: Mapping[str, Any],
        on_error: ErrorHook | None,
        timeout: float | None,
    ) -> None:
        self.stats: ConsumerStats = ConsumerStats()
        self._client = client
        self._mail_address = mail_address
        self._group_name = group_name
        self._handler = handler
        self._num_msgs = max(num_msgs, concurrency)
        self._max_wait_ms = max_wait_ms
        self._lease_ms = lease_ms
        self._concurrency = concurrency
        self._auto_ack = auto_ack
        self._start = dict(start)  # Options of the first FETCH; empty once one has succeeded.
        self._on_error = on_error
        self._timeout = timeout
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._unsettled: dict[int, Message] = {}
        self._waiting: deque[Message] = deque()
        self._iterating: asyncio.Task[Any] | None = None
        self._iterated = False  # An iterator was made; it has begun once the first message was asked for.
        self._begun = False
        self._task: asyncio.Task[None] | None = None
        if handler is not None:
            if not callable(handler):
                raise invalid("handler", f"must be a function, not {type(handler).__name__}")
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"mq9-consume {mail_address} {group_name}"
            )
            # A task that is cancelled before its first step never gets to its own `finally`.
            self._task.add_done_callback(lambda _: self._finish())
        client._open.add(self)

    # Ending.

    async def stop(self) -> None:
        """Ends the consumer: waits for running handlers and their ACKs, gives back what was not started.

        Calling it again is fine. From inside a handler, or from the body of the loop, it only asks for the
        end and returns.
        """
        self._stopping.set()
        if _inside.get() is self or self._iterating is asyncio.current_task():
            return
        if self._task is not None:
            await asyncio.wait({self._task})
        elif self._begun:
            await self._ended.wait()
        else:
            self._finish()

    async def _close(self) -> None:
        """The client's end: like stop(), but without waiting for a loop's body, which may be the caller."""
        if self._begun and not self._ended.is_set():
            self._stopping.set()
            await self._give_back_waiting()
        else:
            await self.stop()

    def cancel(self) -> None:
        """Ends the consumer at once and cancels its handlers; what they had in hand is given back."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()

    @property
    def is_running(self) -> bool:
        """Whether it fetches or handles messages, or may yet be iterated."""
        return not self._ended.is_set()

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    async def wait(self) -> None:
        """Waits until the consumer has ended. Cancelling that cancels the consumer.

        Raises:
            InvalidArgumentError: It has no handler, so it does not run by itself.
        """
        if self._task is None:
            raise invalid("handler", "a consumer without a handler does not run by itself: iterate it")
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            await _uncancelled(asyncio.wait({self._task}))
            raise
        if not self._task.cancelled():
            self._task.result()

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError) and self._task is not None:
            self.cancel()
            await asyncio.wait({self._task})
        else:
            await self.stop()

    def _finish(self) -> None:
        self._stopping.set()
        self._ended.set()
        self._client._open.discard(self)

    # The handler form.

    async def _run(self) -> None:
        renewing: asyncio.Task[None] | None = None
        try:
            while await self._next_batch():
                renewing = asyncio.create_task(self._renew())
                await self._handle()
                await self._give_back_waiting()
                await _ended(renewing)
        finally:
            if renewing is not None:
                renewing.cancel()
            self._give_back_in_background()

    async def _handle(self) -> None:
        count = min(self._concurrency, len(self._waiting))
        workers = [asyncio.create_task(self._work()) for _ in range(count)]
        try:
            await asyncio.wait(workers)
        finally:
            for worker in workers:
                worker.cancel()
            if any(not worker.done() for worker in workers):
                # Cancelled ourselves: the handlers get their CancelledError now and may clean up.
                await _uncancelled(asyncio.wait(workers))
        for worker in workers:
            if not worker.cancelled():
                worker.result()

    async def _work(self) -> None:
        while self._waiting and not self._stopping.is_set():
            message = self._waiting.popleft()
            error = await self._run_handler(message)
            if error is None:
                if self._auto_ack:
                    await self._acknowledge(message)
                self._unsettled.pop(message.msg_id, None)
            else:
                self.stats.failed += 1
                await self._report(error, message, by_handler=True)
                await self._give_back([message], nack_delay_ms(message.delivery_count or 1))

    async def _run_handler(self, message: Message) -> Exception | None:
        assert self._handler is not None
        self.stats.delivered += 1
        running = asyncio.create_task(self._call_handler(message))
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            running.cancel()
            await _uncancelled(asyncio.wait({running}))
            if not running.cancelled() and running.exception() is None and self._auto_ack:
                # It had finished, or finished in spite of the cancellation: its work is not done again.
                self._client._run_in_background(self._acknowledge(message))
                self._unsettled.pop(message.msg_id, None)
            raise
        if running.cancelled():
            return Mq9HandlerCancelledError("the handler was cancelled from within")
        failure = running.exception()
        if failure is None:
            return None
        if isinstance(failure, Exception):
            return failure
        raise failure

    async def _call_handler(self, message: Message) -> None:
        assert self._handler is not None
        _inside.set(self)
        result = self._handler(message)
        if inspect.isawaitable(result):
            await result

    # Iteration.

    def __aiter__(self) -> AsyncIterator[Message]:
        if self._handler is not None:
            raise invalid("handler", "a consumer with a handler can't be iterated as well")
        if self._iterated:
            raise invalid("consumer", "can be iterated once only: call consume again")
        self._iterated = True
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[Message, None]:
        self._begun = True
        renewing: asyncio.Task[None] | None = None
        try:
            while await self._next_batch():
                renewing = asyncio.create_task(self._renew())
                while self._waiting and not self._stopping.is_set():
                    message = self._waiting.popleft()
                    self.stats.delivered += 1
                    self._iterating = asyncio.current_task()
                    yield message
                    # The loop has come back for more, so its body has ended well.
                    if self._auto_ack:
                        await self._acknowledge(message)
                    self._unsettled.pop(message.msg_id, None)
                await self._give_back_waiting()
                await _ended(renewing)
        finally:
            if renewing is not None:
                renewing.cancel()
            self._iterating = None
            self._give_back_in_background()
            self._finish()

    # Pieces of both.

    async def _next_batch(self) -> bool:
        """Waits for messages and puts them into `_waiting`; false if it was stopped."""
        pause_ms: float = constants.CONSUME_FETCH_PAUSE_MS
        while not self._stopping.is_set():
            try:
                await self._unless_stopped(self._fetch())
                pause_ms = constants.CONSUME_FETCH_PAUSE_MS
            except Mq9Error as error:
                self.stats.failed_fetches += 1
                if self._client.is_closed:
                    self._stopping.set()
                    return False
                await self._report(error, None)
                jitter = random.uniform(1, 1 + constants.CONSUME_FETCH_PAUSE_JITTER)  # noqa: S311
                await self._unless_stopped(asyncio.sleep(pause_ms * jitter / 1000))
                pause_ms = min(
                    pause_ms * constants.CONSUME_FETCH_PAUSE_FACTOR, constants.CONSUME_FETCH_PAUSE_MAX_MS
                )
            if self._waiting:
                return True
        return False

    async def _fetch(self) -> None:
        result = await self._client.fetch(
            self._mail_address,
            group_name=self._group_name,
            num_msgs=self._num_msgs,
            max_wait_ms=self._max_wait_ms,
            lease_ms=self._lease_ms,
            timeout=self._timeout,
            **self._start,
        )
        # Nothing is awaited from here on: what has arrived is in hand, whatever is cancelled now.
        self._start.clear()
        lease_id = result.lease_id or ""
        for message in result.messages:
            delivery = Delivery(self._client, self._mail_address, self._group_name, lease_id, self._lease_ms)
            set_delivery(message, delivery)
            self._unsettled[message.msg_id] = message
        self._waiting.extend(result.messages)

    async def _unless_stopped(self, action: Coroutine[Any, Any, None]) -> None:
        """Runs something, and cancels it when the consumer is stopped meanwhile."""
        task = asyncio.ensure_future(action)
        stopped = asyncio.ensure_future(self._stopping.wait())
        waits: set[asyncio.Future[Any]] = {task, stopped}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not task.done():
                # What a cancelled FETCH brings is given back by the client.
                task.cancel()
                await _uncancelled(asyncio.wait({task}))
            failure = None if task.cancelled() else task.exception()
        if failure is not None:
            raise failure

    async def _renew(self) -> None:
        """Keeps everything that is not settled hidden from the rest of the group."""
        while True:
            await asyncio.sleep(self._lease_ms / constants.CONSUME_RENEW_DIVISOR / 1000)
            held: dict[str, list[int]] = {}
            for message in self._unsettled.values():
                if not delivery_of(message).settled:
                    held.setdefault(delivery_of(message).lease_id, []).append(message.msg_id)
            for lease_id, ids in held.items():
                try:
                    await self._client.renew(
                        self._mail_address, self._group_name, ids, lease_id=lease_id, lease_ms=self._lease_ms
                    )
                except Mq9Error as error:
                    await self._report(error, None)

    async def _acknowledge(self, message: Message) -> None:
        if delivery_of(message).settled:
            return
        try:
            await message.ack(timeout=self._timeout)
            self.stats.acknowledged += 1
        except Mq9Error as error:
            self.stats.failed_acks += 1
            await self._report(error, message)

    async def _give_back(self, messages: list[Message], delay_ms: int = 0) -> None:
        """NACKs messages of one batch that are not settled; what fails comes again when its lease is over."""
        held = [message for message in messages if not delivery_of(message).settled]
        for message in messages:
            self._unsettled.pop(message.msg_id, None)
        if not held:
            return
        try:
            await self._client.nack(
                self._mail_address,
                self._group_name,
                [message.msg_id for message in held],
                lease_id=delivery_of(held[0]).lease_id,
                delay_ms=delay_ms,
                timeout=self._timeout,
            )
            self.stats.given_back += len(held)
        except Mq9Error as error:
            await self._report(error, held[0] if len(held) == 1 else None)

    async def _give_back_waiting(self) -> None:
        """After stop(): gives back what was not started."""
        messages = list(self._waiting)
        self._waiting.clear()
        await self._give_back(messages)

    def _give_back_in_background(self) -> None:
        """After a cancellation: gives everything back that is still in hand."""
        if self._unsettled:
            self._client._run_in_background(self._give_back(list(self._unsettled.values())))

    async def _report(self, error: Exception, message: Message | None, *, by_handler: bool = False) -> None:
        """Runs the error hook, or logs where there is none; a hook that fails is logged too."""
        if self._on_error is None:
            about = f"message {message.msg_id}" if message is not None else "the consumer"
            # Where a handler failed only its traceback tells; the consumer's own errors say enough.
            traceback = error if by_handler else None
            _logger.warning(
                "%s, group %s, %s: %s", self._mail_address, self._group_name, about, error, exc_info=traceback
            )
            return
        try:
            token = _inside.set(self)
            try:
                result = self._on_error(error, message)
                if inspect.isawaitable(result):
                    await result
            finally:
                _inside.reset(token)
        except Exception:
            _logger.exception("%s, group %s: the error hook failed", self._mail_address, self._group_name)


class Mq9HandlerCancelledError(Mq9Error):
    """A handler ended with a CancelledError of its own making; that counts as a failure."""

    kind: str = "cancelled"


def nack_delay_ms(delivery_count: int) -> int:
    """How long a message stays hidden after its handler failed, in milliseconds."""
    longest = constants.CONSUME_NACK_DELAY_MAX_MS
    factor = constants.CONSUME_NACK_DELAY_FACTOR ** min(max(delivery_count, 1) - 1, 62)
    return int(min(constants.CONSUME_NACK_DELAY_MS * factor, longest))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _uncancelled(action: Awaitable[Any]) -> None:
    """Waits for something that ends soon, even if cancelled meanwhile, and passes that on afterwards."""
    waiting = asyncio.ensure_future(action)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
