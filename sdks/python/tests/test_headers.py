"""The protocol's own headers of a message, as properties."""

from __future__ import annotations

import mq9


def message(headers: dict[str, list[str]] | None) -> mq9.Message:
    return mq9.Message(msg_id=0, payload=b"", headers=headers)


def test_a_message_without_headers_says_nothing() -> None:
    assert message(None).reply_to is None
    assert message({}).dead_letter_msg_id is None


def test_names_match_in_any_case_and_the_first_value_counts() -> None:
    headers = {"X-Trace": ["t"], "MQ9-Reply-To": ["me.inbox", "other"], "mq9-correlation-id": ["c-1"]}
    answered = message(headers)
    assert (answered.reply_to, answered.correlation_id) == ("me.inbox", "c-1")


def test_a_dead_letter_tells_where_it_came_from() -> None:
    letter = message(
        {
            "mq9-dead-letter-from": ["work"],
            "mq9-dead-letter-group": ["g"],
            "mq9-dead-letter-msg-id": ["9007199254740993"],
            "mq9-dead-letter-reason": ["max_deliveries"],
            "mq9-dead-letter-count": ["three"],
        }
    )
    assert letter.dead_letter_msg_id == 9007199254740993
    assert (letter.dead_letter_from, letter.dead_letter_group) == ("work", "g")
    assert letter.dead_letter_count is None
