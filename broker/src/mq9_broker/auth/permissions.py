"""Which subjects a user may publish and subscribe to, with the meaning that NATS gives to these lists."""

from collections.abc import Iterable, Sequence

_REMEMBERED_SUBJECTS = 4096

Tokens = tuple[bytes, ...]


def covers(pattern: Sequence[bytes], subject: Sequence[bytes]) -> bool:
    """Whether every subject that `subject` stands for, wildcards included, matches the pattern."""
    for place, token in enumerate(pattern):
        if token == b">":
            return len(subject) > place
        if place >= len(subject) or subject[place] == b">":
            return False
        if token not in (b"*", subject[place]):
            return False
    return len(pattern) == len(subject)


def overlap(one: Sequence[bytes], other: Sequence[bytes]) -> bool:
    """Whether some subject matches both patterns."""
    for place in range(max(len(one), len(other))):
        if place >= len(one) or place >= len(other):
            return False
        first, second = one[place], other[place]
        if b">" in (first, second):
            return True
        if first != second and b"*" not in (first, second):
            return False
    return True


class SubjectSet:
    """Subjects with wildcards, each for everybody or, written `subject queue`, for one queue group.

    Args:
        entries: as they stand in the configuration or a JWT.
    """

    __slots__ = ("_of_queues", "_patterns")

    def __init__(self, entries: Iterable[str]) -> None:
        self._patterns: list[Tokens] = []
        self._of_queues: list[tuple[Tokens, Tokens]] = []
        for entry in entries:
            subject, *queue = entry.encode().split()
            if queue:
                self._of_queues.append((tuple(subject.split(b".")), tuple(queue[0].split(b"."))))
            else:
                self._patterns.append(tuple(subject.split(b".")))

    def covers(self, subject: Tokens, queue: bytes | None = None) -> bool:
        """Whether one entry covers the whole of a subject."""
        if any(covers(pattern, subject) for pattern in self._patterns):
            return True
        if queue is None or not self._of_queues:
            return False
        name = tuple(queue.split(b"."))
        return any(covers(group, name) and covers(pattern, subject) for pattern, group in self._of_queues)

    def overlaps(self, subject: Tokens) -> bool:
        """Whether one entry for everybody concerns part of what a subject stands for."""
        return any(overlap(pattern, subject) for pattern in self._patterns)


class Permissions:
    """What one user may do. One object for all of his connections.

    Args:
        publish_allow: subjects that he may publish to; None = all.
        publish_deny: subjects that he may not publish to, allowed or not.
        subscribe_allow: subjects that he may subscribe to; None = all.
        subscribe_deny: subjects that he may not subscribe to. Messages that a wider subscription would
            bring are kept from him.
    """

    __slots__ = ("_can_publish", "_can_receive", "_publish_allow", "_publish_deny", "_rules")

    def __init__(
        self,
        publish_allow: Iterable[str] | None = None,
        publish_deny: Iterable[str] = (),
        subscribe_allow: Iterable[str] | None = None,
        subscribe_deny: Iterable[str] = (),
    ) -> None:
        self._publish_allow = None if publish_allow is None else SubjectSet(publish_allow)
        self._publish_deny = SubjectSet(publish_deny)
        denied = tuple(subscribe_deny)
        self._rules = (
            None if subscribe_allow is None else SubjectSet(subscribe_allow),
            SubjectSet(denied) if denied else None,
        )
        # Answers given before; thrown away when there are too many.
        self._can_publish: dict[bytes, bool] = {}
        self._can_receive: dict[bytes, bool] = {}

    def may_publish(self, subject: bytes) -> bool:
        """Whether he may publish to a subject."""
        known = self._can_publish.get(subject)
        if known is None:
            tokens = tuple(subject.split(b"."))
            allow = self._publish_allow
            known = (allow is None or allow.covers(tokens)) and not self._publish_deny.covers(tokens)
            _remember(self._can_publish, subject, known)
        return known

    def may_subscribe(self, subject: bytes, queue: bytes | None) -> bool:
        """Whether he may subscribe to a subject, possibly with wildcards, in a queue group or not."""
        allow, deny = self._rules
        tokens = tuple(subject.split(b"."))
        if allow is not None and not allow.covers(tokens, queue):
            return False
        return deny is None or not deny.covers(tokens, queue)

    def may_receive(self, subject: bytes) -> bool:
        """Whether a message may reach him that one of his subscriptions matches."""
        deny = self._rules[1]
        if deny is None:
            return True
        known = self._can_receive.get(subject)
        if known is None:
            known = not deny.covers(tuple(subject.split(b".")))
            _remember(self._can_receive, subject, known)
        return known


def _remember(table: dict[bytes, bool], subject: bytes, answer: bool) -> None:
    if len(table) >= _REMEMBERED_SUBJECTS:
        table.clear()
    table[subject] = answer


def wrong_subject(entry: str, *, with_queue: bool) -> str:
    """Say what is wrong with an entry of a list of subjects; "" when nothing is."""
    words = entry.split()
    if not words or len(words) > 1 + with_queue:
        return f"expected a subject{' or `subject queue`' if with_queue else ''}, got {entry!r}"
    tokens = words[0].split(".")
    if "" in tokens or ">" in tokens[:-1]:
        return f"expected a subject without empty parts and with > only at its end, got {entry!r}"
    return ""
