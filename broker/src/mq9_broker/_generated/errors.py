"""Error codes and the failed replies that carry them."""

from __future__ import annotations

from typing import Final

from msgspec.json import encode as _json

MAILBOX_EXISTS: Final = "mailbox_exists"
MAILBOX_NOT_FOUND: Final = "mailbox_not_found"
MESSAGE_NOT_FOUND: Final = "message_not_found"
AGENT_NOT_FOUND: Final = "agent_not_found"
INVALID_MAIL_ADDRESS: Final = "invalid_mail_address"
INVALID_ARGUMENT: Final = "invalid_argument"
PAYLOAD_TOO_LARGE: Final = "payload_too_large"
MAILBOX_FULL: Final = "mailbox_full"
UNSUPPORTED_OPERATION: Final = "unsupported_operation"
UNAUTHORIZED: Final = "unauthorized"
UNAVAILABLE: Final = "unavailable"
INTERNAL: Final = "internal"


def _reply(text: str, code: str) -> bytes:
    return b'{"error":%b,"code":"%b"}' % (_json(text), code.encode())


def mailbox_exists(address: str) -> bytes:
    """A living mailbox has this address."""
    return _reply(f"mailbox {address} already exists", MAILBOX_EXISTS)


def mailbox_not_found(address: str) -> bytes:
    """No living mailbox has this address."""
    return _reply(f"mailbox {address} does not exist", MAILBOX_NOT_FOUND)


def message_not_found() -> bytes:
    """The mailbox has no such message, or no longer."""
    return _reply("message not found", MESSAGE_NOT_FOUND)


def agent_not_found() -> bytes:
    """No registered agent has this name or mailbox."""
    return _reply("agent not found", AGENT_NOT_FOUND)


def invalid_mail_address(why: str) -> bytes:
    """An address is malformed, or missing in the subject."""
    return _reply(f"invalid mail_address: {why}", INVALID_MAIL_ADDRESS)


def invalid_argument(field: str, why: str) -> bytes:
    """A field, a header or the body is not as the operation wants it."""
    return _reply(f"{field}: {why}", INVALID_ARGUMENT)


def payload_too_large(why: str) -> bytes:
    """A body or payload is beyond its bound."""
    return _reply(f"payload too large: {why}", PAYLOAD_TOO_LARGE)


def mailbox_full(address: str, why: str) -> bytes:
    """A bound of this mailbox is reached."""
    return _reply(f"mailbox {address} is full: {why}", MAILBOX_FULL)


def unsupported_operation(why: str) -> bytes:
    """This broker has no such operation."""
    return _reply(f"unsupported operation: {why}", UNSUPPORTED_OPERATION)


def unauthorized(why: str) -> bytes:
    """A permission is missing, or a connect was refused."""
    return _reply(f"unauthorized: {why}", UNAUTHORIZED)


def unavailable(why: str) -> bytes:
    """The broker can't serve this now; nothing was done."""
    return _reply(f"unavailable: {why}", UNAVAILABLE)


def internal(why: str) -> bytes:
    """The broker failed; its log says why."""
    return _reply(f"internal error: {why}", INTERNAL)
