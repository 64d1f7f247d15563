"""Messages beside the store: those that fit are not read from it again, the others are, and all are right."""

import pytest

from mq9_broker._generated.commands import MailboxCreate, MsgFetch
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.keys import MESSAGES_SUFFIX
from mq9_broker.store import MemoryStore

from .support import BOX, START_MS, opened

MIB = 2**20
COUNT = 600


class Counting(MemoryStore):
    """Counts how often messages are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        get = self.get

        def counted(key: bytes) -> bytes | None:
            self.reads += key.endswith(MESSAGES_SUFFIX)
            return get(key)

        self.get = counted


def fill(engine: Engine, payload: bytes) -> None:
    engine.apply(START_MS, [MailboxCreate(BOX.encode())])
    for _ in range(COUNT):
        engine.apply(START_MS, [(BOX.encode(), 2, b"", payload, None)] * 2)


def fetch_all(engine: Engine) -> list[int]:
    found: list[int] = []
    while True:
        command = MsgFetch(BOX.encode(), "g", num_msgs=10, lease_ms=60_000, deliver="earliest")
        (reply, _) = engine.apply(START_MS, [command]).results[0]
        messages = opened(reply)["messages"]
        found += [message["msg_id"] for message in messages]
        if not messages:
            return found


@pytest.mark.parametrize(
    ("size", "cache", "is_read"),
    [
        (60_000, 0, True),
        (60_000, 16 * MIB, True),
        (60_000, 2 * COUNT * 80_000, False),
        (10, 0, True),
        (10, 16 * MIB, False),
    ],
)
def test_a_backlog_that_fits_is_not_read_again(size: int, cache: int, is_read: bool) -> None:
    store = Counting()
    engine = Engine(store, EngineLimits(), cache)
    fill(engine, b"x" * size)
    store.reads = 0
    assert fetch_all(engine) == list(range(2 * COUNT))
    assert store.reads > COUNT // 2 if is_read else store.reads == 0
