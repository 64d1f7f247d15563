"""Headers that the broker knows. Names are lower case and match in any case."""

from __future__ import annotations

from typing import Final

MQ9_PRIORITY: Final = "mq9-priority"
"""The lane."""
MQ9_KEY: Final = "mq9-key"
"""The compaction key."""
MQ9_DELAY: Final = "mq9-delay"
"""Seconds until the message becomes visible."""
MQ9_TTL: Final = "mq9-ttl"
"""Seconds until the message ends, from SEND."""
MQ9_TAGS: Final = "mq9-tags"
"""Tags, trimmed, empties and repeats dropped."""
MQ9_DEDUP_ID: Final = "mq9-dedup-id"
"""The id that makes a repeat harmless."""
MQ9_REPLY_TO: Final = "mq9-reply-to"
"""The mailbox that the sender would like answers in."""
MQ9_CORRELATION_ID: Final = "mq9-correlation-id"
"""Ties an answer to its question."""
MQ9_DEAD_LETTER_FROM: Final = "mq9-dead-letter-from"
"""The mailbox that the message came from."""
MQ9_DEAD_LETTER_GROUP: Final = "mq9-dead-letter-group"
"""The consumer group that could not handle it."""
MQ9_DEAD_LETTER_MSG_ID: Final = "mq9-dead-letter-msg-id"
"""Its number in the mailbox it came from."""
MQ9_DEAD_LETTER_REASON: Final = "mq9-dead-letter-reason"
"""`max_deliveries`."""
MQ9_DEAD_LETTER_COUNT: Final = "mq9-dead-letter-count"
"""How often it was delivered."""

INTERPRETED: Final = frozenset(
    (
        MQ9_PRIORITY,
        MQ9_KEY,
        MQ9_DELAY,
        MQ9_TTL,
        MQ9_TAGS,
        MQ9_DEDUP_ID,
    )
)
"""The broker acts on these and does not hand them back in `headers`."""
