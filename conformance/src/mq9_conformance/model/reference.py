"""The model: what a mailbox must do, without any thought of speed.

Time goes on by `advance`, which lets every due thing happen in its order: delayed messages appear, leases and
delays of given-back messages end, deliveries that were the last allowed become dead letters, mailboxes end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PRIORITIES = ("critical", "urgent", "normal")
DEDUP_WINDOW_MS = 120_000


class ModelError(Exception):
    """A refusal; its only argument is the code of the reply."""

    @property
    def code(self) -> str:
        """The code, such as `mailbox_not_found`."""
        return str(self.args[0])


@dataclass
class Message:
    """A visible message, or (with `msg_id` None) one that waits for its delay to end."""

    payload: str
    lane: int
    key: str
    tags: tuple[str, ...]
    expires_ms: int | None
    msg_id: int | None = None
    created_ms: int = 0
    due_ms: int = 0
    dead_letter_of: tuple[str, str, int] | None = None  # mailbox, group, msg_id


@dataclass
class Lease:
    """A message in the hands of a worker."""

    name: str
    until_ms: int


@dataclass
class Group:
    """A consumer group."""

    meets: Callable[[Message], bool]
    confirmed: set[int] = field(default_factory=set)
    leases: dict[int, Lease] = field(default_factory=dict)
    hidden_until_ms: dict[int, int] = field(default_factory=dict)
    deliveries: dict[int, int] = field(default_factory=dict)
    batch: list[int] = field(default_factory=list)  # of the newest un-leased FETCH that returned messages
    leased_since_batch: set[int] = field(default_factory=set)


@dataclass
class Mailbox:
    """A mailbox with everything in it."""

    created_ms: int
    ends_ms: int | None
    max_deliveries: int
    dead_letter: str
    messages: list[Message] = field(default_factory=list)
    delayed: list[Message] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    dedup: dict[str, tuple[int, int]] = field(default_factory=dict)  # id: (reply, forgotten at)
    next_id: int = 0


class Model:
    """All mailboxes at one moment."""

    def __init__(self, now_ms: int) -> None:
        """Begins empty at a moment in Unix milliseconds."""
        self.now_ms = now_ms
        self.mailboxes: dict[str, Mailbox] = {}

    # Time

    def advance(self, milliseconds: int) -> None:
        """Moves time on; everything that falls due on the way happens at its moment, earliest first."""
        end = self.now_ms + milliseconds
        while (due := self._next_due()) is not None and due <= end:
            self.now_ms = max(self.now_ms, due)
            self._settle()
        self.now_ms = end
        self._settle()

    def _next_due(self) -> int | None:
        moments: list[int] = []
        for mailbox in self.mailboxes.values():
            moments += [] if mailbox.ends_ms is None else [mailbox.ends_ms]
            moments += [message.due_ms for message in mailbox.delayed]
            moments += [message.expires_ms for message in mailbox.messages if message.expires_ms is not None]
            for group in mailbox.groups.values():
                moments += [lease.until_ms for lease in group.leases.values()]
                moments += list(group.hidden_until_ms.values())
        return min(moments, default=None)

    def _settle(self) -> None:
        """Lets everything happen that is due now."""
        for address, mailbox in list(self.mailboxes.items()):
            if mailbox.ends_ms is not None and self.now_ms >= mailbox.ends_ms:
                del self.mailboxes[address]
        for mailbox in self.mailboxes.values():
            mailbox.messages = [m for m in mailbox.messages if not self._is_over(m)]
            due = sorted((m for m in mailbox.delayed if m.due_ms <= self.now_ms), key=lambda m: m.due_ms)
            mailbox.delayed = [m for m in mailbox.delayed if m.due_ms > self.now_ms]
            for message in due:
                if not self._is_over(message):
                    self._make_visible(mailbox, message, message.due_ms)
        for address, mailbox in list(self.mailboxes.items()):
            self._end_leases(address, mailbox)

    def _is_over(self, message: Message) -> bool:
        return message.expires_ms is not None and self.now_ms >= message.expires_ms

    def _end_leases(self, address: str, mailbox: Mailbox) -> None:
        living = {m.msg_id for m in mailbox.messages}
        for name, group in mailbox.groups.items():
            for msg_id in [i for i in (*group.leases, *group.hidden_until_ms) if i not in living]:
                group.leases.pop(msg_id, None)
                group.hidden_until_ms.pop(msg_id, None)
            for msg_id in [i for i, until in group.hidden_until_ms.items() if until <= self.now_ms]:
                del group.hidden_until_ms[msg_id]
            for msg_id in [i for i, lease in group.leases.items() if lease.until_ms <= self.now_ms]:
                del group.leases[msg_id]
                self._delivery_ended(address, mailbox, name, group, msg_id)

    # Operations

    def mailbox_create(
        self, name: str, *, ttl: int = 0, max_deliveries: int = 0, dead_letter: str = ""
    ) -> str:
        """CREATE."""
        if dead_letter == name:
            raise ModelError("invalid_argument")
        if name in self.mailboxes:
            raise ModelError("mailbox_exists")
        ends = self.now_ms + 1000 * ttl if ttl else None
        self.mailboxes[name] = Mailbox(self.now_ms, ends, max_deliveries, dead_letter)
        return name

    def mailbox_delete(self, mail_address: str) -> bool:
        """DELETE of a mailbox."""
        self._mailbox(mail_address)
        del self.mailboxes[mail_address]
        return True

    def mailbox_info(self, mail_address: str) -> dict[str, Any]:
        """INFO, as far as the model knows it."""
        mailbox = self._mailbox(mail_address)
        return {
            "messages": {
                p: sum(m.lane == lane for m in mailbox.messages) for lane, p in enumerate(PRIORITIES)
            },
            "delayed": len(mailbox.delayed),
            "groups": [
                {
                    "group_name": name,
                    "pending": sum(
                        group.meets(m) and m.msg_id not in group.confirmed and m.msg_id not in group.leases
                        for m in mailbox.messages
                    ),
                    "leased": len(group.leases),
                }
                for name, group in sorted(mailbox.groups.items(), key=lambda item: item[0].encode())
            ],
        }

    def send(
        self,
        mail_address: str,
        payload: str,
        *,
        priority: str = "normal",
        key: str = "",
        delay: int = 0,
        ttl: int = 0,
        tags: tuple[str, ...] = (),
        dedup_id: str = "",
    ) -> int:
        """SEND; -1 for a delayed message."""
        mailbox = self._mailbox(mail_address)
        if dedup_id in mailbox.dedup:
            reply, until = mailbox.dedup[dedup_id]
            if self.now_ms < until:
                return reply
        expires = self.now_ms + 1000 * ttl if ttl else None
        message = Message(payload, PRIORITIES.index(priority), key, tuple(dict.fromkeys(tags)), expires)
        if delay:
            message.due_ms = self.now_ms + 1000 * delay
            if expires is None or expires > message.due_ms:
                mailbox.delayed.append(message)
            reply = -1
        else:
            reply = self._make_visible(mailbox, message, self.now_ms)
        if dedup_id:
            mailbox.dedup[dedup_id] = (reply, self.now_ms + DEDUP_WINDOW_MS)
        return reply

    def fetch(
        self,
        mail_address: str,
        *,
        group_name: str = "",
        deliver: str = "latest",
        from_time: int | None = None,
        from_id: int | None = None,
        force_deliver: bool = False,
        num_msgs: int = 100,
        lease_ms: int = 0,
        lease_name: str = "",
    ) -> list[dict[str, Any]]:
        """FETCH that does not wait; `lease_name` stands for the lease_id that the broker will make."""
        meets = self._condition(deliver, from_time, from_id)
        if lease_ms and not group_name:
            raise ModelError("invalid_argument")
        mailbox = self._mailbox(mail_address)
        if not group_name:
            start = meets(mailbox)
            found = [m for m in self._ordered(mailbox) if start(m)][:num_msgs]
            return [self._shown(m) for m in found]
        if group_name not in mailbox.groups or force_deliver:
            mailbox.groups[group_name] = Group(meets(mailbox))
        group = mailbox.groups[group_name]
        found = [
            message
            for message in self._ordered(mailbox)
            if group.meets(message)
            and message.msg_id not in group.confirmed
            and message.msg_id not in group.leases
            and message.msg_id not in group.hidden_until_ms
        ][:num_msgs]
        ids = [message.msg_id for message in found if message.msg_id is not None]
        if lease_ms:
            for msg_id in ids:
                group.leases[msg_id] = Lease(lease_name, self.now_ms + lease_ms)
                group.deliveries[msg_id] = group.deliveries.get(msg_id, 0) + 1
                group.leased_since_batch.add(msg_id)
        elif ids:
            group.batch = ids
            group.leased_since_batch = set()
        return [self._shown(m, group.deliveries.get(m.msg_id or 0, 0)) for m in found]

    def ack(
        self,
        mail_address: str,
        group_name: str,
        *,
        msg_id: int | None = None,
        msg_ids: tuple[int, ...] | None = None,
    ) -> None:
        """ACK."""
        if msg_ids is None and msg_id is None:
            raise ModelError("invalid_argument")
        mailbox = self._mailbox(mail_address)
        group = mailbox.groups.get(group_name)
        if group is None:
            return
        if msg_ids is None:
            assert msg_id is not None
            if msg_id in group.batch and msg_id not in group.leased_since_batch:
                msg_ids = tuple(group.batch[: group.batch.index(msg_id) + 1])
            else:
                msg_ids = (msg_id,)
        living = {m.msg_id for m in mailbox.messages}
        for confirmed in living.intersection(msg_ids):
            assert confirmed is not None
            group.confirmed.add(confirmed)
            group.leases.pop(confirmed, None)
            group.hidden_until_ms.pop(confirmed, None)

    def nack(
        self,
        mail_address: str,
        group_name: str,
        msg_ids: tuple[int, ...],
        *,
        lease: str = "",
        delay_ms: int = 0,
    ) -> None:
        """NACK; `lease` is the name given to the FETCH, "" for none."""
        mailbox = self._mailbox(mail_address)
        group = mailbox.groups.get(group_name)
        for msg_id in dict.fromkeys(msg_ids):
            if group is None or msg_id not in group.leases or lease not in ("", group.leases[msg_id].name):
                continue
            del group.leases[msg_id]
            if not self._delivery_ended(mail_address, mailbox, group_name, group, msg_id) and delay_ms:
                group.hidden_until_ms[msg_id] = self.now_ms + delay_ms

    def renew(
        self, mail_address: str, group_name: str, msg_ids: tuple[int, ...], lease_ms: int, *, lease: str = ""
    ) -> list[int]:
        """RENEW; the ids that were renewed, in the order named."""
        group = self._mailbox(mail_address).groups.get(group_name)
        renewed: list[int] = []
        for msg_id in dict.fromkeys(msg_ids):
            if group and msg_id in group.leases and lease in ("", group.leases[msg_id].name):
                group.leases[msg_id].until_ms = self.now_ms + lease_ms
                renewed.append(msg_id)
        self._settle()  # lease_ms 0 ends the lease at once
        return renewed

    def query(
        self,
        mail_address: str,
        *,
        key: str = "",
        tags: tuple[str, ...] = (),
        since: int | None = None,
        limit: int = 100,
        from_id: int | None = None,
    ) -> list[dict[str, Any]]:
        """QUERY."""
        found = [
            m
            for m in sorted(self._mailbox(mail_address).messages, key=lambda m: m.msg_id or 0)
            if (not key or m.key == key)
            and set(tags) <= set(m.tags)
            and (since is None or m.created_ms // 1000 >= since)
            and (from_id is None or (m.msg_id or 0) >= from_id)
        ]
        return [self._shown(m) for m in (found[:limit] if from_id is not None else found[-limit:])]

    def delete(self, mail_address: str, msg_id: int) -> bool:
        """DELETE of a message."""
        mailbox = self._mailbox(mail_address)
        if all(m.msg_id != msg_id for m in mailbox.messages):
            raise ModelError("message_not_found")
        mailbox.messages = [m for m in mailbox.messages if m.msg_id != msg_id]
        self._settle()
        return True

    # Pieces

    def _mailbox(self, address: str) -> Mailbox:
        if address not in self.mailboxes:
            raise ModelError("mailbox_not_found")
        return self.mailboxes[address]

    def _make_visible(self, mailbox: Mailbox, message: Message, created_ms: int) -> int:
        if message.key:
            mailbox.messages = [m for m in mailbox.messages if m.key != message.key]
        message.msg_id, message.created_ms = mailbox.next_id, created_ms
        mailbox.next_id += 1
        mailbox.messages.append(message)
        living = {m.msg_id for m in mailbox.messages}
        for group in mailbox.groups.values():
            for gone in [i for i in (*group.leases, *group.hidden_until_ms) if i not in living]:
                group.leases.pop(gone, None)
                group.hidden_until_ms.pop(gone, None)
        return message.msg_id

    def _delivery_ended(self, address: str, mailbox: Mailbox, name: str, group: Group, msg_id: int) -> bool:
        """A delivery ended without ACK; true when it was the last one allowed."""
        if not mailbox.max_deliveries or group.deliveries.get(msg_id, 0) < mailbox.max_deliveries:
            return False
        group.confirmed.add(msg_id)
        [message] = [m for m in mailbox.messages if m.msg_id == msg_id]
        target = self.mailboxes.get(mailbox.dead_letter)
        if target is not None and message.dead_letter_of is None:
            copy = Message(message.payload, message.lane, "", message.tags, None)
            copy.dead_letter_of = (address, name, msg_id)
            self._make_visible(target, copy, self.now_ms)
        return True

    def _condition(
        self, deliver: str, from_time: int | None, from_id: int | None
    ) -> Callable[[Mailbox], Callable[[Message], bool]]:
        if deliver == "earliest":
            return lambda mailbox: lambda message: True
        if deliver == "latest":

            def from_now_on(mailbox: Mailbox) -> Callable[[Message], bool]:
                first = mailbox.next_id
                return lambda message: (message.msg_id or 0) >= first

            return from_now_on
        if deliver == "from_time" and from_time is not None:
            return lambda mailbox: lambda message: message.created_ms // 1000 >= from_time
        if deliver == "from_id" and from_id is not None:
            return lambda mailbox: lambda message: (message.msg_id or 0) >= from_id
        raise ModelError("invalid_argument")

    @staticmethod
    def _ordered(mailbox: Mailbox) -> list[Message]:
        return sorted(mailbox.messages, key=lambda m: (m.lane, m.msg_id))

    @staticmethod
    def _shown(message: Message, deliveries: int = 0) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "msg_id": message.msg_id,
            "payload": message.payload,
            "priority": PRIORITIES[message.lane],
        }
        if message.dead_letter_of is None:
            shown["create_time_ms"] = message.created_ms
        else:
            source, group, msg_id = message.dead_letter_of
            shown["dead_letter"] = {"from": source, "group": group, "msg-id": str(msg_id)}
        if message.key:
            shown["key"] = message.key
        if message.tags:
            shown["tags"] = list(message.tags)
        if message.expires_ms is not None:
            shown["expires_at"] = message.expires_ms // 1000
        if deliveries:
            shown["delivery_count"] = deliveries
        return shown
