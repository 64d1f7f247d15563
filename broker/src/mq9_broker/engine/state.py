"""What the engine's parts share: the transaction, the time, the effects, the cached mailboxes."""

from typing import Final

from mq9_broker.engine.effects import Effect, MailboxGone
from mq9_broker.engine.keys import (
    ADDRESS,
    AGENT,
    CLEANING,
    COUNTS,
    NEXT_INCARNATION,
    TIMER,
    pack_u64,
    two_numbers,
    unpack_two,
    unpack_u64,
)
from mq9_broker.engine.limits import EngineLimits
from mq9_broker.engine.mailbox import Mailbox, address_of, load_mailbox
from mq9_broker.engine.segments import Segments
from mq9_broker.engine.transaction import Transaction
from mq9_broker.store import Store
from mq9_broker.store.sorted_map import end_of_prefix

_CACHED_MAILBOXES: Final = 16_384


class State:
    """Everything here but the store is a cache, or lasts for one call."""

    def __init__(self, store: Store, limits: EngineLimits, message_cache: int) -> None:
        self.store = Transaction(store)
        self.limits = limits
        self.segments = Segments(self.store, message_cache)
        self.now = 0
        """Logical time in ms: that of the command, or of the timer that runs."""
        self.time = 0
        """The greatest time the engine has been given in ms: that of the last call of apply."""
        self.effects: list[Effect] = []
        self.mailboxes: dict[bytes, Mailbox] = {}
        self.changed: list[Mailbox] = []
        """Mailboxes whose state record has to be written."""
        self.earliest_timer: int | None = 0
        """Lower bound of when the next timer or cleaning falls due; None = there is none."""
        self._counts: tuple[int, int] | None = None
        """Mailboxes and agents in all; None = not read yet."""
        self.first_cleaning = CLEANING
        """The queue of cleaning has no key before this one; whoever looks for the first begins here."""

    def mailbox(self, address: bytes) -> Mailbox | None:
        """The living mailbox of that address, with everything sent to it so far in the store."""
        mailbox = self.mailboxes.get(address)
        if mailbox is None:
            found = self.store.get(ADDRESS + address)
            if found is None:
                return None
            incarnation: int = unpack_u64(found)[0]
            mailbox = self._remember(load_mailbox(self, incarnation))
        elif mailbox.next_id != mailbox.written_id:
            mailbox.write_messages(self)
        return mailbox

    def mailbox_of(self, incarnation: int) -> Mailbox:
        """The living mailbox with this incarnation."""
        mailbox = self.mailbox(address_of(self, incarnation))
        if mailbox is None:
            raise LookupError(f"store has no address for mailbox incarnation {incarnation}")
        return mailbox

    def _remember(self, mailbox: Mailbox) -> Mailbox:
        self.mailboxes[mailbox.address] = mailbox
        return mailbox

    def add_mailbox(self, mailbox: Mailbox) -> None:
        """Makes a new mailbox known."""
        self.count(mailboxes=1)
        self.store.put(ADDRESS + mailbox.address, pack_u64(mailbox.incarnation))
        self._remember(mailbox)

    def remove_mailbox(self, mailbox: Mailbox) -> None:
        """Removes a mailbox with everything in it, except dead letters on their way."""
        self.mailboxes.pop(mailbox.address, None)
        if mailbox.changed:
            self.changed.remove(mailbox)
        self.count(mailboxes=-1)
        self.store.delete(ADDRESS + mailbox.address)
        self.store.delete_range(mailbox.prefix, end_of_prefix(mailbox.prefix))
        if mailbox.armed_timer is not None:
            self.store.delete(two_numbers(TIMER, mailbox.armed_timer, mailbox.incarnation))
        if mailbox.armed_cleaning is not None:
            self.store.delete(two_numbers(CLEANING, mailbox.armed_cleaning, mailbox.incarnation))
        self.effects.append(MailboxGone(mailbox.address, mailbox.incarnation))

    @property
    def counts(self) -> tuple[int, int]:
        """How many mailboxes and agents there are."""
        if self._counts is None:
            found = self.store.get(COUNTS)
            if found is not None:
                self._counts = unpack_two(found)
            else:  # new, or written before there were counts
                self._counts = (self._entries(ADDRESS), self._entries(AGENT))
        return self._counts

    def _entries(self, prefix: bytes) -> int:
        return sum(1 for _ in self.store.scan(prefix, end_of_prefix(prefix)))

    def count(self, *, mailboxes: int = 0, agents: int = 0) -> None:
        """Counts what comes or goes; called before that is done."""
        known = self.counts
        self._counts = (known[0] + mailboxes, known[1] + agents)
        if any(self._counts):
            self.store.put(COUNTS, two_numbers(b"", *self._counts))
        else:
            self.store.delete(COUNTS)

    def next_incarnation(self) -> int:
        """A number no mailbox has had before."""
        found = self.store.get(NEXT_INCARNATION)
        number: int = 1 if found is None else unpack_u64(found)[0]
        self.store.put(NEXT_INCARNATION, pack_u64(number + 1))
        return number

    def expect_timer(self, due: int) -> None:
        """Notes that something falls due then."""
        if self.earliest_timer is None or due < self.earliest_timer:
            self.earliest_timer = due

    def write_changed(self) -> None:
        """Brings what the cached mailboxes collected into the transaction."""
        for mailbox in self.changed:
            mailbox.write(self)
        self.changed.clear()

    def trim(self) -> None:
        """Keeps the cache of mailboxes bounded."""
        mailboxes = self.mailboxes
        if len(mailboxes) > _CACHED_MAILBOXES:
            for address in list(mailboxes)[: _CACHED_MAILBOXES // 4]:
                del mailboxes[address]

    def forget(self) -> None:
        """Drops everything that is not in the store."""
        self.store.discard()
        self.segments.forget()
        self.mailboxes.clear()
        self.changed.clear()
        self.effects = []
        self.earliest_timer = 0
        self.first_cleaning = CLEANING
        self._counts = None
