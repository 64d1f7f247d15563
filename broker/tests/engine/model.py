"""What the engine must do, said in the simplest way: no cursors, nothing kept up to date."""

from __future__ import annotations

from dataclasses import dataclass, field

FOREVER = 1 << 62
LANES = (0, 1, 2)


@dataclass
class Message:
    msg_id: int
    lane: int
    payload: str
    key: str
    tags: tuple[str, ...]
    created_ms: int
    expires_ms: int
    dead: bool = False
    """Carries the headers of a dead letter."""


@dataclass
class Hidden:
    deadline: int
    number: int
    token: int
    leased: bool


@dataclass
class Group:
    start: int
    from_time: int
    confirmed: set[int] = field(default_factory=set)
    hidden: dict[int, Hidden] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)


@dataclass
class Delayed:
    due: int
    number: int
    lane: int
    payload: str
    key: str
    tags: tuple[str, ...]
    expires_ms: int


class Model:
    """One mailbox."""

    def __init__(self, now: int, *, max_deliveries: int = 0, dead_letter: bool = False) -> None:
        self.now = now
        self.max_deliveries = max_deliveries
        self.dead_letter = dead_letter
        self.messages: dict[int, Message] = {}
        self.groups: dict[str, Group] = {}
        self.delayed: list[Delayed] = []
        self.dedup: dict[str, tuple[int, int]] = {}
        self.next_id = 0
        self.number = 0
        self.dead_letters: list[tuple[str, int, int]] = []
        """(group, msg_id, count) since the last look."""

    def _number(self) -> int:
        self.number += 1
        return self.number

    # Time

    def pass_to(self, now: int) -> None:
        while True:
            dues: list[tuple[int, int, Delayed | tuple[Group, str, int]]] = [
                (d.due, d.number, d) for d in self.delayed
            ]
            for name, group in self.groups.items():
                seen = set()
                for hidden in group.hidden.values():
                    if hidden.number not in seen:
                        seen.add(hidden.number)
                        dues.append((hidden.deadline, hidden.number, (group, name, hidden.number)))
            dues.sort(key=lambda due: due[:2])
            if not dues or dues[0][0] > now:
                break
            self.now, _, what = dues[0]
            if isinstance(what, Delayed):
                self.delayed.remove(what)
                self._store(what.lane, what.payload, what.key, what.tags, what.expires_ms)
            else:
                group, name, number = what
                ended = [msg_id for msg_id, hidden in group.hidden.items() if hidden.number == number]
                self._end(name, ended, 0)
        self.now = now

    def alive(self, msg_id: int) -> bool:
        message = self.messages.get(msg_id)
        return message is not None and message.expires_ms > self.now

    # Sending

    def send(
        self,
        lane: int,
        payload: str,
        key: str = "",
        delay_s: int = 0,
        ttl_s: int = 0,
        tags: tuple[str, ...] = (),
        dedup_id: str = "",
    ) -> int:
        if dedup_id in self.dedup and self.now < self.dedup[dedup_id][0]:
            return self.dedup[dedup_id][1]
        expires_ms = self.now + 1000 * ttl_s if ttl_s else FOREVER
        msg_id = -1
        if delay_s:
            due = self.now + 1000 * delay_s
            if expires_ms > due:
                self.delayed.append(Delayed(due, self._number(), lane, payload, key, tags, expires_ms))
        else:
            msg_id = self._store(lane, payload, key, tags, expires_ms)
        if dedup_id:
            self.dedup[dedup_id] = (self.now + 120_000, msg_id)
        return msg_id

    def _store(self, lane: int, payload: str, key: str, tags: tuple[str, ...], expires_ms: int) -> int:
        if key:
            for message in list(self.messages.values()):
                if message.key == key:
                    del self.messages[message.msg_id]
        msg_id = self.next_id
        self.next_id += 1
        self.messages[msg_id] = Message(msg_id, lane, payload, key, tags, self.now, expires_ms)
        return msg_id

    # Fetching

    def _start(self, deliver: str, where: int) -> tuple[int, int]:
        if deliver == "from_time":
            return 0, where
        return {"earliest": 0, "latest": self.next_id, "from_id": where}[deliver], 0

    def open_messages(self, group: Group) -> list[Message]:
        """What a FETCH of the group may give, in order."""
        return sorted(
            (
                message
                for message in self.messages.values()
                if self.alive(message.msg_id)
                and message.msg_id >= group.start
                and message.created_ms // 1000 >= group.from_time
                and message.msg_id not in group.confirmed
                and message.msg_id not in group.hidden
            ),
            key=lambda message: (message.lane, message.msg_id),
        )

    def fetch(
        self, name: str, deliver: str, where: int, force: bool, num_msgs: int, lease_ms: int
    ) -> tuple[list[int], dict[int, int], int]:
        """Returns ids, delivery counts, the lease's token."""
        if not name:
            group = Group(*self._start(deliver, where))
            return [m.msg_id for m in self.open_messages(group)[:num_msgs]], {}, 0
        if name not in self.groups or force:
            self.groups[name] = Group(*self._start(deliver, where))
        group = self.groups[name]
        batch = self.open_messages(group)[:num_msgs]
        token = 0
        if lease_ms and batch:
            token = self._number()
            for message in batch:
                group.hidden[message.msg_id] = Hidden(self.now + lease_ms, token, token, True)
                group.counts[message.msg_id] = group.counts.get(message.msg_id, 0) + 1
        return (
            [m.msg_id for m in batch],
            {m.msg_id: group.counts[m.msg_id] for m in batch if m.msg_id in group.counts},
            token,
        )

    # Settling

    def ack(self, name: str, msg_ids: tuple[int, ...]) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        for msg_id in msg_ids:
            group.hidden.pop(msg_id, None)
            if self.alive(msg_id):
                group.confirmed.add(msg_id)

    def _held(self, name: str, msg_ids: tuple[int, ...], token: int) -> list[int]:
        group = self.groups.get(name)
        held: list[int] = []
        if group is None:
            return held
        for msg_id in dict.fromkeys(msg_ids):
            hidden = group.hidden.get(msg_id)
            if hidden is not None and hidden.leased and self.alive(msg_id) and token in {0, hidden.token}:
                held.append(msg_id)
        return held

    def nack(self, name: str, msg_ids: tuple[int, ...], token: int, delay_ms: int) -> None:
        self._end(name, self._held(name, msg_ids, token), delay_ms)

    def renew(self, name: str, msg_ids: tuple[int, ...], token: int, lease_ms: int) -> list[int]:
        held = self._held(name, msg_ids, token)
        if not lease_ms:
            self._end(name, held, 0)
            return held
        number = self._number()
        for msg_id in held:
            hidden = self.groups[name].hidden[msg_id]
            hidden.deadline, hidden.number = self.now + lease_ms, number
        return held

    def _end(self, name: str, msg_ids: list[int], delay_ms: int) -> None:
        number = self._number()
        for msg_id in msg_ids:
            group = self.groups[name]
            count = group.counts[msg_id]
            token = group.hidden.pop(msg_id).token
            if not self.alive(msg_id):
                continue
            if self.max_deliveries and count >= self.max_deliveries:
                group.confirmed.add(msg_id)
                if self.dead_letter:
                    self.dead_letters.append((name, msg_id, count))
            elif delay_ms:
                group.hidden[msg_id] = Hidden(self.now + delay_ms, number, token, False)

    # The rest

    def delete(self, msg_id: int) -> bool:
        found = self.alive(msg_id)
        if found:
            del self.messages[msg_id]
        return found

    def query(
        self, key: str, tags: tuple[str, ...], since: int | None, from_id: int | None, limit: int
    ) -> list[int]:
        found = [
            m.msg_id
            for m in sorted(self.messages.values(), key=lambda m: m.msg_id)
            if self.alive(m.msg_id)
            and (not key or m.key == key)
            and set(tags) <= set(m.tags)
            and (since is None or m.created_ms // 1000 >= since)
            and (from_id is None or m.msg_id >= from_id)
        ]
        return found[-limit:] if from_id is None else found[:limit]

    def info(self) -> dict[str, object]:
        messages = [m for m in self.messages.values() if self.alive(m.msg_id)]
        groups = []
        for name in sorted(self.groups, key=str.encode):
            group = self.groups[name]
            leased = sum(self.alive(i) for i, hidden in group.hidden.items() if hidden.leased)
            waiting = sum(self.alive(i) for i, hidden in group.hidden.items() if not hidden.leased)
            groups.append(
                {"group_name": name, "pending": len(self.open_messages(group)) + waiting, "leased": leased}
            )
        return {
            "messages": {
                name: sum(m.lane == lane for m in messages)
                for lane, name in enumerate(("critical", "urgent", "normal"))
            },
            "delayed": len(self.delayed),
            "groups": groups,
        }
