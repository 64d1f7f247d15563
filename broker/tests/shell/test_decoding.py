"""From subject, headers and body to a command, or to the error that the rules of the protocol ask for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker._generated import commands
from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.engine.commands import LANE_CRITICAL, LANE_NORMAL, LANE_URGENT, SendOptions
from mq9_broker.shell.headers import HeaderDecoder
from mq9_broker.shell.refusal import RefusedError

from .decoding import BY_NAME, DECODERS, GENERATED, ROUTER, decode, headers, long_way

BIG = 2**63 - 1
ADDRESS = "a." + "b" * 126


def fetch(address: bytes = b"a.b", **options: Any) -> commands.MsgFetch:
    return commands.MsgFetch(address, **options)


@pytest.mark.parametrize(
    ("subject", "body", "command"),
    [
        ("MAILBOX.CREATE", b"", commands.MailboxCreate(GENERATED.encode())),
        ("MAILBOX.CREATE", {"name": ""}, commands.MailboxCreate(GENERATED.encode())),
        ("MAILBOX.CREATE", {"name": None, "ttl": None}, commands.MailboxCreate(GENERATED.encode())),
        ("MAILBOX.CREATE", {"name": "q", "ttl": 4294967295}, commands.MailboxCreate(b"q", 4294967295)),
        ("MAILBOX.CREATE", {"name": "q", "dead_letter": ""}, commands.MailboxCreate(b"q")),
        (
            "MAILBOX.CREATE",
            {"name": "q", "dead_letter": "d.l"},
            commands.MailboxCreate(b"q", dead_letter=b"d.l"),
        ),
        ("MAILBOX.CREATE", {"name": ADDRESS}, commands.MailboxCreate(ADDRESS.encode())),
        ("MAILBOX.CREATE", {"name": "q", "desc": "é" * 512}, commands.MailboxCreate(b"q", desc="é" * 512)),
        ("MAILBOX.CREATE", {"name": "q", "unknown": [1, {}]}, commands.MailboxCreate(b"q")),
        ("MAILBOX.CREATE", b'{"name":"x!","name":"q"}', commands.MailboxCreate(b"q")),
        ("MAILBOX.INFO.a.b", b"not json, and ignored", commands.MailboxInfo(b"a.b")),
        ("MAILBOX.DELETE.a", b'""', commands.MailboxDelete(b"a")),
        ("MSG.DELETE.a.b.7", b'""', commands.MsgDelete(b"a.b", 7)),
        (f"MSG.DELETE.a.b.{BIG}", b"", commands.MsgDelete(b"a.b", BIG)),
        ("MSG.DELETE.a.007", b"", commands.MsgDelete(b"a", 7)),
        ("MSG.FETCH.a.b", b"", fetch()),
        ("MSG.FETCH.a.b", {}, fetch()),
        ("MSG.FETCH.a.b", {"group_name": "", "deliver": "", "config": None}, fetch()),
        ("MSG.FETCH.a.b", {"config": {"num_msgs": None, "max_wait_ms": 0}}, fetch(max_wait_ms=0)),
        ("MSG.FETCH.a.b", {"deliver": "from_id", "from_id": 0}, fetch(deliver="from_id", from_id=0)),
        ("MSG.FETCH.a.b", {"deliver": "from_id", "from_id": BIG}, fetch(deliver="from_id", from_id=BIG)),
        (
            "MSG.FETCH.a.b",
            {"deliver": "earliest", "from_id": "x", "from_time": -1},
            fetch(deliver="earliest"),
        ),
        (
            "MSG.FETCH.a.b",
            {"deliver": "from_time", "from_time": 5, "from_id": []},
            fetch(deliver="from_time", from_time=5),
        ),
        ("MSG.FETCH.a.b", {"config": {"lease_ms": 0}}, fetch()),
        ("MSG.FETCH.a.b", {"force_deliver": True}, fetch(force_deliver=True)),
        (
            "MSG.FETCH.a.b",
            {"group_name": "g h", "config": {"num_msgs": 1000, "lease_ms": 43200000, "max_wait_ms": 300000}},
            fetch(group_name="g h", num_msgs=1000, lease_ms=43200000, max_wait_ms=300000),
        ),
        ("MSG.FETCH.a.b", {"group_name": "组" * 85}, fetch(group_name="组" * 85)),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": 0}, commands.MsgAck(b"a", "g", 0)),
        (
            "MSG.ACK.a",
            {"group_name": "g", "msg_id": None, "msg_ids": [3]},
            commands.MsgAck(b"a", "g", None, (3,)),
        ),
        (
            "MSG.ACK.a",
            {"group_name": "g", "msg_id": 1, "msg_ids": [2, 3]},
            commands.MsgAck(b"a", "g", 1, (2, 3)),
        ),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": 1, "mail_address": "a"}, commands.MsgAck(b"a", "g", 1)),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": 1, "mail_address": ""}, commands.MsgAck(b"a", "g", 1)),
        ("MSG.ACK.a", b'{"group_name":"g","msg_id":-0}', commands.MsgAck(b"a", "g", 0)),
        (
            "MSG.NACK.a",
            {"group_name": "g", "msg_ids": [BIG], "lease_id": None, "delay_ms": 86400000},
            commands.MsgNack(b"a", "g", (BIG,), "", 86400000),
        ),
        (
            "MSG.RENEW.a",
            {"group_name": "g", "msg_ids": [1, 1], "lease_id": "L", "lease_ms": 0},
            commands.MsgRenew(b"a", "g", (1, 1), 0, "L"),
        ),
        ("MSG.QUERY.a", b"", commands.MsgQuery(b"a")),
        ("MSG.QUERY.a", {"key": "", "tags": [], "limit": 1}, commands.MsgQuery(b"a", limit=1)),
        ("MSG.QUERY.a", {"tags": ["x", "y", "x"]}, commands.MsgQuery(b"a", tags=("x", "y"))),
        ("MSG.QUERY.a", {"tags": ["x"] * 65}, commands.MsgQuery(b"a", tags=("x",))),
        ("MSG.QUERY.a", {"key": "k", "since": 0, "from_id": 0}, commands.MsgQuery(b"a", "k", (), 0, 100, 0)),
        (
            "AGENT.REGISTER",
            b'{"name":"n","mailbox":"M B","ttl":60,"x":9007199254740993.0,"payload":[1]}',
            commands.AgentRegister(
                "n", "M B", 60, b'{"name":"n","mailbox":"M B","ttl":60,"x":9007199254740993.0,"payload":[1]}'
            ),
        ),
        (
            "AGENT.REGISTER",
            b'{"name":"n","size":1e999}',
            commands.AgentRegister("n", card=b'{"name":"n","size":1e999}'),
        ),
        ("AGENT.UNREGISTER", {"name": "", "mailbox": "m"}, commands.AgentUnregister("", "m")),
        (
            "AGENT.REPORT",
            b'{"name":"n","report_info":5}',
            commands.AgentReport("n", "", b'{"name":"n","report_info":5}'),
        ),
        ("AGENT.DISCOVER", b"", commands.AgentDiscover()),
        (
            "AGENT.DISCOVER",
            {"text": "a", "limit": 100, "page": 1000000},
            commands.AgentDiscover("a", "", 100, 1000000),
        ),
    ],
)
def test_a_good_request_becomes_its_command(subject: str, body: Any, command: Any) -> None:
    assert decode(subject, body) == command


@pytest.mark.parametrize(
    ("subject", "body", "field"),
    [
        ("MAILBOX.CREATE", {"ttl": -1}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": 4294967296}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": 2**63}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": 10**400}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": 1.0}, "ttl"),
        ("MAILBOX.CREATE", b'{"ttl":1e3}', "ttl"),
        ("MAILBOX.CREATE", {"ttl": "5"}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": ""}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": True}, "ttl"),
        ("MAILBOX.CREATE", {"ttl": []}, "ttl"),
        ("MAILBOX.CREATE", b'{"ttl":1e999}', "ttl"),
        ("MAILBOX.CREATE", b'{"ttl":' + b"9" * 6000 + b"}", "ttl"),
        ("MAILBOX.CREATE", {"max_deliveries": 1001}, "max_deliveries"),
        ("MAILBOX.CREATE", {"desc": "é" * 513}, "desc"),
        ("MAILBOX.CREATE", {"desc": 5}, "desc"),
        ("MAILBOX.CREATE", {"name": 5}, "name"),
        ("MAILBOX.CREATE", {"name": "a", "dead_letter": ["d"]}, "dead_letter"),
        ("MSG.FETCH.a", {"deliver": "newest"}, "deliver"),
        ("MSG.FETCH.a", {"deliver": 5}, "deliver"),
        ("MSG.FETCH.a", {"deliver": "from_id"}, "from_id"),
        ("MSG.FETCH.a", {"deliver": "from_id", "from_id": None}, "from_id"),
        ("MSG.FETCH.a", {"deliver": "from_id", "from_id": 2**63}, "from_id"),
        ("MSG.FETCH.a", {"deliver": "from_time", "from_time": -1}, "from_time"),
        ("MSG.FETCH.a", {"force_deliver": 1}, "force_deliver"),
        ("MSG.FETCH.a", {"force_deliver": "true"}, "force_deliver"),
        ("MSG.FETCH.a", {"group_name": "a\tb"}, "group_name"),
        ("MSG.FETCH.a", {"group_name": "a\x85b"}, "group_name"),
        ("MSG.FETCH.a", {"group_name": "a\x7f"}, "group_name"),
        ("MSG.FETCH.a", {"group_name": "g" * 257}, "group_name"),
        ("MSG.FETCH.a", {"group_name": "组" * 86}, "group_name"),
        ("MSG.FETCH.a", {"group_name": ["g"]}, "group_name"),
        ("MSG.FETCH.a", {"config": []}, "config"),
        ("MSG.FETCH.a", {"config": {"num_msgs": 0}}, "config.num_msgs"),
        ("MSG.FETCH.a", {"config": {"num_msgs": 1001}}, "config.num_msgs"),
        ("MSG.FETCH.a", {"config": {"max_wait_ms": 300001}}, "config.max_wait_ms"),
        ("MSG.FETCH.a", {"config": {"lease_ms": 5}}, "lease_ms"),
        ("MSG.FETCH.a", {"group_name": "", "config": {"lease_ms": 5}}, "lease_ms"),
        ("MSG.ACK.a", {"group_name": "g"}, "msg_id"),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": -1}, "msg_id"),
        ("MSG.ACK.a", {"msg_id": 1}, "group_name"),
        ("MSG.ACK.a", {"group_name": "", "msg_id": 1}, "group_name"),
        ("MSG.ACK.a", {"group_name": None, "msg_id": 1}, "group_name"),
        ("MSG.ACK.a", {"group_name": "g", "msg_ids": list(range(1001))}, "msg_ids"),
        ("MSG.ACK.a", {"group_name": "g", "msg_ids": [1, 2.0]}, "msg_ids"),
        ("MSG.ACK.a", {"group_name": "g", "msg_ids": 1}, "msg_ids"),
        ("MSG.ACK.a", {"group_name": "g", "msg_ids": [2**63]}, "msg_ids"),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": 1, "mail_address": "b"}, "mail_address"),
        ("MSG.ACK.a", {"group_name": "g", "msg_id": 1, "mail_address": 5}, "mail_address"),
        ("MSG.NACK.a", {"group_name": "g"}, "msg_ids"),
        ("MSG.NACK.a", {"group_name": "g", "msg_ids": []}, "msg_ids"),
        ("MSG.NACK.a", {"group_name": "g", "msg_ids": [1], "delay_ms": 86400001}, "delay_ms"),
        ("MSG.RENEW.a", {"group_name": "g", "msg_ids": [1]}, "lease_ms"),
        ("MSG.RENEW.a", {"group_name": "g", "msg_ids": [1], "lease_ms": 43200001}, "lease_ms"),
        ("MSG.QUERY.a", {"limit": 0}, "limit"),
        ("MSG.QUERY.a", {"tags": [""]}, "tags"),
        ("MSG.QUERY.a", {"tags": [f"t{i}" for i in range(65)]}, "tags"),
        ("MSG.DELETE.a.b", b"", "msg_id"),
        ("MSG.DELETE.a.-1", b"", "msg_id"),
        ("MSG.DELETE.a.1_0", b"", "msg_id"),
        ("MSG.DELETE.a.٣", b"", "msg_id"),
        ("MSG.DELETE.a.9223372036854775808", b"", "msg_id"),
        ("MSG.DELETE.a.00000000000000000001", b"", "msg_id"),
        ("AGENT.REGISTER", b"", "name"),
        ("AGENT.REGISTER", {"name": ""}, "name"),
        ("AGENT.REGISTER", {"name": 5}, "name"),
        ("AGENT.REGISTER", {"name": "n" * 1025}, "name"),
        ("AGENT.UNREGISTER", {"name": None, "mailbox": ""}, "name"),
        ("AGENT.REPORT", {"load": 1}, "name"),
        ("AGENT.DISCOVER", {"limit": 101}, "limit"),
        ("AGENT.DISCOVER", {"page": 0}, "page"),
        ("MAILBOX.CREATE", b"{", "body"),
        ("MAILBOX.CREATE", b" ", "body"),
        ("MAILBOX.CREATE", b"[]", "body"),
        ("MAILBOX.CREATE", b'""', "body"),
        ("MAILBOX.CREATE", b"null", "body"),
        ("MAILBOX.CREATE", b"{} {}", "body"),
        ("MAILBOX.CREATE", b'{"x":NaN}', "body"),
        ("MAILBOX.CREATE", b'{"x":"\xff"}', "body"),
        ("MAILBOX.CREATE", b'{"x":"\\ud800"}', "body"),
        ("MAILBOX.CREATE", b'{"y":1e999,"x":"\\ud800"}', "body"),
        ("MAILBOX.CREATE", b'{"y":1e999,"x":Infinity}', "body"),
        ("MAILBOX.CREATE", b'{"x":' + b"[" * 64 + b"]" * 64 + b"}", "body"),
        ("MAILBOX.CREATE", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "body"),
        ("MSG.FETCH.a", b'{"x":"\xff"}', "body"),
        ("MSG.FETCH.a", b'{"x":' + b"[" * 64 + b"]" * 64 + b"}", "body"),
        ("MSG.FETCH.a", b'{"config":{"x":' + b"[" * 63 + b"]" * 63 + b"}}", "body"),
    ],
)
def test_a_bad_value_is_invalid_argument_and_names_the_field(subject: str, body: Any, field: str) -> None:
    reply = decode(subject, body)
    assert reply["code"] == "invalid_argument"
    assert reply["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "address",
    ["", "A", "a..b", ".a", "a.", "a b", "a*", ">", "a_b", "é", "a" * 129, "a\x00"],
)
@pytest.mark.parametrize(
    "operation", ["MAILBOX.INFO", "MAILBOX.DELETE", "MSG.SEND", "MSG.FETCH", "MSG.ACK", "MSG.QUERY"]
)
def test_a_malformed_address_in_the_subject(operation: str, address: str) -> None:
    # Even a body that is no JSON comes second.
    reply = decode(f"{operation}.{address}", b"{")
    assert reply["code"] == "invalid_mail_address"
    assert reply["error"].startswith("invalid mail_address: ")


@pytest.mark.parametrize("subject", ["MSG.SEND", "MSG.FETCH", "MAILBOX.INFO", "MSG.DELETE", "MSG.DELETE.5"])
def test_an_address_missing_in_the_subject(subject: str) -> None:
    assert decode(subject)["code"] == "invalid_mail_address"


@pytest.mark.parametrize(
    "body", [{"name": "A"}, {"name": "a", "dead_letter": "a..b"}, {"dead_letter": "x" * 129}]
)
def test_a_malformed_address_in_the_body(body: Any) -> None:
    assert decode("MAILBOX.CREATE", {"ttl": -1, **body})["code"] == "invalid_mail_address"


@pytest.mark.parametrize(
    "subject",
    ["", "MSG", "MSG.PEEK.a", "MAILBOX.CREATE.a", "AGENT.REGISTER.x", "MSG.SENDER.a", "msg.send.a", "\x00"],
)
def test_an_unknown_subject_is_unsupported(subject: str) -> None:
    assert decode(subject, b"{")["code"] == "unsupported_operation"


def test_bodies_have_bounds() -> None:
    card = b'{"name":"n","x":"%b"}' % (b"x" * (262144 - 19))
    assert len(card) == 262144
    assert decode("AGENT.REGISTER", card) == commands.AgentRegister("n", card=card)
    assert decode("AGENT.REGISTER", card + b" ")["code"] == "payload_too_large"
    assert decode("AGENT.REGISTER", b"x" * 262145)["code"] == "payload_too_large"
    assert decode("AGENT.REPORT", b'{"name":"n"}' + b" " * (4096 - 12)) != {}
    assert decode("AGENT.REPORT", b'{"name":"n"}' + b" " * (4096 - 11))["code"] == "payload_too_large"


def test_a_body_may_be_nested_64_deep() -> None:
    assert decode("MSG.FETCH.a", b'{"x":' + b"[" * 63 + b"]" * 63 + b"}") == fetch(b"a")
    # Brackets in a string do not count.
    assert decode("MSG.FETCH.a", b'{"x":"' + b"[" * 100 + b'"}') == fetch(b"a")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (LANE_NORMAL, b"", None)),
        ([b"mq9-priority: critical"], (LANE_CRITICAL, b"", None)),
        ([b"MQ9-Priority:  urgent \t"], (LANE_URGENT, b"", None)),
        ([b"mq9-priority:"], (LANE_NORMAL, b"", None)),
        ([b"mq9-priority:", b"mq9-priority: urgent"], (LANE_NORMAL, b"", None)),
        ([b"mq9-key: a b", b"Mq9-Key: second"], (LANE_NORMAL, b"", SendOptions(key="a b"))),
        ([b"mq9-delay: 4294967295"], (LANE_NORMAL, b"", SendOptions(delay_s=4294967295))),
        ([b"mq9-delay: 0", b"mq9-ttl: 0"], (LANE_NORMAL, b"", None)),
        ([b"mq9-ttl: 0000000000000000060"], (LANE_NORMAL, b"", SendOptions(ttl_s=60))),
        ([b"mq9-tags: b, a,,b ,"], (LANE_NORMAL, b"", SendOptions(tags=("b", "a")))),
        ([b"mq9-tags: a", b"MQ9-TAGS: b,a"], (LANE_NORMAL, b"", SendOptions(tags=("a", "b")))),
        ([b"mq9-tags: , ,"], (LANE_NORMAL, b"", None)),
        ([b"mq9-tags: " + b"x," * 100], (LANE_NORMAL, b"", SendOptions(tags=("x",)))),
        ([b"mq9-dedup-id: d"], (LANE_NORMAL, b"", SendOptions(dedup_id="d"))),
        (["mq9-key: schlüssel".encode()], (LANE_NORMAL, b"", SendOptions(key="schlüssel"))),
        (
            [b"X-Trace: 1", b"X-Trace:2", b"x-trace: 3"],
            (LANE_NORMAL, b'{"X-Trace":["1","2"],"x-trace":["3"]}', None),
        ),
        (
            ["mq9-\u212aey: kelvin".encode()],
            (LANE_NORMAL, '{"mq9-\u212aey":["kelvin"]}'.encode(), None),
        ),
        (
            [b"mq9-reply-to: me", b"mq9-new: x"],
            (LANE_NORMAL, b'{"mq9-reply-to":["me"],"mq9-new":["x"]}', None),
        ),
        ([b"Empty:", b"Blank:  "], (LANE_NORMAL, b'{"Empty":[""],"Blank":[""]}', None)),
        ([b"a:b:c"], (LANE_NORMAL, b'{"a":["b:c"]}', None)),
    ],
)
def test_good_headers(lines: list[bytes], expected: Any) -> None:
    assert headers(*lines) == expected


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([b"mq9-priority: high"], "mq9-priority"),
        ([b"mq9-priority: Urgent"], "mq9-priority"),
        ([b"mq9-delay: soon"], "mq9-delay"),
        ([b"mq9-delay: 4294967296"], "mq9-delay"),
        ([b"mq9-delay: 9223372036854775808"], "mq9-delay"),
        ([b"mq9-delay: 00000000000000000001"], "mq9-delay"),
        ([b"mq9-delay: 1_0"], "mq9-delay"),
        ([b"mq9-delay: +1"], "mq9-delay"),
        ([b"mq9-delay: 1.0"], "mq9-delay"),
        (["mq9-delay: ٣".encode()], "mq9-delay"),
        (["mq9-ttl: ²".encode()], "mq9-ttl"),
        ([b"mq9-ttl: -1"], "mq9-ttl"),
        ([b"mq9-key: " + b"k" * 257], "mq9-key"),
        ([b"mq9-key: a\tb"], "mq9-key"),
        ([b"mq9-dedup-id: " + b"d" * 257], "mq9-dedup-id"),
        ([b"mq9-tags: " + b",".join(b"t%d" % i for i in range(65))], "mq9-tags"),
        ([b"mq9-tags: " + b"t" * 257], "mq9-tags"),
        ([b"x: \xff"], "headers"),
        ([b"no colon"], "headers"),
    ],
)
def test_bad_headers_are_invalid_argument(lines: list[bytes], field: str) -> None:
    reply = headers(*lines)
    assert isinstance(reply, dict)
    assert reply["code"] == "invalid_argument"
    assert reply["error"].startswith(f"{field}: ")


@pytest.mark.parametrize("block", [b"abcde", b"", b"GARBAGE\r\na: b\r\n\r\n", b"a: b\r\n\r\n"])
def test_a_header_block_without_its_first_line_is_an_invalid_argument(block: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        HeaderDecoder(BY_NAME["msg.send"]).decode(block)
    assert json.loads(refused.value.reply)["error"].startswith("headers: begin with ")


# Any request at all is a command of its operation or an error with a code, and short cuts change nothing.

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["", "a", "g", "latest", "earliest", "from_id", "a..b", "x" * 300, "组"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLAUSIBLE = {
    "string": st.sampled_from(["", "a", "g", "latest", "earliest", "from_id", "x" * 300, "组", "a\nb"]),
    "address": st.sampled_from(["", "a", "a.b", "A", "a..b", "x" * 129]),
    "integer": st.sampled_from([0, 1, 2, 100, 1000, 1001, BIG, BIG + 1, -1]),
    "boolean": st.booleans(),
    "list": st.lists(st.sampled_from([0, 1, BIG, BIG + 1, "t", "u", ""]), max_size=3),
}
SUBJECTS = {
    name: operation.subject.decode()[len("$mq9.AI.") :]
    + "".join(".a" if f.kind == "address" else ".7" for f in operation.subject_fields)
    for name, operation in BY_NAME.items()
}


@st.composite
def plausible_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    name = draw(st.sampled_from(sorted(DECODERS)))
    body: dict[str, Any] = {}
    for field in BY_NAME[name].fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        place = body
        for step in field.path[:-1]:
            place = place.setdefault(step, {})
        place[field.path[-1]] = draw(JSON_VALUES if draw(st.integers(0, 5)) == 0 else PLAUSIBLE[field.kind])
    if draw(st.integers(0, 3)) == 0:
        body["mail_address"] = draw(st.sampled_from(["a", "b", "", None, 5]))
    if draw(st.integers(0, 3)) == 0:
        body[draw(st.text(max_size=3))] = draw(JSON_VALUES)
    return name, json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@given(plausible_bodies())
def test_any_object_is_a_command_or_an_error(request_: tuple[str, bytes]) -> None:
    name, body = request_
    result = decode(SUBJECTS[name], body)
    if isinstance(result, dict):
        assert result["error"]
        assert result["code"] in ("invalid_argument", "invalid_mail_address")
    else:
        assert type(result) is BY_NAME[name].command


@given(
    st.sampled_from(sorted(DECODERS)),
    st.binary(max_size=40) | JSON_VALUES.map(lambda v: json.dumps(v).encode()),
)
def test_any_bytes_are_a_command_or_an_error(name: str, body: bytes) -> None:
    result = decode(SUBJECTS[name], body)
    assert type(result) is BY_NAME[name].command or result["code"] in (
        "invalid_argument",
        "invalid_mail_address",
    )


@given(st.binary(max_size=60))
def test_any_header_block_is_read_or_refused(block: bytes) -> None:
    result = headers(block)
    assert isinstance(result, tuple) or result["code"] == "invalid_argument"


SUBJECT_TAILS = st.text(max_size=30) | st.builds(
    "{}.{}".format, st.sampled_from(["MSG.SEND", "MSG.DELETE", "MAILBOX.INFO"]), st.text(max_size=20)
)


@given(SUBJECT_TAILS)
def test_any_subject_is_routed_or_refused(tail: str) -> None:
    try:
        route = ROUTER.route(b"$mq9.AI." + tail.encode("utf-8", "surrogatepass"))
    except RefusedError as refused:
        code = json.loads(refused.reply)["code"]
        assert code in ("invalid_argument", "invalid_mail_address", "unsupported_operation")
    else:
        assert route.operation in OPERATIONS


def test_common_bodies_take_the_short_cut() -> None:
    for name, body in [
        (
            "msg.fetch",
            b'{"group_name":"g","deliver":"earliest","config":{"num_msgs":100,"max_wait_ms":0,"lease_ms":30000}}',
        ),
        ("msg.fetch", b""),
        ("msg.ack", b'{"group_name":"g","mail_address":"a","msg_id":5}'),
        ("msg.ack", b'{"group_name":"g","msg_ids":[1,2,3]}'),
        ("msg.nack", b'{"group_name":"g","msg_ids":[1],"lease_id":"L","delay_ms":5}'),
        ("msg.renew", b'{"group_name":"g","msg_ids":[1],"lease_id":"L","lease_ms":5}'),
        ("msg.query", b'{"limit":5}'),
    ]:
        assert DECODERS[name].shortcut(b"a", body) == long_way(SUBJECTS[name], body)


def test_the_router_forgets_subjects_rather_than_grow() -> None:
    for number in range(70_000):
        ROUTER.route(b"$mq9.AI.MSG.SEND.box%d" % number)
    assert len(ROUTER.remembered) <= 65_536
