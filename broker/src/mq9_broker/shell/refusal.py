"""How decoding ends when a request is not as it should be."""

from __future__ import annotations

from mq9_broker._generated import errors


class RefusedError(Exception):
    """A request that is answered with an error before the engine sees it.

    Attributes:
        reply: The reply's JSON bytes.
    """

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def refuse(code: str, field: str, why: str) -> RefusedError:
    """Return the refusal of a field: invalid_mail_address for addresses, invalid_argument for the rest."""
    if code == errors.INVALID_MAIL_ADDRESS:
        return RefusedError(errors.invalid_mail_address(f"{field} {why}" if field else why))
    return RefusedError(errors.invalid_argument(field, why))
