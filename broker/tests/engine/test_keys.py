"""The order of what lies below a mailbox."""

from mq9_broker.engine import keys

KINDS = {name: value for name, value in vars(keys).items() if name.isupper() and isinstance(value, bytes)}
# Not below a mailbox, or no kind.
OTHERS = {"FORMAT", "TIME", "NEXT_INCARNATION", "ADDRESS", "MAILBOX", "TIMER", "CLEANING", "OUTBOX"}
OTHERS |= {"AGENT", "AGENT_BY_MAILBOX", "MAX_U64", "MESSAGES_SUFFIX", "GONE_SUFFIX", "AFTER_SUFFIXES"}


def test_looking_back_ends_at_a_key_that_is_never_deleted() -> None:
    kinds = sorted((value, name) for name, value in KINDS.items() if name not in OTHERS)
    assert len({value for value, _ in kinds}) == len(kinds)
    names = [name for _, name in kinds]
    assert names.index("SEGMENT") == names.index("FIXED") + 1
    assert names.index("CONFIRMED") == names.index("GROUP") + 1
