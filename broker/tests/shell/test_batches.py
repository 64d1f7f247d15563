"""What the ACK of one message confirms."""

from mq9_broker.shell.batches import Batches


def test_an_ack_confirms_what_stood_before_it_in_its_batch() -> None:
    batches = Batches()
    batches.delivered(b"a", "g", (10, 3, 4))
    assert batches.confirmed_by(b"a", "g", 3) == (10, 3)
    assert batches.confirmed_by(b"a", "g", 10) == (10,)
    assert batches.confirmed_by(b"a", "g", 4) == (10, 3, 4)


def test_a_message_in_no_batch_is_confirmed_alone() -> None:
    batches = Batches()
    assert batches.confirmed_by(b"a", "g", 5) == (5,)
    batches.delivered(b"a", "g", (1, 2, 3))
    assert batches.confirmed_by(b"a", "g", 5) == (5,)
    assert batches.confirmed_by(b"a", "h", 3) == (3,)
    assert batches.confirmed_by(b"b", "g", 3) == (3,)


def test_only_the_newest_batch_counts() -> None:
    batches = Batches()
    batches.delivered(b"a", "g", (1, 2))
    batches.delivered(b"a", "g", (2, 3))
    assert batches.confirmed_by(b"a", "g", 1) == (1,)
    assert batches.confirmed_by(b"a", "g", 3) == (2, 3)


def test_what_was_delivered_again_under_a_lease_is_confirmed_alone_but_still_stood_before_the_others() -> (
    None
):
    batches = Batches()
    batches.delivered(b"a", "g", (1, 2, 3))
    batches.leased(b"a", "g", (2, 7))
    assert batches.confirmed_by(b"a", "g", 2) == (2,)
    assert batches.confirmed_by(b"a", "g", 3) == (1, 2, 3)
    batches.delivered(b"a", "g", (1, 2))
    assert batches.confirmed_by(b"a", "g", 2) == (1, 2)


def test_forgetting_a_group_or_a_mailbox() -> None:
    batches = Batches()
    for group in ("g", "h"):
        batches.delivered(b"a", group, (1, 2))
        batches.delivered(b"b", group, (1, 2))
    batches.forget(b"a", "g")
    assert batches.confirmed_by(b"a", "g", 2) == (2,)
    batches.forget_mailbox(b"a")
    assert batches.confirmed_by(b"a", "h", 2) == (2,)
    assert batches.confirmed_by(b"b", "h", 2) == (1, 2)
    batches.forget_mailbox(b"never seen")


def test_memory_is_bounded() -> None:
    batches = Batches(ids_kept=10)
    for number in range(100):
        batches.delivered(b"%d" % number, "g", (1, 2, 3))
    assert len(batches) == 3
    assert batches.confirmed_by(b"99", "g", 2) == (1, 2)
    assert batches.confirmed_by(b"0", "g", 2) == (2,)
