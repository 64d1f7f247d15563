"""Key layout of the store, a table of it is in README.md. Numbers are big-endian, so they sort."""

from struct import Struct
from typing import Final

pack_u64: Final = Struct(">Q").pack
unpack_u64: Final = Struct(">Q").unpack
_pack_two: Final = Struct(">QQ").pack

FORMAT: Final = b"\x00format"
TIME: Final = b"\x00time"
NEXT_INCARNATION: Final = b"\x00incarnation"

ADDRESS: Final = b"A"
MAILBOX: Final = b"M"
TIMER: Final = b"T"
CLEANING: Final = b"H"
OUTBOX: Final = b"X"
AGENT: Final = b"N"
AGENT_BY_MAILBOX: Final = b"B"

# Below a mailbox's prefix.
FIXED: Final = b"b"
STATE: Final = b"s"
GROUP: Final = b"g"
LEASE: Final = b"l"
REDELIVERY: Final = b"r"
CONFIRMED: Final = b"c"
SEGMENT: Final = b"m"
DEDUP: Final = b"u"
COMPACTION: Final = b"k"
MAILBOX_TIMER: Final = b"t"
MAILBOX_CLEANING: Final = b"h"
EVICTABLE: Final = b"e"

LANE_BYTES: Final = (b"\x00", b"\x01", b"\x02")
#: After all keys of the form prefix + number.
MAX_U64: Final = b"\xff" * 8
#: Ends of a segment's two keys: its messages, and which of them are gone.
MESSAGES_SUFFIX: Final = b"\x00"
GONE_SUFFIX: Final = b"\x01"
AFTER_SUFFIXES: Final = b"\x02"


def mailbox_prefix(incarnation: int) -> bytes:
    """Prefix of everything that belongs to a mailbox."""
    return MAILBOX + pack_u64(incarnation)


def two_numbers(prefix: bytes, first: int, second: int) -> bytes:
    """``prefix`` and two numbers."""
    return prefix + _pack_two(first, second)


def agent_by_mailbox_prefix(mailbox: str) -> bytes:
    """Prefix of the entries of all agents with this ``mailbox``."""
    encoded = mailbox.encode()
    return AGENT_BY_MAILBOX + len(encoded).to_bytes(4, "big") + encoded
