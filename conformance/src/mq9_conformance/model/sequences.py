"""Random sequences of operations, made by hypothesis: small worlds, in which things meet."""

from __future__ import annotations

from itertools import chain
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .comparison import Step

BOX, OTHER, DEAD = "box1", "box2", "boxdead"
GROUPS = ("g", "h")
# Seconds, leases and delays never end in the same millisecond: which of two things that fall due together
# comes first is the broker's choice, and the model has another.
LEASES_MS = (1_003, 2_003, 30_003)
RENEWALS_MS = (0, 1_011, 9_011)
NACK_DELAYS_MS = (0, 507, 1_507)
ADVANCES_MS = (1, 600, 1_000, 1_005, 2_100, 5_000, 31_000, 120_000)


def _options(required: dict[str, Any], optional: dict[str, Any]) -> SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            name: value if isinstance(value, SearchStrategy) else st.just(value)
            for name, value in required.items()
        },
        optional=optional,
    )


def _step(
    method: str, required: dict[str, Any], optional: dict[str, Any] | None = None
) -> SearchStrategy[Step]:
    return _options(required, optional or {}).map(lambda arguments: Step(method, arguments))


_working = st.sampled_from([BOX, BOX, BOX, OTHER])
_group = st.sampled_from(GROUPS)
_msg_id = st.integers(0, 6)
_msg_ids = st.lists(_msg_id, min_size=1, max_size=4)
_payload = st.sampled_from(["a", "b", "c", "d"])
_priority = st.sampled_from(["critical", "urgent", "normal"])
_tags = st.lists(st.sampled_from(["red", "blue"]), min_size=1, max_size=2)

_create = _step(
    "mailbox_create",
    {"name": _working},
    {"ttl": st.sampled_from([2, 100]), "max_deliveries": st.integers(1, 2), "dead_letter": st.just(DEAD)},
)
_send = _step(
    "send",
    {"mail_address": _working, "payload": _payload},
    {
        "priority": _priority,
        "key": st.sampled_from(["k", "l"]),
        "delay": st.integers(1, 3),
        "ttl": st.integers(1, 4),
        "tags": _tags,
        "dedup_id": st.sampled_from(["x", "y"]),
    },
)
_plain_send = _step("send", {"mail_address": BOX, "payload": _payload}, {"priority": _priority})
_deliver = st.sampled_from(
    [
        {},
        {"deliver": "earliest"},
        {"deliver": "earliest"},
        {"deliver": "latest"},
        {"deliver": "from_id", "from_id": 2},
        {"deliver": "from_time", "from_time": 1_800_000_002},
        {"deliver": "from_id"},
    ]
)
_fetch = st.builds(
    lambda arguments, deliver: Step("fetch", {**arguments, **deliver}),
    _options(
        {"mail_address": _working, "group_name": _group},
        {
            "num_msgs": st.integers(1, 3),
            "lease_ms": st.sampled_from(LEASES_MS),
            "force_deliver": st.sampled_from([False, False, True]),
        },
    ),
    _deliver,
)
_work = _step(
    "fetch",
    {
        "mail_address": BOX,
        "group_name": "g",
        "deliver": "earliest",
        "lease_ms": st.sampled_from(LEASES_MS),
        "num_msgs": st.integers(1, 3),
    },
)
_stateless = st.builds(
    lambda box, deliver, num_msgs: Step("fetch", {"mail_address": box, "num_msgs": num_msgs, **deliver}),
    _working,
    _deliver,
    st.integers(1, 3),
)
_ack = st.one_of(
    _step("ack", {"mail_address": _working, "group_name": _group, "msg_id": _msg_id}),
    _step("ack", {"mail_address": _working, "group_name": _group, "msg_ids": _msg_ids}),
)
_nack = _step(
    "nack",
    {"mail_address": _working, "group_name": _group, "msg_ids": _msg_ids},
    {"delay_ms": st.sampled_from(NACK_DELAYS_MS)},
)
_renew = _step(
    "renew",
    {
        "mail_address": _working,
        "group_name": _group,
        "msg_ids": _msg_ids,
        "lease_ms": st.sampled_from(RENEWALS_MS),
    },
)
_query = _step(
    "query",
    {"mail_address": _working},
    {
        "key": st.just("k"),
        "tags": _tags,
        "since": st.just(1_800_000_002),
        "limit": st.integers(1, 2),
        "from_id": st.integers(0, 3),
    },
)
_look = st.one_of(
    _step("mailbox_info", {"mail_address": st.sampled_from([BOX, OTHER, DEAD])}),
    _query,
    _step("query", {"mail_address": DEAD}),
)
_remove = st.one_of(
    _step("delete", {"mail_address": _working, "msg_id": _msg_id}),
    _step("mailbox_delete", {"mail_address": _working}),
)
_advance = _step("advance", {"milliseconds": st.sampled_from(ADVANCES_MS)})

# How often each comes, roughly; `one_of` would leave repeats out.
_weighted = [
    *[_send] * 4, *[_plain_send] * 6, *[_fetch] * 3, *[_work] * 6, _stateless, *[_ack] * 4, *[_nack] * 4,
    *[_renew] * 2, *[_look] * 2, *[_advance] * 8, _remove, _create,
]  # fmt: skip
_any_step = st.sampled_from(_weighted).flatmap(lambda step: step)


@st.composite
def sequences(draw: st.DrawFn) -> list[Step]:
    """Two mailboxes and one for dead letters, then anything; every lease that is named exists by then."""
    parts = [draw(st.lists(_any_step, max_size=30)) for _ in range(5)]  # one long list stays short by itself
    steps = [Step("mailbox_create", {"name": DEAD}), draw(_create), *chain.from_iterable(parts)]
    fetches, named = 0, []
    leased: list[int] = []
    for step in steps:
        if step.method in {"nack", "renew"} and leased and draw(st.booleans()):
            named.append(Step(step.method, {**step.arguments, "lease": draw(st.sampled_from(leased))}))
            continue
        if step.method == "fetch":
            if step.arguments.get("lease_ms"):
                leased.append(fetches)
            fetches += 1
        named.append(step)
    # A last look at everything.
    return [
        *named,
        *(Step(m, {"mail_address": box}) for box in (BOX, OTHER, DEAD) for m in ("mailbox_info", "query")),
    ]
