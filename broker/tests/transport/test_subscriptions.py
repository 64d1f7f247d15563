"""The index against the definition of a match, token by token."""

from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mq9_broker.transport.connection import Connection
from mq9_broker.transport.subscriptions import (
    Subscription,
    SubscriptionIndex,
    has_wildcard,
    is_publishable,
    is_valid_subject,
)

token = st.sampled_from([b"a", b"b", b"c", b"a*", b">b"])
literal = st.lists(token, min_size=1, max_size=4).map(b".".join)
pattern = st.builds(
    lambda tokens, tail: b".".join(tokens + tail),
    st.lists(st.one_of(token, st.just(b"*")), min_size=1, max_size=4),
    st.sampled_from([[], [], [b">"]]),
) | st.just(b">")
odd_token = st.sampled_from([b"", b"a", b"*", b">", b"a*", b">>"])
queue = st.sampled_from([None, None, None, b"q", b"r"])


def matches(pattern: bytes, subject: bytes) -> bool:
    wanted, tokens = pattern.split(b"."), subject.split(b".")
    for position, part in enumerate(wanted):
        if part == b">":
            return len(tokens) > position
        if position >= len(tokens) or part not in (b"*", tokens[position]):
            return False
    return len(wanted) == len(tokens)


class IndexMachine(RuleBasedStateMachine):
    subscriptions = Bundle("subscriptions")

    def __init__(self) -> None:
        super().__init__()
        self.index = SubscriptionIndex()
        self.present: list[Subscription] = []
        # Two connections of which one may be excluded; the index never looks inside.
        self.connections = [cast("Connection", object()), cast("Connection", object())]

    @rule(target=subscriptions, subject=st.one_of(pattern, literal), queue=queue, which=st.integers(0, 1))
    def add(self, subject: bytes, queue: bytes | None, which: int) -> Subscription:
        subscription = Subscription(self.connections[which], subject, queue, b"1")
        self.index.add(subscription)
        self.present.append(subscription)
        return subscription

    @rule(subscription=consumes(subscriptions))
    def remove(self, subscription: Subscription) -> None:
        self.index.remove(subscription)
        self.present.remove(subscription)

    @rule(subject=literal)
    def match(self, subject: bytes) -> None:
        found = self.index.match(subject)
        expected = [s for s in self.present if matches(s.subject, subject)]
        assert sorted(map(id, found.plain)) == sorted(id(s) for s in expected if s.queue is None)
        groups: dict[bytes, set[int]] = {}
        for subscription in expected:
            if subscription.queue is not None:
                groups.setdefault(subscription.queue, set()).add(id(subscription))
        assert sorted(map(sorted, groups.values())) == sorted(
            sorted(map(id, group)) for group in found.queues
        )
        assert bool(found) == bool(expected)

    @rule(prefix=literal, last=token)
    def sole_inbox(self, prefix: bytes, last: bytes) -> None:
        subject = prefix + b"." + last
        inbox = self.index.sole_inbox(prefix)
        if inbox is not None and subject not in self.index.literal:
            assert [s for s in self.present if matches(s.subject, subject)] == [inbox]
            assert inbox.queue is None

    @rule(subject=literal, excluded=st.sampled_from([None, 0, 1]))
    def receivers(self, subject: bytes, excluded: int | None) -> None:
        connection = None if excluded is None else self.connections[excluded]
        expected = [s for s in self.present if matches(s.subject, subject) and s.connection is not connection]
        receivers = list(self.index.match(subject).receivers(connection))
        assert len(set(receivers)) == len(receivers)
        assert {s for s in receivers if s.queue is None} == {s for s in expected if s.queue is None}
        queues = [s.queue for s in receivers if s.queue is not None]
        assert sorted(queues) == sorted({s.queue for s in expected if s.queue is not None})

    @invariant()
    def empty_means_empty(self) -> None:
        if not self.present:
            assert not self.index.literal
            assert not self.index.prefixed
            assert not self.index._root


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"a", b"*", b">", b"a*", b">>"]), min_size=1, max_size=4).map(b".".join)
)
def test_kinds_of_subjects(subject: bytes) -> None:
    tokens = subject.split(b".")
    assert has_wildcard(subject) == any(t in (b"*", b">") for t in tokens)
    assert is_valid_subject(subject) == (all(tokens) and all(t != b">" for t in tokens[:-1]))
    if subject:
        assert is_publishable(subject) == (all(tokens) and not has_wildcard(subject))
