"""The validated arguments of each operation, as a command carries them to the engine.

Defaults are filled in; an optional argument that was left out is None. The mailbox (or the name to create) is not here: it
is the command's partition key. As MessagePack or JSON these are maps without defaults, so a field may be added later.
"""

from __future__ import annotations

from msgspec import Struct


class MailboxCreateArguments(Struct, frozen=True, omit_defaults=True):
    """Creates a mailbox."""

    ttl: int = 0
    desc: str | None = None
    max_deliveries: int = 0
    dead_letter: str | None = None


class MailboxInfoArguments(Struct, frozen=True, omit_defaults=True):
    """Tells what is known of a mailbox."""


class MailboxDeleteArguments(Struct, frozen=True, omit_defaults=True):
    """Deletes a mailbox with everything in it."""


class MsgFetchArguments(Struct, frozen=True, omit_defaults=True):
    """Takes messages out of a mailbox, or waits for them."""

    group_name: str | None = None
    deliver: str = "latest"
    from_time: int | None = None
    from_id: int | None = None
    force_deliver: bool = False
    num_msgs: int = 100
    max_wait_ms: int = 500
    lease_ms: int = 0


class MsgAckArguments(Struct, frozen=True, omit_defaults=True):
    """Confirms messages for a consumer group."""

    group_name: str
    msg_id: int | None = None
    msg_ids: list[int] | None = None


class MsgNackArguments(Struct, frozen=True, omit_defaults=True):
    """Gives delivered messages back to their consumer group."""

    group_name: str
    msg_ids: list[int]
    lease_id: str | None = None
    delay_ms: int = 0


class MsgRenewArguments(Struct, frozen=True, omit_defaults=True):
    """Keeps delivered messages hidden for longer."""

    group_name: str
    msg_ids: list[int]
    lease_ms: int
    lease_id: str | None = None


class MsgQueryArguments(Struct, frozen=True, omit_defaults=True):
    """Looks at the messages of a mailbox without taking any."""

    key: str | None = None
    tags: list[str] | None = None
    since: int | None = None
    limit: int = 100
    from_id: int | None = None


class MsgDeleteArguments(Struct, frozen=True, omit_defaults=True):
    """Deletes one message for everybody."""

    msg_id: int


class AgentRegisterArguments(Struct, frozen=True, omit_defaults=True):
    """Puts an agent into the registry, or replaces it."""

    name: str
    mailbox: str | None = None
    ttl: int = 0


class AgentUnregisterArguments(Struct, frozen=True, omit_defaults=True):
    """Takes an agent out of the registry."""

    name: str | None = None
    mailbox: str | None = None


class AgentReportArguments(Struct, frozen=True, omit_defaults=True):
    """Reports that an agent lives, and how it is."""

    name: str | None = None
    mailbox: str | None = None


class AgentDiscoverArguments(Struct, frozen=True, omit_defaults=True):
    """Finds agents by keyword, by meaning, or all of them."""

    text: str | None = None
    semantic: str | None = None
    limit: int = 20
    page: int = 1
    cursor: str | None = None
