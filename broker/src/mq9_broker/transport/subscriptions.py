"""Which subscriptions a subject matches: literal subjects by dictionary, wildcards by trie."""

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mq9_broker.transport.outgoing import Outgoing

_CACHED_SUBJECTS = 8192


class Subscription:
    """One SUB of one connection.

    Attributes:
        head: what stands between subject and length in a MSG line: the sid between two blanks.
        limit: messages after which it ends, 0 = none.
        delivered: messages it got so far.
    """

    __slots__ = ("connection", "delivered", "head", "limit", "queue", "subject")

    def __init__(self, connection: "Outgoing", subject: bytes, queue: bytes | None, sid: bytes) -> None:
        self.connection = connection
        self.subject = subject
        self.queue = queue
        self.head = b" " + sid + b" "
        self.limit = 0
        self.delivered = 0

    @property
    def sid(self) -> bytes:
        """The number, or whatever word, under which the client knows the subscription."""
        return self.head[1:-1]


class _Members:
    """Some subscriptions in the order in which they came. Adding and removing cost the same however many."""

    __slots__ = ("_list", "_set")

    def __init__(self) -> None:
        self._set: dict[Subscription, None] = {}
        self._list: list[Subscription] | None = []

    def add(self, subscription: Subscription) -> None:
        self._set[subscription] = None
        self._list = None  # the old one is left as it is: a delivery may be going through it

    def remove(self, subscription: Subscription) -> None:
        del self._set[subscription]
        self._list = None

    def __len__(self) -> int:
        return len(self._set)

    def members(self) -> list[Subscription]:
        """Return all; the list is never changed afterwards."""
        if self._list is None:
            self._list = list(self._set)
        return self._list


class _Several:
    """The subscriptions of one subject, where there is more than one of them or a queue group."""

    __slots__ = ("plain", "queues")

    def __init__(self) -> None:
        self.plain = _Members()
        self.queues: dict[bytes, _Members] = {}

    def add(self, subscription: Subscription) -> None:
        if subscription.queue is None:
            self.plain.add(subscription)
        else:
            members = self.queues.get(subscription.queue)
            if members is None:
                members = self.queues[subscription.queue] = _Members()
            members.add(subscription)

    def remove(self, subscription: Subscription) -> bool:
        """Remove a subscription; whether any is left."""
        if subscription.queue is None:
            self.plain.remove(subscription)
        else:
            members = self.queues[subscription.queue]
            members.remove(subscription)
            if not members:
                del self.queues[subscription.queue]
        return bool(self.plain) or bool(self.queues)


# What one subject leads to. Nearly always it is one plain subscription: an inbox.
_Entry = Subscription | _Several


def _with(entry: _Entry | None, subscription: Subscription) -> _Entry:
    if entry is None and subscription.queue is None:
        return subscription
    if not isinstance(entry, _Several):
        several = _Several()
        if entry is not None:
            several.add(entry)
        entry = several
    entry.add(subscription)
    return entry


def _without(entry: _Entry, subscription: Subscription) -> _Entry | None:
    if isinstance(entry, _Several) and entry.remove(subscription):
        return entry
    return None


class _Node:
    """One token of the wildcard subjects."""

    __slots__ = ("children", "entry", "tail")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}  # by token; `*` is one of them
        self.entry: _Entry | None = None  # subscriptions that end here
        self.tail: _Entry | None = None  # subscriptions that end in `>` after this token


class Matches:
    """The subscriptions that a subject leads to.

    Attributes:
        plain: each of them gets the message.
        queues: of each of these groups one member gets it.
    """

    __slots__ = ("plain", "queues")

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self.plain: list[Subscription] = []
        self.queues: list[list[Subscription]] = []
        queues: dict[bytes, list[Subscription]] = {}
        for entry in entries:
            if isinstance(entry, Subscription):
                self.plain.append(entry)
                continue
            self.plain += entry.plain.members()
            for name, members in entry.queues.items():
                # A group may span several subjects: `orders.new` and `orders.*`.
                known = queues.get(name)
                queues[name] = members.members() if known is None else known + members.members()
        self.queues += queues.values()

    def __bool__(self) -> bool:
        return bool(self.plain or self.queues)

    def receivers(self, excluded: "Outgoing | None" = None) -> Iterator[Subscription]:
        """Yield who gets a message: every plain subscription and a random member of each group.

        Args:
            excluded: a connection that wants no echo of what it publishes.
        """
        for subscription in self.plain:
            if subscription.connection is not excluded:
                yield subscription
        for members in self.queues:
            first = random.randrange(len(members))  # noqa: S311  # spreads work, hides nothing
            for offset in range(len(members)):
                subscription = members[first + offset - len(members)]
                if subscription.connection is not excluded:
                    yield subscription
                    break


class SubscriptionIndex:
    """The subscriptions of one connection, or of all.

    Three tables: literal subjects; a literal prefix and one `*` after it (`_INBOX.x.*`, what clients use for
    replies), by the prefix; a trie for the other wildcards. Nothing on `$mq9.AI.` is ever put in.
    """

    __slots__ = ("_cache", "_root", "literal", "prefixed")

    def __init__(self) -> None:
        self.literal: dict[bytes, _Entry] = {}
        self.prefixed: dict[bytes, _Entry] = {}
        self._root: _Node | None = None
        # Entries of the trie by subject; thrown away when an entry comes or goes, or it gets too large.
        self._cache: dict[bytes, list[_Entry]] | None = None

    def sole_inbox(self, prefix: bytes) -> Subscription | None:
        """Return the one subscription to which `prefix` with one more token leads, whatever token that is.

        None where it is not that simple: none or several, a queue group, a bounded number of messages. The
        caller looks into `literal` himself.
        """
        inbox = self.prefixed.get(prefix)
        if not isinstance(inbox, Subscription) or inbox.limit:
            return None
        root = self._root
        if root is not None and (
            root.tail is not None or b"*" in root.children or prefix.split(b".", 1)[0] in root.children
        ):
            return None
        return inbox

    def add(self, subscription: Subscription) -> None:
        """Put a subscription in."""
        subject = subscription.subject
        if not has_wildcard(subject):
            self.literal[subject] = _with(self.literal.get(subject), subscription)
        elif (prefix := _inbox_prefix(subject)) is not None:
            self.prefixed[prefix] = _with(self.prefixed.get(prefix), subscription)
        else:
            if self._root is None:
                self._root = _Node()
            node = self._root
            tokens = subject.split(b".")
            is_tail = tokens[-1] == b">"
            for token in tokens[:-1] if is_tail else tokens:
                child = node.children.get(token)
                if child is None:
                    child = node.children[token] = _Node()
                node = child
            if is_tail:
                node.tail = _with(node.tail, subscription)
            else:
                node.entry = _with(node.entry, subscription)
            self._cache = None

    def remove(self, subscription: Subscription) -> None:
        """Take a subscription out that was put in."""
        subject = subscription.subject
        if not has_wildcard(subject):
            _remove_from(self.literal, subject, subscription)
        elif (prefix := _inbox_prefix(subject)) is not None:
            _remove_from(self.prefixed, prefix, subscription)
        else:
            self._remove_from_trie(subject, subscription)
            self._cache = None

    def _remove_from_trie(self, subject: bytes, subscription: Subscription) -> None:
        if self._root is None:
            raise KeyError(subject)
        tokens = subject.split(b".")
        is_tail = tokens[-1] == b">"
        if is_tail:
            tokens.pop()
        path = [self._root]
        for token in tokens:
            path.append(path[-1].children[token])
        node = path[-1]
        if is_tail:
            node.tail = None if node.tail is None else _without(node.tail, subscription)
        else:
            node.entry = None if node.entry is None else _without(node.entry, subscription)
        while tokens and not (node.children or node.entry or node.tail):
            path.pop()
            node = path[-1]
            del node.children[tokens.pop()]
        if not (self._root.children or self._root.entry or self._root.tail):
            self._root = None

    def match(self, subject: bytes) -> Matches:
        """Return the subscriptions that match a literal subject."""
        entries: list[_Entry] = []
        entry = self.literal.get(subject)
        if entry is not None:
            entries.append(entry)
        if self.prefixed:
            dot = subject.rfind(b".")
            entry = self.prefixed.get(subject[:dot]) if dot > 0 else None
            if entry is not None and dot + 1 < len(subject):
                entries.append(entry)
        if self._root is not None:
            if self._cache is None or len(self._cache) >= _CACHED_SUBJECTS:
                self._cache = {}
            found = self._cache.get(subject)
            if found is None:
                found = self._cache[subject] = []
                tokens = subject.split(b".")
                if b"" not in tokens:  # else nothing matches, `>` neither
                    _walk(self._root, tokens, found)
            entries += found
        return Matches(entries)


def _remove_from(table: dict[bytes, _Entry], key: bytes, subscription: Subscription) -> None:
    entry = _without(table[key], subscription)
    if entry is None:
        del table[key]


def _walk(root: _Node, tokens: list[bytes], found: list[_Entry]) -> None:
    nodes = [root]
    for token in tokens:
        following = []
        for node in nodes:
            if node.tail is not None:
                found.append(node.tail)
            child = node.children.get(token)
            if child is not None:
                following.append(child)
            child = node.children.get(b"*") if token != b"*" else None
            if child is not None:
                following.append(child)
        nodes = following
    found += [node.entry for node in nodes if node.entry is not None]


def _inbox_prefix(subject: bytes) -> bytes | None:
    """Return what stands before a final `.*`, if no other wildcard is in the subject."""
    if subject.endswith(b".*"):
        prefix = subject[:-2]
        if not has_wildcard(prefix):
            return prefix
    return None


def has_wildcard(subject: bytes) -> bool:
    """Whether a token of the subject is `*` or `>`."""
    if b"*" not in subject and b">" not in subject:
        return False
    tokens = subject.split(b".")
    return b"*" in tokens or b">" in tokens


def is_valid_subject(subject: bytes) -> bool:
    """Whether one can subscribe to it: no empty token, `>` only at the end."""
    tokens = subject.split(b".")
    return b"" not in tokens and b">" not in tokens[:-1]


def is_publishable(subject: bytes) -> bool:
    """Whether one can publish to it: no empty token, no wildcard."""
    if b".." in subject or subject.startswith(b".") or subject.endswith(b"."):
        return False
    return not has_wildcard(subject)
