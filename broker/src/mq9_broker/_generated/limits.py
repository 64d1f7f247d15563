"""Numbers that more than one place needs."""

from __future__ import annotations

from typing import Final

MAX_PAYLOAD: Final = 1048576
"""The largest message payload a client may send. Bytes."""
MAX_REPLY: Final = 1048576
"""A reply ends here or after one message, whichever is more. Bytes."""
MAX_REGISTER_BODY: Final = 262144
"""The largest body of agent.register. Bytes."""
MAX_REPORT_BODY: Final = 4096
"""The largest body of agent.report. Bytes."""
MAX_BODY_DEPTH: Final = 64
"""Objects and arrays inside each other; deeper is invalid_argument. Levels."""
MAX_TAGS: Final = 64
"""Distinct tags on one message, or in one query. Tags."""
MAX_MSG_IDS: Final = 1000
"""Message ids in one request. Ids."""
MAX_GROUPS: Final = 1000
"""Consumer groups of one mailbox. Groups."""
DEDUP_WINDOW: Final = 120000
"""How long a dedup-id is remembered after the first successful SEND. Milliseconds."""
MAX_INTEGER_DIGITS: Final = 19
"""Digits of an integer in a header or a subject. Digits."""
GENERATED_ADDRESS_BITS: Final = 128
"""Randomness of an address that the broker makes. Bits."""
