"""Bounds which the broker's options set."""

import msgspec

from mq9_broker._generated import limits


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of every mailbox, of replies and of the whole; replicas must agree on them."""

    max_messages: int = 0
    """Messages of one mailbox, delayed ones included; 0 = unlimited."""
    max_bytes: int = 0
    """Bytes (payload and header block) of one mailbox, delayed messages included; 0 = unlimited."""
    max_delayed: int = 0
    """Delayed messages of one mailbox; 0 = unlimited."""
    max_dedup_ids: int = 0
    """Remembered dedup-ids of one mailbox; 0 = unlimited."""
    max_groups: int = limits.MAX_GROUPS
    """Consumer groups of one mailbox; 0 = unlimited."""
    max_message: int = 0
    """Bytes (payload and header block) of one message, dead letters excepted; 0 = unlimited."""
    max_mailboxes: int = 0
    """Mailboxes in all; 0 = unlimited."""
    max_agents: int = 0
    """Registered agents in all; 0 = unlimited."""
    max_reply: int = limits.MAX_REPLY
    """Bytes after which a reply with several items ends; one item always fits."""
