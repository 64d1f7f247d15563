"""What a user may do: requests, messages and subscriptions that he may not make, and what he hears then."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq9_broker.auth import Access, Permissions, User
from mq9_broker.auth.access import PermissionLists
from mq9_broker.auth.naming import forbidden
from mq9_broker.auth.passwords import hash_password
from mq9_broker.auth.permissions import covers, overlap

from .support import RawClient, Served, serving

SECRET = hash_password("secret", 4)


def greeting(name: str, more: bytes = b"") -> bytes:
    options = b'"verbose":false,"pedantic":false,"headers":true,"no_responders":true'
    return b'CONNECT {%b,"user":"%b","pass":"secret"}\r\n' % (options, name.encode()) + more


def access(**users: PermissionLists | None) -> Access:
    return Access(users=tuple(User(name, SECRET, permissions=lists) for name, lists in users.items()))


SENDER = PermissionLists(publish_allow=("$mq9.AI.MSG.SEND.>",), subscribe_allow=("_INBOX.>",))
TEAM = PermissionLists(publish_allow=("$mq9.AI.*.*.team.>",), publish_deny=("$mq9.AI.MSG.DELETE.>",))
FINDER = PermissionLists(publish_allow=("$mq9.AI.AGENT.DISCOVER",))


async def ask(served: Served, name: str, *subjects: str) -> list[str]:
    """Make requests in one write; return the code of each reply, "" for success."""
    client = await served.client(greeting(name))
    data = b"".join(
        b"PUB $mq9.AI.%b _INBOX.x.%d 1\r\na\r\n" % (s.encode(), n) for n, s in enumerate(subjects)
    )
    got = await client.ask(b"SUB _INBOX.x.* 1\r\n" + data)
    codes: dict[int, str] = {}
    for line, body in zip(got.split(b"\r\n")[::2], got.split(b"\r\n")[1::2], strict=False):
        number = int(line.split()[1].rpartition(b".")[2])
        codes[number] = "" if body == b"<a>" else json.loads(body)["code"]
    return [codes[number] for number in range(len(subjects))]


async def test_requests_without_permission_are_answered() -> None:
    users = access(sender=SENDER, team=TEAM, finder=FINDER, root=None)
    async with serving(access=users) as served:
        subjects = ("MSG.SEND.a", "MSG.FETCH.a", "MSG.SEND.b.c", "MAILBOX.CREATE", "AGENT.DISCOVER", "X")
        no = "unauthorized"
        assert await ask(served, "sender", *subjects) == ["", no, "", no, no, no]
        assert [request[0] for request in served.handler.requests] == [
            b"$mq9.AI.MSG.SEND.a",
            b"$mq9.AI.MSG.SEND.b.c",
        ]
        assert await ask(served, "finder", *subjects) == [no, no, no, no, "", no]
        assert await ask(served, "root", *subjects) == [""] * 6
        own = (
            "MSG.SEND.team.a",
            "MSG.FETCH.team.a.b",
            "MSG.SEND.team",
            "MSG.SEND.teams.a",
            "MSG.DELETE.team.a.1",
        )
        assert await ask(served, "team", *own) == ["", "", no, no, no]


async def test_the_reply_says_what_was_forbidden() -> None:
    async with serving(access=access(finder=FINDER)) as served:
        client = await served.client(greeting("finder"))
        got = await client.ask(b"SUB in.1 7\r\nPUB $mq9.AI.MSG.SEND.a in.1 0\r\n\r\n")
        body = b'{"error":"unauthorized: no permission for $mq9.AI.MSG.SEND.a","code":"unauthorized"}'
        assert got == b"MSG in.1 7 %d\r\n%b\r\n" % (len(body), body)


async def test_a_forbidden_request_without_reply_subject() -> None:
    async with serving(access=access(finder=FINDER)) as served:
        client = await served.client(greeting("finder"))
        got = await client.ask(b"PUB $mq9.AI.MSG.SEND.a 0\r\n\r\n")
        assert got == b"""-ERR 'Permissions Violation for Publish to "$mq9.AI.MSG.SEND.a"'\r\n"""
        assert served.handler.requests == []


MAKER = PermissionLists(publish_allow=("$mq9.AI.MAILBOX.CREATE",))
TEAM_MAKER = PermissionLists(publish_allow=("$mq9.AI.MAILBOX.CREATE", "$mq9.AI.*.*.team.>"))


@pytest.mark.parametrize(
    ("body", "maker", "team", "root"),
    [
        ("", "", "", ""),
        ("{}", "", "", ""),
        ('{"name":""}', "", "", ""),
        ('{"name":null,"dead_letter":null}', "", "", ""),
        ('{"name":"team.a"}', "MAILBOX.CREATE.team.a", "", ""),
        ('{"name":"team.a","dead_letter":"team.dead"}', "MAILBOX.CREATE.team.a", "", ""),
        ('{"name":"teams.a"}', "MAILBOX.CREATE.teams.a", "MAILBOX.CREATE.teams.a", ""),
        ('{"dead_letter":"other"}', "MSG.SEND.other", "MSG.SEND.other", ""),
        ('{"name":"team.a","dead_letter":"other"}', "MAILBOX.CREATE.team.a", "MSG.SEND.other", ""),
        ('{"name":"other","name":"team.a"}', "MAILBOX.CREATE.team.a", "", ""),
        ('{"name":"team.a","name":"\\u006fther"}', "MAILBOX.CREATE.other", "MAILBOX.CREATE.other", ""),
        ('{"name":"team.*"}', "MAILBOX.CREATE.team.*", "", ""),
        # The handler says what is wrong with these.
        ('{"name":["other"]}', "", "", ""),
        ('{"name":"other"', "", "", ""),
        ('["other"]', "", "", ""),
        ("[" * 10_000, "", "", ""),
    ],
)
def test_who_creates_may_name_only_what_he_has_permission_for(
    body: str, maker: str, team: str, root: str
) -> None:
    for lists, expected in ((MAKER, maker), (TEAM_MAKER, team), (PermissionLists(), root)):
        user = Permissions(lists.publish_allow, lists.publish_deny)
        found = forbidden(user, b"$mq9.AI.MAILBOX.CREATE", body.encode())
        assert found == (f"$mq9.AI.{expected}" if expected else "")


async def test_a_name_without_permission_is_answered() -> None:
    async with serving(access=access(maker=MAKER)) as served:
        client = await served.client(greeting("maker"))
        body = b'{"name":"a"}'
        got = await client.ask(
            b"SUB in.1 7\r\nPUB $mq9.AI.MAILBOX.CREATE in.1 %d\r\n%b\r\n" % (len(body), body)
        )
        assert b'"unauthorized: no permission for $mq9.AI.MAILBOX.CREATE.a","code":"unauthorized"' in got
        assert served.handler.requests == []
        got = await client.ask(b"PUB $mq9.AI.MAILBOX.CREATE in.1 2\r\n{}\r\n")
        assert got == b"MSG in.1 7 4\r\n<{}>\r\n"


async def test_a_client_library_gets_the_code() -> None:
    async with serving(access=access(sender=SENDER)) as served:
        client = await nats.connect(served.url, user="sender", password="secret")
        reply = json.loads((await client.request("$mq9.AI.MSG.FETCH.a", b"", timeout=5)).data)
        assert reply["code"] == "unauthorized"
        assert (await client.request("$mq9.AI.MSG.SEND.a", b"a", timeout=5)).data == b"<a>"
        await client.close()


# Outside of `$mq9.AI.`: as a real nats-server, asked in the same way. One difference: there, `>` at the end
# of a subscription is covered by `*` in a list; here it is more than that: `w.*` does not allow `w.>`.

LISTS = {
    "writer": {"publish": {"allow": ["a", "b.*", "c.>"], "deny": ["b.no", "c.no.>"]}, "subscribe": [">"]},
    "reader": {
        "publish": ["x"],
        "subscribe": {"allow": ["a.>", "b", "q work", "w.*"], "deny": ["a.no", "a.b.*"]},
    },
    "noisy": {"subscribe": {"deny": ["secret", "no.>", "job work"]}},
}
DIALOGS = {
    "writer": [
        b"SUB > 1\r\n",
        *(
            b"PUB %b 1\r\nx\r\n" % s
            for s in (b"a", b"b", b"b.x", b"b.no", b"c", b"c.d.e", b"c.no", b"c.no.x", b"d")
        ),
    ],
    "reader": [
        *(
            b"SUB %b\r\n" % s
            for s in (
                b"a.x 1",
                b"a.> 2",
                b"> 3",
                b"a.no 4",
                b"a.b.c 5",
                b"b 7",
                b"b.c 8",
                b"q 9",
                b"q work 10",
                b"q other 11",
                b"w.* 12",
                b"a.*.x 14",
                b"b group 15",
            )
        ),
    ],
    "noisy": [
        b"SUB secret 1\r\n",
        b"SUB no.x 2\r\n",
        b"SUB no 3\r\n",
        b"SUB job 4\r\n",
        b"SUB job work 5\r\n",
    ],
}


def lists_of(name: str) -> PermissionLists:
    found: dict[str, tuple[str, ...]] = {}
    for verb, entries in LISTS[name].items():
        parts = entries if isinstance(entries, dict) else {"allow": entries}
        for kind, subjects in parts.items():
            found[f"{verb}_{kind}"] = tuple(subjects)
    return PermissionLists(**found)


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("nats-server")
    users = [{"user": name, "password": "secret", "permissions": LISTS[name]} for name in LISTS]
    users.append({"user": "root", "password": "secret"})
    (folder / "nats.conf").write_text(json.dumps({"authorization": {"users": users}}))
    program = str(Path(sys.executable).parent / "nats-server")
    command = [
        program,
        "-a",
        "127.0.0.1",
        "-p",
        "-1",
        "-c",
        str(folder / "nats.conf"),
        "--ports_file_dir",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            found = list(folder.glob("nats-server_*.ports"))
            if found and (text := found[0].read_text()):
                break
            import time

            time.sleep(0.05)
        yield int(json.loads(text)["nats"][0].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(
    not (Path(sys.executable).parent / "nats-server").exists() and not shutil.which("nats-server"),
    reason="no nats-server",
)
@pytest.mark.parametrize("name", list(LISTS))
async def test_as_a_real_server(real_server: int, name: str) -> None:
    users = access(**{each: lists_of(each) for each in LISTS}, root=None)
    async with serving(access=users) as served:
        transcripts: list[list[bytes]] = []
        for port in (real_server, served.port):
            client = await RawClient.connect(port, greeting(name))
            answers = [await client.ask(data) for data in DIALOGS[name]]
            # What others publish: which of it reaches the client.
            root = await RawClient.connect(port, greeting("root"))
            for subject in (b"a.x", b"a.no", b"a.b.c", b"a.z.x", b"b", b"secret", b"no", b"no.x", b"w.1"):
                await root.ask(b"PUB %b 1\r\nx\r\n" % subject)
            answers += sorted((await client.ask(b"")).split(b"MSG "))
            transcripts.append(answers)
            await client.close()
            await root.close()
        assert transcripts[1] == transcripts[0]


async def test_messages_of_denied_subjects_stay_away_from_wider_subscriptions() -> None:
    lists = PermissionLists(subscribe_deny=("secret.>",))
    async with serving(access=access(noisy=lists, root=None)) as served:
        client = await served.client(greeting("noisy", b"SUB > 1\r\nSUB secret.* 2\r\n"))
        await client.ask(b"")
        root = await served.client(greeting("root"))
        await root.ask(b"PUB secret.a 1\r\nx\r\nPUB open.a 1\r\ny\r\n")
        assert await client.ask(b"") == b"MSG open.a 1 1\r\ny\r\n"


def test_permissions_are_remembered_within_bounds() -> None:
    permissions = Permissions(["a.*"])
    for number in range(10_000):
        assert permissions.may_publish(b"a.%d" % number)
        assert not permissions.may_publish(b"b.%d" % number)
    assert len(permissions._can_publish) <= 4096


# Patterns, by the subjects that they stand for.

tokens = st.sampled_from([b"a", b"b", b"*"])
patterns = st.lists(tokens, min_size=1, max_size=3).flatmap(
    lambda some: st.sampled_from([tuple(some), (*some, b">")])
)
SUBJECTS = [
    (first, *rest)
    for first in (b"a", b"b", b"c")
    for rest in [(), *((x,) for x in (b"a", b"b", b"c"))]
    + [(x, y) for x in (b"a", b"b", b"c") for y in (b"a", b"b", b"c")]
    + [(x, y, z) for x in (b"a", b"b", b"c") for y in (b"a", b"b", b"c") for z in (b"a", b"b", b"c")]
]


def matching(pattern: tuple[bytes, ...]) -> set[tuple[bytes, ...]]:
    def fits(subject: tuple[bytes, ...]) -> bool:
        if pattern[-1] == b">":
            head = pattern[:-1]
            if len(subject) <= len(head):
                return False
            subject = subject[: len(head)]
        else:
            head = pattern
        return len(subject) == len(head) and all(p in (b"*", s) for p, s in zip(head, subject, strict=True))

    return {subject for subject in SUBJECTS if fits(subject)}


@given(patterns, patterns)
def test_patterns(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    assert covers(one, other) == (matching(other) <= matching(one))
    assert overlap(one, other) == bool(matching(one) & matching(other))


async def test_many_kinds_of_requests_in_one_chunk_keep_their_order() -> None:
    async with serving(access=access(sender=SENDER)) as served:
        client = await served.client(greeting("sender", b"SUB _INBOX.x.* 1\r\n"))
        parts = []
        for number in range(300):
            operation = b"SEND" if number % 3 else b"FETCH"
            parts.append(b"PUB $mq9.AI.MSG.%b.a _INBOX.x.%d 3\r\n%03d\r\n" % (operation, number, number))
        got = await client.ask(b"".join(parts))
        assert got.count(b"unauthorized") == 200
        assert [request[3] for request in served.handler.requests] == [
            b"%03d" % number for number in range(300) if number % 3
        ]
        await asyncio.sleep(0)
