"""The command of each operation: its validated arguments, as the engine gets them.

Defaults are filled in. A string or address that was left out is empty, an integer without default is None, a list is
empty. `address` is the mailbox (or the name to create). The tag in the byte form is the operation's name.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class AgentDiscover(Struct, frozen=True, array_like=True, gc=False, tag="agent.discover"):
    """Finds agents by keyword, by meaning, or all of them."""

    text: str = ""
    semantic: str = ""
    limit: int = 20
    page: int = 1
    cursor: str = ""


class AgentRegister(Struct, frozen=True, array_like=True, gc=False, tag="agent.register"):
    """Puts an agent into the registry, or replaces it."""

    name: str
    mailbox: str = ""
    ttl: int = 0
    card: bytes = b"{}"


class AgentReport(Struct, frozen=True, array_like=True, gc=False, tag="agent.report"):
    """Reports that an agent lives, and how it is."""

    name: str = ""
    mailbox: str = ""
    status: bytes = b"{}"


class AgentUnregister(Struct, frozen=True, array_like=True, gc=False, tag="agent.unregister"):
    """Takes an agent out of the registry."""

    name: str = ""
    mailbox: str = ""


class MailboxCreate(Struct, frozen=True, array_like=True, gc=False, tag="mailbox.create"):
    """Creates a mailbox."""

    address: bytes
    ttl: int = 0
    desc: str = ""
    max_deliveries: int = 0
    dead_letter: bytes = b""


class MailboxDelete(Struct, frozen=True, array_like=True, gc=False, tag="mailbox.delete"):
    """Deletes a mailbox with everything in it."""

    address: bytes


class MailboxInfo(Struct, frozen=True, array_like=True, gc=False, tag="mailbox.info"):
    """Tells what is known of a mailbox."""

    address: bytes


class MsgAck(Struct, frozen=True, array_like=True, gc=False, tag="msg.ack"):
    """Confirms messages for a consumer group."""

    address: bytes
    group_name: str
    msg_id: int | None = None
    msg_ids: tuple[int, ...] = ()


class MsgDelete(Struct, frozen=True, array_like=True, gc=False, tag="msg.delete"):
    """Deletes one message for everybody."""

    address: bytes
    msg_id: int


class MsgFetch(Struct, frozen=True, array_like=True, gc=False, tag="msg.fetch"):
    """Takes messages out of a mailbox, or waits for them."""

    address: bytes
    group_name: str = ""
    deliver: str = "latest"
    from_time: int | None = None
    from_id: int | None = None
    force_deliver: bool = False
    num_msgs: int = 100
    max_wait_ms: int = 500
    lease_ms: int = 0


class MsgNack(Struct, frozen=True, array_like=True, gc=False, tag="msg.nack"):
    """Gives delivered messages back to their consumer group."""

    address: bytes
    group_name: str
    msg_ids: tuple[int, ...]
    lease_id: str = ""
    delay_ms: int = 0


class MsgQuery(Struct, frozen=True, array_like=True, gc=False, tag="msg.query"):
    """Looks at the messages of a mailbox without taking any."""

    address: bytes
    key: str = ""
    tags: tuple[str, ...] = ()
    since: int | None = None
    limit: int = 100
    from_id: int | None = None


class MsgRenew(Struct, frozen=True, array_like=True, gc=False, tag="msg.renew"):
    """Keeps delivered messages hidden for longer."""

    address: bytes
    group_name: str
    msg_ids: tuple[int, ...]
    lease_ms: int
    lease_id: str = ""


COMMANDS: Final = (
    AgentDiscover,
    AgentRegister,
    AgentReport,
    AgentUnregister,
    MailboxCreate,
    MailboxDelete,
    MailboxInfo,
    MsgAck,
    MsgDelete,
    MsgFetch,
    MsgNack,
    MsgQuery,
    MsgRenew,
)
