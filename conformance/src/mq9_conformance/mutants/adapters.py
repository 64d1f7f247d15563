"""Broken SDKs: the Python SDK and its adapter with one wrong piece each, put in from outside.

Each breaks one requirement and still does create, send, fetch, acknowledge. Most sit at the edges that
`sdk_edges` has; they are told apart by what they do to what passes there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .sdk_edges import (
    EditRequest,
    Json,
    answers,
    arguments,
    bodies,
    constant,
    kind_becomes,
    replies,
    reply_values,
    requests,
    retries_after,
    sdk,
    swallow,
    wrap,
)


@dataclass(frozen=True)
class AdapterMutant:
    """One broken piece: what it is, which requirement it breaks, and how it gets into the process."""

    name: str
    requirement: str
    install: Callable[[], None]


def install(name: str) -> None:
    """Puts a mutant into this process, the Python adapter's."""
    mutant = next((mutant for mutant in MUTANTS if mutant.name == name), None)
    if mutant is None:
        raise SystemExit(f"there is no adapter mutant {name!r}")
    importlib.import_module("adapter")
    mutant.install()


# Single pieces


def _through_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _through_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_through_floats(item) for item in value]
    return int(float(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def _floats_in_replies(operation: str, reply: Json) -> None:
    reply.update(_through_floats(reply))


def _floats_in_requests(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
    if operation in {"msg.ack", "msg.fetch", "msg.query"}:
        payload = json.dumps(_through_floats(json.loads(payload or b"{}"))).encode()
    return subject, payload, headers


def _defaults(body: Json) -> None:
    body["config"] = {"num_msgs": 100, **body.get("config", {})}


def _zero_ttl(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
    if operation == "msg.send":
        headers = {"mq9-ttl": "0", **(headers or {})}
    return subject, payload, headers


def _text_payload(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
    if operation == "msg.send":
        payload = payload.decode("utf-8", "replace").encode()
    return subject, payload, headers


def _dedup_late() -> EditRequest:
    seen: set[str] = set()

    def change(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
        key = (headers or {}).get("mq9-dedup-id")
        if operation == "msg.send" and key and key not in seen:
            seen.add(key)
            headers = {name: value for name, value in headers.items() if name != "mq9-dedup-id"} or None
        return subject, payload, headers

    return change


def _dedup_new(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
    if operation == "msg.send" and (headers or {}).get("mq9-dedup-id"):
        headers = {**headers, "mq9-dedup-id": secrets.token_hex(16)}
    return subject, payload, headers


def _ack_as_list(body: Json) -> None:
    if "msg_id" in body:
        body["msg_ids"] = [body.pop("msg_id")]


def _deliver_for_ever() -> Callable[[Json], None]:
    first: Json = {}

    def edit(body: Json) -> None:
        if body.get("config", {}).get("lease_ms"):
            first.update(
                {name: body[name] for name in ("deliver", "from_id", "force_deliver") if name in body}
            )
            body.update(first)

    return edit


def _nack_is_ack(operation: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
    if operation == "msg.nack":
        body = json.loads(payload)
        kept = {name: body[name] for name in ("group_name", "mail_address", "msg_ids")}
        return subject.replace(".NACK.", ".ACK."), json.dumps(kept).encode(), headers
    return subject, payload, headers


def _reversed(operation: str, reply: Json) -> None:
    if operation == "msg.fetch" and reply.get("lease_id"):
        reply["messages"].reverse()


def _closed_list_of_codes(operation: str, reply: Json) -> None:
    known = sdk("mq9._generated.errors")
    if reply.get("code") and reply["code"].upper() not in {name.upper() for name in _known_codes(known)}:
        reply["code"] = "internal"


def _known_codes(errors: Any) -> set[str]:
    from ..spec import find_spec, load_spec  # noqa: PLC0415 (only in a mutant's process)

    return set(load_spec(find_spec()).codes)


def _reworded(operation: str, reply: Json) -> None:
    if reply.get("error") and not reply.get("code"):
        reply["error"] = f"the broker said: {reply['error']}"


def _guessed_payload(operation: str, reply: Json) -> None:
    for message in reply.get("messages") or []:
        if (
            isinstance(message, dict)
            and "encoding" not in message
            and isinstance(message.get("payload"), str)
        ):
            message["encoding"] = "base64"


def _known_priorities(operation: str, reply: Json) -> None:
    for message in reply.get("messages") or []:
        if isinstance(message, dict) and message.get("priority") not in {"critical", "urgent", None}:
            message["priority"] = "normal"


def _odd_message_fails(operation: str, reply: Json) -> None:
    for message in reply.get("messages") or []:
        if not isinstance(message, dict) or not isinstance(message.get("msg_id"), int):
            reply["messages"] = "odd"
            return


def _unknown_fields_fail(operation: str, reply: Json) -> None:
    known = {
        "error",
        "code",
        "msg_id",
        "messages",
        "lease_id",
        "mail_address",
        "deleted",
        "renewed",
        "mailbox",
        "agents",
        "meta",
        "cursor",
    }
    if set(reply) - known:
        reply["error"] = 5


def _not_json_is_empty(operation: str, data: bytes) -> bytes:
    try:
        if isinstance(json.loads(data).get("error"), str):
            return data
    except (ValueError, AttributeError):
        pass
    return b'{"error": "", "msg_id": 0, "messages": [], "agents": []}'


def _unsupported_is_internal(operation: str, reply: Json) -> None:
    if reply.get("code") == "unsupported_operation":
        reply["code"] = "internal"


def _no_wait_in_timeout() -> None:
    def make(original: Any) -> Any:
        async def call(self: Any, *args: Any, **more: Any) -> Any:
            more["wait_ms"] = 0
            return await original(self, *args, **more)

        return call

    wrap(sdk("mq9._client:Client"), "_call", make)


def _no_pauses() -> None:
    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **more: Any) -> None:
            original(self, *args, **more)
            self._pause_unit = 0.0

        return init

    wrap(sdk("mq9._client:Client"), "__init__", make)


def _cancelled_is_sent_again() -> None:
    def make(original: Any) -> Any:
        async def attempts(self: Any, *args: Any, **more: Any) -> Any:
            try:
                return await original(self, *args, **more)
            except asyncio.CancelledError:
                self._run_in_background(original(self, *args, **more))
                raise

        return attempts

    wrap(sdk("mq9._client:Client"), "_attempts", make)


def _clamp(args: Json) -> None:
    if "num_msgs" in args:
        args["num_msgs"] = max(1, min(1000, args["num_msgs"]))


def _repaired_address(args: Json) -> None:
    for name in ("mail_address", "name", "dead_letter"):
        if isinstance(args.get(name), str):
            args[name] = args[name].lower().strip(". ")


def _plain_headers(args: Json) -> None:
    for name in ("key", "dedup_id", "correlation_id"):
        if isinstance(args.get(name), str):
            args[name] = args[name].encode("ascii", "ignore").decode().strip()


def _first_server(args: Json) -> None:
    servers = args["servers"]
    args["servers"] = servers[0] if isinstance(servers, list) else servers.split(",")[0]


def _default_group(args: Json) -> None:
    args["group_name"] = args.get("group_name") or "default"


def _more_at_once(args: Json) -> None:
    args["concurrency"] = args.get("concurrency", 1) + 3


def _close(change: str) -> Callable[[], None]:
    def put_in() -> None:
        def make(original: Any) -> Any:
            async def aclose(self: Any) -> None:
                if change == "hurried":
                    await self._connection.close()
                if change == "once" and self.is_closed:
                    raise sdk("mq9:ConnectionClosedError")("closed already")
                await original(self)

            return aclose

        wrap(sdk("mq9._client:Client"), "aclose", make)

    return put_in


def _closes_what_it_was_given() -> None:
    def make(original: Any) -> Any:
        async def close(self: Any, request: Json) -> Any:
            answer = await original(self, request)
            if request["client"] in self.connections:
                await self.connections[request["client"]].close()
            return answer

        return close

    def make_init(original: Any) -> Any:
        def init(self: Any) -> None:
            original(self)
            self.commands["close"] = self.close

        return init

    adapter = sdk("adapter:Adapter")
    wrap(adapter, "close", make)
    wrap(adapter, "__init__", make_init)


def _never_reconnects() -> None:
    async def reconnect(self: Any) -> None:
        await asyncio.Event().wait()

    wrap(sdk("mq9._connection:Connection"), "_reconnect", lambda old: reconnect)


def _ack_first() -> None:
    def make(original: Any) -> Any:
        async def handle(self: Any, message: Any) -> None:
            await message.ack()
            await original(self, message)

        return handle

    wrap(sdk("background:ConsumerRun"), "handle", make)


def _hook_ends_the_loop() -> None:
    def make(original: Any) -> Any:
        async def failed(self: Any, error: Exception, message: Any) -> None:
            try:
                await original(self, error, message)
            except Exception:
                self.consumer.cancel()
                raise

        return failed

    wrap(sdk("background:ConsumerRun"), "failed", make)


def _acks_fail_in_silence() -> None:
    def make(original: Any) -> Any:
        async def failed(self: Any, error: Exception, message: Any) -> None:
            if getattr(error, "operation", None) != "msg.ack":
                await original(self, error, message)

        return failed

    wrap(sdk("background:ConsumerRun"), "failed", make)


def _stop_does_not_wait() -> None:
    stopping: list[Any] = []

    def make(original: Any) -> Any:
        async def command(self: Any, request: Json) -> Any:
            if request["op"] == "stop":
                stopping.append(asyncio.ensure_future(self.consumer.stop()))
                return {}
            return await original(self, request)

        return command

    wrap(sdk("background:ConsumerRun"), "command", make)


def _second_stop_fails() -> None:
    def make(original: Any) -> Any:
        async def stop(self: Any) -> None:
            if self._stopping.is_set():
                raise sdk("mq9:ConnectionClosedError")("stopped already")
            await original(self)

        return stop

    wrap(sdk("mq9._consume:Consumer"), "stop", make)


def _num_msgs_as_given() -> None:
    def make(original: Any) -> Any:
        def start(self: Any) -> None:
            original(self)
            self.consumer._num_msgs = self.options.get("num_msgs", 10)

        return start

    wrap(sdk("background:ConsumerRun"), "start", make)


def _late_batches_are_kept() -> None:
    wrap(sdk("mq9._client:Client"), "_give_back_late", lambda old: lambda self, *args: _nothing)


async def _nothing(data: bytes) -> None:
    return None


def _registers_once() -> None:
    def make(original: Any) -> Any:
        async def register(self: Any) -> None:
            if not getattr(self, "registered", False):
                self.registered = True
                await original(self)

        return register

    wrap(sdk("mq9._keep_alive:AgentKeepAlive"), "_register", make)


MUTANTS: list[AdapterMutant] = [
    AdapterMutant("first-server-only", "SDK-001", arguments({"connect"}, _first_server)),
    AdapterMutant("timeout-is-closed", "SDK-002", kind_becomes("timeout", "connection_closed")),
    AdapterMutant("fetch-times-out-while-it-waits", "SDK-003", _no_wait_in_timeout),
    AdapterMutant("no-responders-is-timeout", "SDK-004", kind_becomes("no_responders", "timeout")),
    AdapterMutant("closed-is-timeout", "SDK-005", kind_becomes("connection_closed", "timeout")),
    AdapterMutant("cancelled-is-sent-again", "SDK-006", _cancelled_is_sent_again),
    AdapterMutant("cancelled-is-timeout", "SDK-006", kind_becomes("cancelled", "timeout")),
    AdapterMutant("not-json-is-empty", "SDK-007", replies(_not_json_is_empty)),
    AdapterMutant("closed-list-of-codes", "SDK-008", reply_values(_closed_list_of_codes)),
    AdapterMutant("texts-are-not-classified", "SDK-009", reply_values(_reworded)),
    AdapterMutant("unknown-fields-fail", "SDK-010", reply_values(_unknown_fields_fail)),
    AdapterMutant("defaults-are-sent", "SDK-011", bodies("msg.fetch", _defaults)),
    AdapterMutant("zero-is-sent", "SDK-011", requests(_zero_ttl)),
    AdapterMutant("bounds-clamp", "SDK-012", arguments({"fetch"}, _clamp)),
    AdapterMutant("field-is-not-named", "SDK-012", answers(lambda error: error.pop("field", None))),
    AdapterMutant("replies-through-floats", "SDK-013", reply_values(_floats_in_replies)),
    AdapterMutant("requests-through-floats", "SDK-013", requests(_floats_in_requests)),
    AdapterMutant("never-reconnects", "SDK-014", _never_reconnects),
    AdapterMutant("close-cuts-calls-off", "SDK-015", _close("hurried")),
    AdapterMutant("second-close-fails", "SDK-015", _close("once")),
    AdapterMutant("closes-what-it-was-given", "SDK-016", _closes_what_it_was_given),
    AdapterMutant("unsupported-is-internal", "SDK-017", reply_values(_unsupported_is_internal)),
    AdapterMutant(
        "refusal-without-code",
        "SDK-018",
        answers(lambda e: e.pop("code", None) if e.get("code") == "unauthorized" else None),
    ),
    AdapterMutant("one-attempt", "RETRY-001", constant("RETRY_ATTEMPTS", 1)),
    AdapterMutant("four-attempts", "RETRY-001", constant("RETRY_ATTEMPTS", 4)),
    AdapterMutant("no-pause-between-attempts", "RETRY-001", _no_pauses),
    AdapterMutant(
        "nack-again-after-timeout",
        "RETRY-002",
        retries_after("timeout", operations={"msg.nack", "msg.fetch"}),
    ),
    AdapterMutant(
        "send-again-without-id", "RETRY-003", retries_after("timeout", "unavailable", operations={"msg.send"})
    ),
    AdapterMutant("dedup-id-from-the-second-attempt", "RETRY-004", requests(_dedup_late())),
    AdapterMutant("new-dedup-id-for-each-attempt", "RETRY-004", requests(_dedup_new)),
    AdapterMutant("every-error-is-tried-again", "RETRY-005", retries_after(everything=True)),
    AdapterMutant(
        "addresses-are-repaired",
        "ADDRESS-002",
        arguments({"send", "fetch", "mailbox_create"}, _repaired_address),
    ),
    AdapterMutant("header-values-are-repaired", "SEND-012", arguments({"send"}, _plain_headers)),
    AdapterMutant("payload-as-text", "PAYLOAD-001", requests(_text_payload)),
    AdapterMutant("odd-message-fails-the-batch", "FETCH-026", reply_values(_odd_message_fails)),
    AdapterMutant("unknown-priority-is-normal", "FETCH-026", reply_values(_known_priorities)),
    AdapterMutant("payload-encoding-guessed", "FETCH-027", reply_values(_guessed_payload)),
    AdapterMutant("consume-invents-a-group", "CONSUME-001", arguments({"consume"}, _default_group)),
    AdapterMutant("batch-in-reverse", "CONSUME-002", reply_values(_reversed)),
    AdapterMutant("ack-before-the-handler", "CONSUME-003", _ack_first),
    AdapterMutant("ack-as-a-list", "CONSUME-003", bodies("msg.ack", _ack_as_list)),
    AdapterMutant(
        "auto-ack-always", "CONSUME-003", arguments({"consume"}, lambda args: args.pop("auto_ack", None))
    ),
    AdapterMutant("nack-delay-never-grows", "CONSUME-004", constant("CONSUME_NACK_DELAY_FACTOR", 1)),
    AdapterMutant("nack-delay-grows-for-ever", "CONSUME-004", constant("CONSUME_NACK_DELAY_MAX_MS", 10**7)),
    AdapterMutant("failed-message-is-acknowledged", "CONSUME-005", requests(_nack_is_ack)),
    AdapterMutant("error-hook-ends-the-loop", "CONSUME-006", _hook_ends_the_loop),
    AdapterMutant("nothing-is-renewed", "CONSUME-007", swallow("msg.renew", {"error": "", "renewed": []})),
    AdapterMutant("renewed-too-late", "CONSUME-007", constant("CONSUME_RENEW_DIVISOR", 1)),
    AdapterMutant("more-handlers-at-once", "CONSUME-008", arguments({"consume"}, _more_at_once)),
    AdapterMutant("stop-does-not-wait", "CONSUME-009", _stop_does_not_wait),
    AdapterMutant(
        "stop-keeps-the-rest",
        "CONSUME-009",
        swallow("msg.nack", {"error": ""}, lambda body: not body.get("delay_ms")),
    ),
    AdapterMutant("second-stop-fails", "CONSUME-010", _second_stop_fails),
    AdapterMutant("late-batches-are-kept", "CONSUME-011", _late_batches_are_kept),
    AdapterMutant("no-pause-after-a-failed-fetch", "CONSUME-012", constant("CONSUME_FETCH_PAUSE_MS", 1)),
    AdapterMutant("deliver-for-ever", "CONSUME-013", bodies("msg.fetch", _deliver_for_ever())),
    AdapterMutant(
        "nack-without-lease", "CONSUME-014", bodies("msg.nack", lambda body: body.pop("lease_id", None))
    ),
    AdapterMutant("acks-fail-in-silence", "CONSUME-015", _acks_fail_in_silence),
    AdapterMutant("num-msgs-below-concurrency", "CONSUME-016", _num_msgs_as_given),
    AdapterMutant(
        "agent-without-ttl", "KEEPALIVE-001", bodies("agent.register", lambda body: body.pop("ttl", None))
    ),
    AdapterMutant("agent-stays-registered", "KEEPALIVE-001", swallow("agent.unregister", {"error": ""})),
    AdapterMutant("agent-registers-once", "KEEPALIVE-002", _registers_once),
]
