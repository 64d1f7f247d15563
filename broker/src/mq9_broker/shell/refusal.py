"""How decoding ends when a request is not as it should be."""

from __future__ import annotations

from typing import Final

import msgspec

from mq9_broker._generated import errors

#: How the reply of a request that succeeded begins.
SUCCESS: Final = b'{"error":""'


class _Failure(msgspec.Struct):
    code: str = ""


_decode_failure = msgspec.json.Decoder(_Failure).decode


def code_of(reply: bytes) -> str:
    """The code of a failed reply."""
    return _decode_failure(reply).code


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
