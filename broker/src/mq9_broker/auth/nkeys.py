"""NKeys, the text form that NATS gives to Ed25519 keys: base32 of a kind, 32 bytes and a checksum."""

# ruff: noqa: PLC0415  # `cryptography` takes a tenth of a second to load, and few brokers need it

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# What the first byte says; it makes the text begin with O, A or U.
_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_TEXT_LENGTH = 56


def public_key(text: str, kind: str) -> Ed25519PublicKey:
    """Read a public key.

    Args:
        text: as it stands in configurations and JWTs, 56 letters and digits.
        kind: `operator`, `account` or `user`.

    Raises:
        ValueError: it is no such key; the message says why.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b32decode(text) if len(text) == _TEXT_LENGTH else b""
    except binascii.Error:
        raw = b""
    if not raw:
        raise ValueError(f"expected the public NKey of a {kind}, {_TEXT_LENGTH} letters and digits")
    if binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise ValueError("the NKey's checksum is wrong")
    if raw[0] != _KINDS[kind]:
        raise ValueError(f"expected the public NKey of a {kind}, which begins with {kind[0].upper()}")
    return Ed25519PublicKey.from_public_bytes(raw[1:-2])


def is_signed(text: str, kind: str, signature: bytes, data: bytes) -> bool:
    """Whether a signature of some data was made with the key whose public half is `text`."""
    from cryptography.exceptions import InvalidSignature

    try:
        public_key(text, kind).verify(signature, data)
    except (ValueError, InvalidSignature):
        return False
    return True


def decode_base64(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not, as NATS clients send it.

    Raises:
        ValueError: it is no base64.
    """
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
