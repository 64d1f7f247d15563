"""Every operation of the protocol, as the broker's router and decoder read it."""

from __future__ import annotations

from typing import Final

from mq9_broker._generated import commands
from mq9_broker.shell.description import Field, Operation, RequireAny, Text, WhenPresent

_MAIL_ADDRESS: Final = Text(
    min_length=1,
    max_length=128,
    chars="a-z0-9.",
    first="a-z0-9",
    last="a-z0-9",
    forbid=("..",),
    code="invalid_mail_address",
)
_NAME: Final = Text(min_bytes=1, max_bytes=256, no_control=True)
_TAG: Final = Text(min_bytes=1, max_bytes=256, no_control=True, forbid=(",",))
_AGENT_NAME: Final = Text(min_bytes=1, max_bytes=1024)
_SHORT_TEXT: Final = Text(max_bytes=1024)
_BIG = 9223372036854775807
_ADDRESS = Field(name="mail_address", path=("mail_address",), kind="address", required=True, text=_MAIL_ADDRESS)
_GROUP = Field(name="group_name", path=("group_name",), kind="string", required=True, text=_NAME)
_ID = Field(name="msg_id", path=("msg_id",), kind="integer", minimum=0, maximum=_BIG)
_IDS = Field(
    name="msg_ids", path=("msg_ids",), kind="list", required=True, item=_ID, min_items=1, max_items=1000, default=()
)
_LEASE = Field(name="lease_id", path=("lease_id",), kind="string", default="")


def _int(name, low, high, default=None, path=None, required=False, only_when=None):
    return Field(
        name=name,
        path=path or (name,),
        kind="integer",
        minimum=low,
        maximum=high,
        default=default,
        required=required,
        only_when=only_when,
    )


def _str(name, text=None, required=False, default="", values=()):
    return Field(
        name=name, path=(name,), kind="string", text=text, required=required, default=default, values=values
    )


OPERATIONS = (
    Operation(
        name="mailbox.create",
        subject=b"$mq9.AI.MAILBOX.CREATE",
        effect="write",
        partition="name",
        command=commands.MailboxCreate,
        body="json",
        fields=(
            Field(name="name", path=("name",), kind="address", text=_MAIL_ADDRESS, default=b""),
            _int("ttl", 0, 4294967295, 0),
            _str("desc", _SHORT_TEXT),
            _int("max_deliveries", 0, 1000, 0),
            Field(name="dead_letter", path=("dead_letter",), kind="address", text=_MAIL_ADDRESS, default=b""),
        ),
    ),
    Operation(
        name="mailbox.info",
        subject=b"$mq9.AI.MAILBOX.INFO",
        subject_fields=(_ADDRESS,),
        effect="read",
        partition="mail_address",
        command=commands.MailboxInfo,
    ),
    Operation(
        name="mailbox.delete",
        subject=b"$mq9.AI.MAILBOX.DELETE",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=commands.MailboxDelete,
    ),
    Operation(
        name="msg.send",
        subject=b"$mq9.AI.MSG.SEND",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=None,
        body="payload",
        headers=(
            Field(
                name="priority",
                path=("mq9-priority",),
                kind="string",
                default="normal",
                values=("critical", "urgent", "normal"),
            ),
            Field(name="key", path=("mq9-key",), kind="string", default="", text=_NAME),
            _int("delay", 0, 4294967295, 0, ("mq9-delay",)),
            _int("ttl", 0, 4294967295, 0, ("mq9-ttl",)),
            Field(
                name="tags",
                path=("mq9-tags",),
                kind="list",
                default=(),
                item=_str("tags", _TAG),
                max_items=64,
                distinct=True,
                join=True,
            ),
            Field(name="dedup_id", path=("mq9-dedup-id",), kind="string", default="", text=_NAME),
        ),
    ),
    Operation(
        name="msg.fetch",
        subject=b"$mq9.AI.MSG.FETCH",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=commands.MsgFetch,
        body="json",
        fields=(
            _str("group_name", _NAME),
            _str("deliver", default="latest", values=("latest", "earliest", "from_time", "from_id")),
            _int("from_time", 0, _BIG, only_when=("deliver", "from_time")),
            _int("from_id", 0, _BIG, only_when=("deliver", "from_id")),
            Field(name="force_deliver", path=("force_deliver",), kind="boolean", default=False),
            _int("num_msgs", 1, 1000, 100, ("config", "num_msgs")),
            _int("max_wait_ms", 0, 300000, 500, ("config", "max_wait_ms")),
            _int("lease_ms", 0, 43200000, 0, ("config", "lease_ms")),
        ),
        rules=(WhenPresent(name="lease_ms", requires="group_name", fails_on="lease_ms"),),
    ),
    Operation(
        name="msg.ack",
        subject=b"$mq9.AI.MSG.ACK",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=commands.MsgAck,
        body="json",
        fields=(
            _GROUP,
            _ID,
            Field(name="msg_ids", path=("msg_ids",), kind="list", item=_ID, max_items=1000, default=()),
        ),
        same_as_subject=("mail_address",),
        rules=(RequireAny(names=("msg_ids", "msg_id"), fails_on="msg_id"),),
    ),
    Operation(
        name="msg.nack",
        subject=b"$mq9.AI.MSG.NACK",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=commands.MsgNack,
        body="json",
        fields=(_GROUP, _IDS, _LEASE, _int("delay_ms", 0, 86400000, 0)),
        same_as_subject=("mail_address",),
    ),
    Operation(
        name="msg.renew",
        subject=b"$mq9.AI.MSG.RENEW",
        subject_fields=(_ADDRESS,),
        effect="write",
        partition="mail_address",
        command=commands.MsgRenew,
        body="json",
        fields=(_GROUP, _IDS, _LEASE, _int("lease_ms", 0, 43200000, required=True)),
        same_as_subject=("mail_address",),
    ),
    Operation(
        name="msg.query",
        subject=b"$mq9.AI.MSG.QUERY",
        subject_fields=(_ADDRESS,),
        effect="read",
        partition="mail_address",
        command=commands.MsgQuery,
        body="json",
        fields=(
            _str("key", _NAME),
            Field(
                name="tags",
                path=("tags",),
                kind="list",
                item=_str("tags", _TAG),
                max_items=64,
                distinct=True,
                default=(),
            ),
            _int("since", 0, _BIG),
            _int("limit", 1, 1000, 100),
            _int("from_id", 0, _BIG),
        ),
    ),
    Operation(
        name="msg.delete",
        subject=b"$mq9.AI.MSG.DELETE",
        subject_fields=(_ADDRESS, _ID),
        effect="write",
        partition="mail_address",
        command=commands.MsgDelete,
    ),
    Operation(
        name="agent.register",
        subject=b"$mq9.AI.AGENT.REGISTER",
        effect="write",
        partition="registry",
        command=commands.AgentRegister,
        body="json",
        max_body=262144,
        fields=(
            _str("name", _AGENT_NAME, required=True),
            _str("mailbox"),
            _int("ttl", 0, 4294967295, 0),
        ),
        open_body="card",
    ),
    Operation(
        name="agent.unregister",
        subject=b"$mq9.AI.AGENT.UNREGISTER",
        effect="write",
        partition="registry",
        command=commands.AgentUnregister,
        body="json",
        fields=(_str("name", _AGENT_NAME), _str("mailbox")),
        rules=(RequireAny(names=("name", "mailbox"), fails_on="name"),),
    ),
    Operation(
        name="agent.report",
        subject=b"$mq9.AI.AGENT.REPORT",
        effect="write",
        partition="registry",
        command=commands.AgentReport,
        body="json",
        max_body=4096,
        fields=(_str("name", _AGENT_NAME), _str("mailbox")),
        rules=(RequireAny(names=("name", "mailbox"), fails_on="name"),),
        open_body="status",
    ),
    Operation(
        name="agent.discover",
        subject=b"$mq9.AI.AGENT.DISCOVER",
        effect="read",
        partition="registry",
        command=commands.AgentDiscover,
        body="json",
        fields=(
            _str("text"),
            _str("semantic"),
            _int("limit", 1, 100, 20),
            _int("page", 1, 1000000, 1),
            _str("cursor"),
        ),
    ),
)
