"""What clients did and saw while the broker was killed again and again, and what must hold of it."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

LANES = ("critical", "urgent", "normal")


@dataclass
class Sent:
    """One message, from the side of its sender. Times are seconds."""

    name: str
    sender: int
    number: int
    mailbox: str
    lane: str
    has_dedup_id: bool
    delay: int
    sent_at: float
    """When it was sent for the first time."""
    replies: list[int] = field(default_factory=list)
    """The msg_id of each successful reply."""


@dataclass
class Delivered:
    """One delivery under a lease, from the side of the worker."""

    msg_id: int
    name: str
    asked_at: float
    got_at: float
    lease: float


@dataclass
class Box:
    """What is known of one mailbox and its group."""

    deliveries: dict[int, list[Delivered]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[int, float] = field(default_factory=dict)
    """When the reply to the ACK arrived."""
    maybe_acknowledged: set[int] = field(default_factory=set)
    given_back: dict[int, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))
    """NACKs: when asked, when answered under the lease (0 = it may have been without effect), delay."""


def as_kept(moment: float) -> float:
    """Return a moment as the broker keeps it: in whole milliseconds, rounded down."""
    return int(moment * 1000) / 1000


class History:
    """Collects, and judges at the end."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.boxes: dict[str, Box] = defaultdict(Box)
        self.agents: set[str] = set()
        """Those whose REGISTER was answered."""
        self.problems: list[str] = []

    def delivered(
        self, mailbox: str, message: dict[str, Any], asked_at: float, got_at: float, lease: float
    ) -> None:
        """Take note of a delivery, and compare it with what is known."""
        box = self.boxes[mailbox]
        msg_id = message["msg_id"]
        name = base64.b64decode(message["payload"]).decode()
        where = f"{mailbox} message {msg_id} ({name})"
        sent = self.sent.get(name)
        if sent is None:
            self.problems.append(f"{where}: nobody sent it")
            return
        early = as_kept(sent.sent_at) + sent.delay - got_at
        if early > 0:
            self.problems.append(f"{where}: delivered {early:.3f} s too early")
        if message["priority"] != sent.lane:
            self.problems.append(f"{where}: it has become {message['priority']}")
        # A FETCH that was asked before the ACK's reply was there may have been carried out before the ACK.
        if asked_at > box.acknowledged.get(msg_id, float("inf")):
            self.problems.append(f"{where}: it came back after its ACK was answered")
        for earlier in box.deliveries[msg_id]:
            if earlier.name != name:
                self.problems.append(f"{where}: it was {earlier.name} before")
            self._compare_leases(where, box, earlier, got_at)
        for asked, answered, delay in box.given_back[msg_id]:
            early = as_kept(asked) + delay - got_at
            if answered and asked < asked_at and early > 0:
                self.problems.append(f"{where}: given back with a delay, it came {early:.3f} s early")
        box.deliveries[msg_id].append(Delivered(msg_id, name, asked_at, got_at, lease))

    def _compare_leases(self, where: str, box: Box, earlier: Delivered, got_at: float) -> None:
        hidden_until = as_kept(earlier.asked_at) + earlier.lease
        given_back = any(asked > earlier.asked_at for asked, _, _ in box.given_back[earlier.msg_id])
        if got_at < hidden_until and not given_back:
            self.problems.append(f"{where}: it was leased for {hidden_until - got_at:.3f} s more")

    def judge(self, contents: dict[str, list[dict[str, Any]]], agents: set[str]) -> list[str]:
        """Return what is wrong, given every mailbox as it is at the end, all drained, and the agents."""
        problems = self.problems
        for mailbox, messages in contents.items():
            problems += self._judge_mailbox(mailbox, messages)
        problems += [f"agent {name} is lost" for name in sorted(self.agents - agents)]
        return problems

    def _judge_mailbox(self, mailbox: str, messages: list[dict[str, Any]]) -> list[str]:
        problems: list[str] = []
        box = self.boxes[mailbox]
        found: dict[str, list[int]] = defaultdict(list)
        for message in messages:
            found[base64.b64decode(message["payload"]).decode()].append(message["msg_id"])
        all_ids = [message["msg_id"] for message in messages]
        if all_ids != sorted(set(all_ids)):
            problems.append(f"{mailbox}: its ids do not ascend")
        for name in found.keys() - self.sent.keys():
            problems.append(f"{mailbox}: {name} was never sent")
        for sent in self.sent.values():
            if sent.mailbox == mailbox:
                problems += self._judge_message(sent, found[sent.name], box)
        problems += self._judge_order(mailbox, found)
        return problems

    @staticmethod
    def _judge_message(sent: Sent, ids: list[int], box: Box) -> list[str]:
        problems: list[str] = []
        where = f"{sent.mailbox} {sent.name}"
        if sent.replies and not ids:
            problems.append(f"{where}: acknowledged, and lost")
        if len(ids) > 1:
            problems.append(f"{where}: {len(ids)} times")
        if len(set(sent.replies)) > 1:
            problems.append(f"{where}: acknowledged as {sent.replies}")
        if sent.replies and ids and sent.replies[0] not in (-1, ids[0]):
            problems.append(f"{where}: acknowledged as {sent.replies[0]}, it is {ids[0]}")
        for msg_id in ids:
            if msg_id not in box.deliveries:
                problems.append(f"{where}: never delivered to the group")
        return problems

    def _judge_order(self, mailbox: str, found: dict[str, list[int]]) -> list[str]:
        """Messages of a sender, not delayed and sent but once, stand in the order they were sent in."""
        last: dict[int, int] = {}
        problems: list[str] = []
        for sent in sorted(self.sent.values(), key=lambda sent: sent.number):
            if sent.mailbox != mailbox or sent.delay or sent.has_dedup_id or not found[sent.name]:
                continue
            msg_id = found[sent.name][0]
            if msg_id <= last.get(sent.sender, -1):
                problems.append(f"{mailbox} {sent.name}: before what its sender sent before")
            last[sent.sender] = msg_id
        return problems
