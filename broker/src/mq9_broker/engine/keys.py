"""Key layout of the store, a table of it is in README.md. Numbers are big-endian, so they sort."""

from struct import Struct
from typing import Final

pack_u64: Final = Struct(">Q").pack
unpack_u64: Final = Struct(">Q").unpack
_two: Final = Struct(">QQ")
pack_two: Final = _two.pack

FORMAT: Final = b"\x00format"
TIME: Final = b"\x00time"
NEXT_INCARNATION: Final = b"\x00incarnation"
COUNTS: Final = b"\x00counts"

ADDRESS: Final = b"A"
MAILBOX: Final = b"M"
TIMER: Final = b"T"
CLEANING: Final = b"H"
OUTBOX: Final = b"X"
AGENT: Final = b"N"
AGENT_BY_MAILBOX: Final = b"B"

# Below a mailbox's prefix. SEGMENT stands right behind FIXED, and CONFIRMED right behind GROUP: looking for
# the last key at or before a place in them ends there, at a key that is never deleted. Else a store on disk
# would step over all that was ever deleted of a kind with much coming and going, of LEASE say.
FIXED: Final = b"b"
SEGMENT: Final = b"c"
EVICTABLE: Final = b"e"
GROUP: Final = b"g"
CONFIRMED: Final = b"i"
COMPACTION: Final = b"k"
LEASE: Final = b"l"
REDELIVERY: Final = b"r"
STATE: Final = b"s"
MAILBOX_TIMER: Final = b"t"
DEDUP: Final = b"u"
MAILBOX_CLEANING: Final = b"w"

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


def unpack_two(value: bytes) -> tuple[int, int]:
    """Two numbers, as `two_numbers` packs them."""
    first, second = _two.unpack(value)
    return first, second


def two_numbers(prefix: bytes, first: int, second: int) -> bytes:
    """``prefix`` and two numbers."""
    return prefix + pack_two(first, second)


def agent_by_mailbox_prefix(mailbox: str) -> bytes:
    """Prefix of the entries of all agents with this ``mailbox``."""
    encoded = mailbox.encode()
    return AGENT_BY_MAILBOX + len(encoded).to_bytes(4, "big") + encoded
