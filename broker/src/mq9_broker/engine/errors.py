"""Error replies. Texts and codes move to the generated module as soon as the spec provides them."""

import msgspec

_encode = msgspec.json.encode


def error_reply(code: str, text: str) -> bytes:
    """Returns the JSON reply of a failed operation."""
    return _encode({"error": text, "code": code})


def mailbox_exists(address: bytes) -> bytes:
    """CREATE of a living name."""
    return error_reply("mailbox_exists", f"mailbox {address.decode()} already exists")


def mailbox_not_found(address: bytes) -> bytes:
    """The mailbox does not exist (any more)."""
    return error_reply("mailbox_not_found", f"mailbox {address.decode()} does not exist")


def mailbox_full(address: bytes, what: str) -> bytes:
    """A bound of the mailbox is reached; ``what`` names the bound."""
    return error_reply("mailbox_full", f"mailbox {address.decode()} is full: {what}")


def invalid_argument(field: str, why: str) -> bytes:
    """A field's value is not acceptable."""
    return error_reply("invalid_argument", f"{field}: {why}")


MESSAGE_NOT_FOUND = error_reply("message_not_found", "message not found")
AGENT_NOT_FOUND = error_reply("agent_not_found", "agent not found")
