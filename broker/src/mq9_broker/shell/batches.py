"""Which messages the newest un-leased FETCH of each consumer group delivered, in which order.

The ACK of one message delivered without a lease confirms all that stood before it in its batch. The engine
knows exact ids only; this memory turns the one into the others. It belongs to this process: what it has
forgotten is confirmed alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

# Ids remembered in all; beyond that the batches longest unused are forgotten.
IDS_KEPT: Final = 1_000_000

_Key = tuple[bytes, str]


class Batches:
    """The newest un-leased batch of each mailbox and group.

    Args:
        ids_kept: How many ids may be remembered in all.
    """

    def __init__(self, ids_kept: int = IDS_KEPT) -> None:
        self._ids_kept = ids_kept
        self._batches: OrderedDict[_Key, Sequence[int]] = OrderedDict()
        # Of those that were delivered under a lease since.
        self._leased: dict[_Key, set[int]] = {}
        self._groups: dict[bytes, set[str]] = {}
        self._count = 0

    def __len__(self) -> int:
        """The number of batches remembered."""
        return len(self._batches)

    def delivered(self, address: bytes, group: str, msg_ids: Sequence[int]) -> None:
        """Remember a batch that was delivered without a lease; an earlier one of the group is forgotten."""
        self.forget(address, group)
        self._put((address, group), msg_ids)
        while self._count > self._ids_kept:
            self.forget(*next(iter(self._batches)))

    def leased(self, address: bytes, group: str, msg_ids: Sequence[int]) -> None:
        """Note that messages were delivered under a lease since: the ACK of such a one confirms it alone."""
        batch = self._batches.get((address, group))
        if batch is not None:
            self._leased.setdefault((address, group), set()).update(set(msg_ids).intersection(batch))

    def confirmed_by(self, address: bytes, group: str, msg_id: int) -> Sequence[int]:
        """Return what the ACK of one message confirms: it, and all before it in its batch.

        A range where the batch was one.
        """
        batch = self._batches.get((address, group))
        if batch is None or msg_id in self._leased.get((address, group), ()):
            return (msg_id,)
        if batch[-1] == msg_id:
            # All of it: nothing is left that a later ACK could add.
            self.forget(address, group)
            return batch
        try:
            return batch[: batch.index(msg_id) + 1]
        except ValueError:
            return (msg_id,)

    def forget(self, address: bytes, group: str) -> None:
        """Forget a group's batch."""
        batch = self._batches.pop((address, group), None)
        if batch is not None:
            self._leased.pop((address, group), None)
            self._count -= len(batch)
            groups = self._groups[address]
            groups.discard(group)
            if not groups:
                del self._groups[address]

    def forget_mailbox(self, address: bytes) -> None:
        """Forget the batches of all groups of a mailbox that is gone."""
        for group in tuple(self._groups.get(address, ())):
            self.forget(address, group)

    def _put(self, key: _Key, msg_ids: Sequence[int]) -> None:
        self._batches[key] = msg_ids
        self._groups.setdefault(key[0], set()).add(key[1])
        self._count += len(msg_ids)
