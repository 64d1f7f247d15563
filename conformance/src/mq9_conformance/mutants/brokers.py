"""Broken brokers. Each breaks one requirement and still does create, send, fetch, acknowledge."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from .edge import Ask, EditReply, EditRequest, Mutant, install_edits, replace_handle

Reply = dict[str, Any]

OK: Reply = {"error": ""}


def install(name: str) -> None:
    """Puts a mutant into the broker of this process."""
    mutant = next((mutant for mutant in MUTANTS if mutant.name == name), None)
    if mutant is None:
        raise SystemExit(f"there is no broker mutant {name!r}")
    if mutant.install is not None:
        mutant.install()
    if mutant.request or mutant.reply:
        install_edits(mutant)


# Edits of requests


def without_header(name: str) -> EditRequest:
    """The broker never sees a header."""
    return lambda ask: ask.drop_header(name)


def on(operation: str, edit: Callable[[Ask, dict[str, Any]], None]) -> EditRequest:
    """Edits the body of one operation."""

    def request(ask: Ask) -> None:
        if ask.operation == operation and ask.body is not None:
            edit(ask, ask.body)

    return request


def without_field(operation: str, name: str) -> EditRequest:
    """The broker never sees a field of the body."""
    return on(operation, lambda ask, body: body.pop(name, None) and None)


def config_without(name: str) -> EditRequest:
    """The broker never sees a field of a FETCH's config."""
    return on("msg.fetch", lambda ask, body: _config(body).pop(name, None) and None)


def _config(body: dict[str, Any]) -> dict[str, Any]:
    config = body.get("config")
    if isinstance(config, dict):
        body["config"] = config = dict(config)
        return config
    return {}


def _clamped(ask: Ask, body: dict[str, Any]) -> None:
    config = _config(body)
    if isinstance(config.get("num_msgs"), int):
        config["num_msgs"] = max(1, min(1000, config["num_msgs"]))


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole_floats(ask: Ask) -> None:
    if ask.body is not None and (ask.operation or "").split(".")[0] != "agent":
        ask.body = _whole(ask.body)


def _from_the_beginning(ask: Ask, body: dict[str, Any]) -> None:
    if not body.get("deliver"):
        body["deliver"] = "earliest"


def _exclusive(ask: Ask, body: dict[str, Any]) -> None:
    if body.get("deliver") == "from_id" and isinstance(body.get("from_id"), int):
        body["from_id"] += 1


def _every_time(ask: Ask, body: dict[str, Any]) -> None:
    if body.get("deliver") == "from_time" and isinstance(body.get("from_time"), int):
        body["deliver"] = "earliest"


def _up_to(ask: Ask, body: dict[str, Any]) -> None:
    if isinstance(body.get("msg_id"), int) and 0 <= body["msg_id"] < 1000 and not body.get("msg_ids"):
        body["msg_ids"] = list(range(body["msg_id"] + 1))


def _alone(ask: Ask, body: dict[str, Any]) -> None:
    if isinstance(body.get("msg_id"), int) and body["msg_id"] >= 0 and not body.get("msg_ids"):
        body["msg_ids"] = [body["msg_id"]]


def _both(ask: Ask, body: dict[str, Any]) -> None:
    ids = body.get("msg_ids")
    if isinstance(body.get("msg_id"), int) and isinstance(ids, list) and ids:
        body["msg_ids"] = [*ids, body["msg_id"]]


def _at_once(ask: Ask, body: dict[str, Any]) -> None:
    if isinstance(body.get("config"), dict) or "config" not in body:
        body["config"] = {**(body.get("config") or {}), "max_wait_ms": 0}


def _shadow_group(ask: Ask, body: dict[str, Any]) -> None:
    if not body.get("group_name"):
        body["group_name"] = "shadow"


def _no_lease_without_group(ask: Ask, body: dict[str, Any]) -> None:
    if not body.get("group_name"):
        _config(body).pop("lease_ms", None)


def _one_tag(ask: Ask, body: dict[str, Any]) -> None:
    if isinstance(body.get("tags"), list):
        body["tags"] = body["tags"][:1]


def _oldest(ask: Ask, body: dict[str, Any]) -> None:
    if body.get("from_id") is None:
        body["from_id"] = 0


def _short_renewal(ask: Ask, body: dict[str, Any]) -> None:
    if isinstance(body.get("lease_ms"), int) and body["lease_ms"] > 1:
        body["lease_ms"] = 1


def _one_group(ask: Ask) -> None:
    if ask.body is not None and isinstance(ask.body.get("group_name"), str) and ask.body["group_name"]:
        ask.body["group_name"] = "everybody"


def _nulls_refused(ask: Ask) -> None:
    if ask.body is not None and any(value is None for value in ask.body.values()):
        ask.payload, ask.body = b"null", None


def _first_key_counts(ask: Ask) -> None:
    if ask.body is None:
        return

    def first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    ask.body = json.loads(ask.payload, object_pairs_hook=first) if ask.payload else ask.body


def _any_address_in_body(ask: Ask) -> None:
    if ask.body is not None and ask.operation in {"msg.ack", "msg.nack", "msg.renew"}:
        ask.body.pop("mail_address", None)


def _signed_integers(ask: Ask) -> None:
    ask.headers = [
        (name, value.lstrip("+").replace("_", ""))
        if name.lower() in {"mq9-delay", "mq9-ttl"}
        else (name, value)
        for name, value in ask.headers
    ]


def _any_priority(ask: Ask) -> None:
    if (ask.header("mq9-priority") or "normal").strip() not in {"critical", "urgent", "normal", ""}:
        ask.drop_header("mq9-priority")


def _last_value_counts(ask: Ask) -> None:
    own = [pair for pair in ask.headers if pair[0].lower().startswith("mq9-")]
    ask.headers = list(reversed(own)) + [pair for pair in ask.headers if pair not in own]


def _text_payloads(ask: Ask) -> None:
    if ask.operation == "msg.send":
        ask.payload = ask.payload.decode("utf-8", "replace").encode()


def _needs_reply(ask: Ask) -> bool | None:
    return None if ask.reply_to is not None else False


def _silent_on_unknown(ask: Ask) -> bool | None:
    return None if ask.operation is not None else False


def _first_body_wins() -> EditRequest:
    first: dict[str, dict[str, Any]] = {}

    def request(ask: Ask) -> None:
        if (
            ask.operation == "agent.register"
            and ask.body is not None
            and isinstance(ask.body.get("name"), str)
        ):
            ask.body = first.setdefault(ask.body["name"], ask.body)

    return request


# Edits of replies


def for_replies(operation: str, edit: Callable[[Ask, Reply], None]) -> EditReply:
    """Edits the successful replies of one operation."""

    def reply(ask: Ask, data: Reply) -> Reply:
        if ask.operation == operation and data.get("error") == "":
            edit(ask, data)
        return data

    return reply


def messages(edit: Callable[[dict[str, Any]], None]) -> EditReply:
    """Edits each message of FETCH and QUERY."""

    def reply(ask: Ask, data: Reply) -> Reply:
        for message in data.get("messages") or []:
            edit(message)
        return data

    return reply


def succeeds(operation: str, code: str, **fields: Any) -> EditReply:
    """A failure that becomes a success."""

    def reply(ask: Ask, data: Reply) -> Reply:
        if ask.operation == operation and data.get("code") == code:
            extra = {name: ask.given.get("name") if value is ... else value for name, value in fields.items()}
            return {**OK, **extra}
        return data

    return reply


def _by_id(ask: Ask, data: Reply) -> None:
    data["messages"].sort(key=lambda message: message["msg_id"])


def _without_code(ask: Ask, data: Reply) -> Reply:
    data.pop("code", None)
    return data


def _without_error(ask: Ask, data: Reply) -> Reply:
    if ask.operation == "mailbox.info" and data.get("error") == "":
        del data["error"]
    return data


def _other_text(ask: Ask, data: Reply) -> Reply:
    if data.get("code") == "mailbox_not_found":
        data["error"] = "no such mailbox"
    return data


def _lower_headers(message: dict[str, Any]) -> None:
    if "headers" in message:
        message["headers"] = {name.lower(): values for name, values in message["headers"].items()}


def _first_header_value(message: dict[str, Any]) -> None:
    if "headers" in message:
        message["headers"] = {name: values[:1] for name, values in message["headers"].items()}


def _no_dead_letter_headers(message: dict[str, Any]) -> None:
    if "headers" in message:
        kept = {k: v for k, v in message["headers"].items() if not k.startswith("mq9-dead-letter-")}
        message["headers"] = kept


def _milliseconds(message: dict[str, Any]) -> None:
    if "create_time_ms" in message:
        message["create_time"] = message["create_time_ms"]


def _count_one(message: dict[str, Any]) -> None:
    if "delivery_count" in message:
        message["delivery_count"] = 1


def _delivered_once() -> EditReply:
    seen: set[tuple[str, str, int]] = set()

    def reply(ask: Ask, data: Reply) -> Reply:
        group = ask.given.get("group_name")
        leased = (ask.given.get("config") or {}).get("lease_ms")
        if ask.operation == "msg.fetch" and group and not leased and "messages" in data:
            new = [m for m in data["messages"] if (ask.address, group, m["msg_id"]) not in seen]
            seen.update((ask.address, group, message["msg_id"]) for message in new)
            data["messages"] = new
        return data

    return reply


def _acks_once() -> EditReply:
    seen: set[tuple[str, str, int]] = set()

    def reply(ask: Ask, data: Reply) -> Reply:
        if (
            ask.operation == "msg.ack"
            and data.get("error") == ""
            and isinstance(ask.given.get("msg_id"), int)
        ):
            key = (ask.address, str(ask.given.get("group_name")), ask.given["msg_id"])
            if key in seen:
                return {"error": "message not found", "code": "message_not_found"}
            seen.add(key)
        return data

    return reply


def _always_first_page(ask: Ask) -> None:
    if ask.operation == "agent.discover" and ask.body is not None:
        ask.body.pop("page", None)


def _leased_as_pending(ask: Ask, data: Reply) -> None:
    for group in data["mailbox"]["groups"]:
        group["pending"] += group["leased"]


def _all_renewed(ask: Ask, data: Reply) -> None:
    data["renewed"] = ask.given.get("msg_ids")


def _no_lease_id(ask: Ask, data: Reply) -> None:
    data.pop("lease_id", None)


# Whole pieces


def _forgets_on_restart() -> None:
    """The store that was asked for as durable is in memory."""
    if "rocksdb" in sys.argv:
        sys.argv[sys.argv.index("rocksdb")] = "memory"
        at = sys.argv.index("--data")
        del sys.argv[at : at + 2]


def _requests_are_visible() -> None:
    """Requests also go to whoever subscribes to their subject."""
    from mq9_broker.shell.shell import Shell  # noqa: PLC0415 (only in a broker's process)
    from mq9_broker.transport.parser import Publish  # noqa: PLC0415

    handle = Shell.handle

    def visible(self: Any, connection: Any, requests: Any) -> int:
        for subject, reply_to, headers, payload in requests:
            for found in connection._listener.index.match(subject).receivers(None):
                found.connection.deliver(found, Publish(subject, reply_to, headers, payload))
        return handle(self, connection, requests)

    replace_handle(visible)


def _replies_go_everywhere() -> None:
    """Replies go to every connection that subscribes to their subject."""
    from mq9_broker.transport.connection import Connection  # noqa: PLC0415 (only in a broker's process)
    from mq9_broker.transport.parser import Publish  # noqa: PLC0415

    def send(self: Any, replies: Any) -> None:
        for subject, body in replies:
            for found in self._listener.index.match(subject).receivers(None):
                found.connection.deliver(found, Publish(subject, None, None, body))

    Connection.send_replies = send  # type: ignore[method-assign]


def _four_frames_a_read() -> None:
    """Of the frames that come in one read, only the first four are handled."""
    from mq9_broker.transport.connection import Connection  # noqa: PLC0415 (only in a broker's process)

    carry_out = Connection._carry_out

    def some(self: Any, events: Any) -> None:
        carry_out(self, events[:4])

    Connection._carry_out = some  # type: ignore[method-assign]


def _no_no_responders() -> None:
    """Nobody is told that nobody answers."""
    from mq9_broker.transport.connection import Connection  # noqa: PLC0415 (only in a broker's process)

    publish = Connection._publish

    def quiet(self: Any, event: Any) -> None:
        self.no_responders = False
        publish(self, event)

    Connection._publish = quiet  # type: ignore[method-assign]


MUTANTS: list[Mutant] = [
    Mutant("lanes-ignored", "FETCH-001", reply=for_replies("msg.fetch", _by_id)),
    Mutant("payload-as-text", "SEND-001", request=_text_payloads),
    Mutant("send-to-nowhere-succeeds", "SEND-003", reply=succeeds("msg.send", "mailbox_not_found", msg_id=0)),
    Mutant("key-ignored", "SEND-004", request=without_header("mq9-key")),
    Mutant("delay-ignored", "SEND-006", request=without_header("mq9-delay")),
    Mutant("ttl-ignored", "SEND-008", request=without_header("mq9-ttl")),
    Mutant("dedup-id-ignored", "SEND-009", request=without_header("mq9-dedup-id")),
    Mutant("tags-forgotten", "QUERY-002", request=without_header("mq9-tags")),
    Mutant(
        "create-of-a-living-name-succeeds",
        "CREATE-002",
        reply=succeeds("mailbox.create", "mailbox_exists", mail_address=...),
    ),
    Mutant("mailbox-ttl-ignored", "CREATE-004", request=without_field("mailbox.create", "ttl")),
    Mutant(
        "mailbox-delete-of-nothing-succeeds",
        "MBDELETE-001",
        reply=succeeds("mailbox.delete", "mailbox_not_found", deleted=True),
    ),
    Mutant("leased-counts-as-pending", "INFO-002", reply=for_replies("mailbox.info", _leased_as_pending)),
    Mutant("stateless-fetch-leaves-a-group", "FETCH-002", request=on("msg.fetch", _shadow_group)),
    Mutant("lease-without-a-group", "FETCH-003", request=on("msg.fetch", _no_lease_without_group)),
    Mutant("force-deliver-ignored", "FETCH-006", request=without_field("msg.fetch", "force_deliver")),
    Mutant("latest-is-earliest", "FETCH-007", request=on("msg.fetch", _from_the_beginning)),
    Mutant("from-time-ignored", "FETCH-008", request=on("msg.fetch", _every_time)),
    Mutant("from-id-exclusive", "FETCH-009", request=on("msg.fetch", _exclusive)),
    Mutant("fetch-never-waits", "FETCH-012", request=on("msg.fetch", _at_once)),
    Mutant("unacknowledged-never-again", "FETCH-017", reply=_delivered_once()),
    Mutant("lease-ignored", "FETCH-018", request=config_without("lease_ms")),
    Mutant("delivery-count-stuck", "FETCH-019", reply=messages(_count_one)),
    Mutant("one-group-for-all", "FETCH-020", request=_one_group),
    Mutant("lease-id-missing", "FETCH-021", reply=for_replies("msg.fetch", _no_lease_id)),
    Mutant("max-deliveries-ignored", "FETCH-022", request=without_field("mailbox.create", "max_deliveries")),
    Mutant("dead-letter-without-headers", "FETCH-023", reply=messages(_no_dead_letter_headers)),
    Mutant("ack-confirms-all-before", "ACK-002", request=on("msg.ack", _up_to)),
    Mutant("ack-of-a-batch-confirms-one", "ACK-003", request=on("msg.ack", _alone)),
    Mutant("msg-id-beside-msg-ids-counts", "ACK-004", request=on("msg.ack", _both)),
    Mutant("second-ack-fails", "ACK-005", reply=_acks_once()),
    Mutant("nack-delay-ignored", "NACK-002", request=without_field("msg.nack", "delay_ms")),
    Mutant("nack-lease-ignored", "NACK-003", request=without_field("msg.nack", "lease_id")),
    Mutant("renewal-is-short", "RENEW-001", request=on("msg.renew", _short_renewal)),
    Mutant("everything-is-renewed", "RENEW-002", reply=for_replies("msg.renew", _all_renewed)),
    Mutant("any-tag-will-do", "QUERY-002", request=on("msg.query", _one_tag)),
    Mutant("query-shows-the-oldest", "QUERY-003", request=on("msg.query", _oldest)),
    Mutant(
        "delete-of-nothing-succeeds",
        "DELETE-002",
        reply=succeeds("msg.delete", "message_not_found", deleted=True),
    ),
    Mutant("first-register-wins", "REGISTER-001", request=_first_body_wins()),
    Mutant("agent-ttl-ignored", "REGISTER-003", request=without_field("agent.register", "ttl")),
    Mutant("report-of-nobody-succeeds", "REPORT-002", reply=succeeds("agent.report", "agent_not_found")),
    Mutant("discover-repeats-the-first-page", "DISCOVER-004", request=_always_first_page),
    Mutant("code-missing", "REPLY-002", reply=_without_code),
    Mutant("text-of-an-error-changed", "REPLY-002", reply=_other_text),
    Mutant("success-without-error-field", "REPLY-001", reply=_without_error),
    Mutant("null-is-not-absent", "BODY-003", request=_nulls_refused),
    Mutant("first-of-equal-keys", "BODY-005", request=_first_key_counts),
    Mutant("any-address-in-the-body", "BODY-006", request=_any_address_in_body),
    Mutant("fractions-are-integers", "BODY-007", request=_whole_floats),
    Mutant("bounds-clamp", "BODY-008", request=on("msg.fetch", _clamped)),
    Mutant("last-header-value-counts", "HEADER-001", request=_last_value_counts),
    Mutant("header-names-in-lower-case", "HEADER-002", reply=messages(_lower_headers)),
    Mutant("first-value-of-a-header-kept", "HEADER-002", reply=messages(_first_header_value)),
    Mutant("unknown-priority-is-normal", "HEADER-003", request=_any_priority),
    Mutant("integers-with-a-sign", "HEADER-004", request=_signed_integers),
    Mutant("seconds-are-milliseconds", "TIME-002", reply=messages(_milliseconds)),
    Mutant("needs-a-reply-subject", "TRANSPORT-002", request=_needs_reply),
    Mutant("requests-are-visible", "TRANSPORT-003", install=_requests_are_visible),
    Mutant("replies-go-everywhere", "TRANSPORT-004", install=_replies_go_everywhere),
    Mutant("unknown-subject-is-ignored", "TRANSPORT-005", request=_silent_on_unknown),
    Mutant("no-no-responders", "TRANSPORT-006", install=_no_no_responders),
    Mutant("four-frames-a-read", "TRANSPORT-008", install=_four_frames_a_read),
    Mutant("forgets-on-restart", "DURABLE-001", install=_forgets_on_restart),
]
