"""Who may connect: every kind of credentials, shown by a public client library (nats-py)."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from mq9_broker.auth import Access, Authenticator, JwtAccess, User
from mq9_broker.auth.access import PermissionLists
from mq9_broker.auth.passwords import PasswordChecker, hash_password
from mq9_broker.transport import ListenerOptions

from .credentials import Authority, Key, creds_file, jwt
from .support import PLAIN, RawClient, Served, eventually, serving

SECRET = hash_password("secret", 4)
ALICE = User("alice", SECRET)
VIOLATION = b"-ERR 'Authorization Violation'\r\n"


@asynccontextmanager
async def connected(served: Served, **options: Any) -> AsyncIterator[Client]:
    async def ignore(_: Exception) -> None:
        pass

    options = {"allow_reconnect": False, "connect_timeout": 30, "error_cb": ignore, **options}
    client = await nats.connect(served.url, **options)
    try:
        yield client
    finally:
        if not client.is_closed:
            await client.close()


async def works(served: Served, **options: Any) -> None:
    async with connected(served, **options) as client:
        assert (await client.request("$mq9.AI.X", b"a", timeout=5)).data == b"<a>"


async def refused(served: Served, **options: Any) -> None:
    with pytest.raises(
        (nats.errors.Error, ConnectionError), match=r"(?i)authorization violation|closed|reset"
    ):
        async with connected(served, **options) as client:
            await client.flush(2)
    assert served.handler.requests == []


async def test_nobody_is_asked_where_there_are_no_users() -> None:
    async with serving() as served:
        client = await served.client()
        assert b"auth_required" not in client.info
        assert b"nonce" not in client.info
        await works(served, user="who", password="ever")


async def test_token() -> None:
    async with serving(access=Access(token=SECRET)) as served:
        await refused(served)
        await refused(served, token="wrong")
        await refused(served, user="alice", password="secret")
        await works(served, token="secret")


async def test_user_and_password() -> None:
    async with serving(access=Access(users=(ALICE, User("bob", hash_password("other", 4))))) as served:
        assert b'"auth_required":true' in (await served.client(b"")).info
        await refused(served)
        await refused(served, token="secret")
        await refused(served, user="alice", password="other")
        await refused(served, user="carol", password="secret")
        await refused(served, user="alice", password="secret" * 20)
        await works(served, user="alice", password="secret")
        await works(served, user="bob", password="other")


async def test_nkey(tmp_path: Path) -> None:
    key, stranger = Key("user"), Key("user")
    for name, owner in (("right", key), ("wrong", stranger)):
        (tmp_path / name).write_text(owner.seed)
    async with serving(access=Access(users=(User(nkey=key.public), ALICE))) as served:
        await refused(served, nkeys_seed=str(tmp_path / "wrong"))
        await works(served, nkeys_seed=str(tmp_path / "right"))
        await works(served, user="alice", password="secret")
        one, two = await served.client(b""), await served.client(b"")
        assert b'"nonce":"' in one.info
        assert one.info.split(b'"nonce":"')[1][:15] != two.info.split(b'"nonce":"')[1][:15]


async def test_a_signature_serves_no_other_connection() -> None:
    key = Key("user")
    async with serving(access=Access(users=(User(nkey=key.public),))) as served:
        one = await served.client(b"")
        two = await served.client(b"")
        nonce = one.info.split(b'"nonce":"')[1].split(b'"')[0]
        signature = base64.urlsafe_b64encode(key.sign(nonce))
        connect = b'CONNECT {"verbose":true,"nkey":"%b","sig":"%b"}\r\n' % (key.public.encode(), signature)
        assert await two.refused(connect) == VIOLATION
        one.send(connect)
        assert await one.until(b"\r\n") == b"+OK\r\n"


async def test_no_auth_user() -> None:
    access = Access(
        users=(ALICE, User("guest", permissions=PermissionLists(publish_allow=("$mq9.AI.X",)))),
        no_auth_user="guest",
    )
    async with serving(access=access) as served:
        await works(served)
        await works(served, user="alice", password="secret")
        await refused_password(served)


async def refused_password(served: Served) -> None:
    client = await served.client(b"")
    assert await client.refused(b'CONNECT {"user":"guest","pass":""}\r\n') == VIOLATION


@pytest.mark.parametrize(
    "data", [b"PING\r\n", b"SUB a 1\r\n", b"PUB $mq9.AI.X r 1\r\na\r\n", b"PUB a 1\r\na\r\n"]
)
async def test_nothing_happens_before_connect(data: bytes) -> None:
    async with serving(access=Access(users=(ALICE,))) as served:
        client = await served.client(b"")
        assert await client.refused(data + PLAIN) == VIOLATION
        assert served.handler.requests == []


async def test_what_follows_connect_waits_for_the_answer_to_it() -> None:
    async with serving(access=Access(users=(ALICE,))) as served:
        right = b'CONNECT {"verbose":false,"pedantic":false,"user":"alice","pass":"%b"}\r\n'
        after = b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\n"
        client = await served.client(right % b"secret" + after)
        client.send(b"PUB $mq9.AI.X in.2 1\r\nb\r\nPING\r\n")
        assert await client.until(b"PONG\r\n") == b"MSG in.1 1 3\r\n<a>\r\nMSG in.2 1 3\r\n<b>\r\nPONG\r\n"
        other = await served.client(b"")
        assert await other.refused(right % b"wrong" + after) == VIOLATION
        assert len(served.handler.requests) == 2


async def test_a_client_that_says_nothing_is_ended() -> None:
    options = ListenerOptions(auth_timeout=0.2)
    async with serving(options, Access(users=(ALICE,))) as served:
        client = await served.client(b"")
        assert await client.rest() == b"-ERR 'Authentication Timeout'\r\n"
        await works(served, user="alice", password="secret")


async def test_a_flood_of_wrong_passwords_holds_nobody_up() -> None:
    slow = hash_password("secret", 11)
    async with serving(access=Access(users=(User("alice", slow),))) as served:
        await works(served, user="alice", password="secret")
        greeting = b'CONNECT {"verbose":false,"pedantic":false,"user":"alice","pass":"%b"}\r\n'
        client = await served.client(greeting % b"secret")
        assert await client.ask(b"SUB in.* 1\r\n") == b""
        flood = [await served.client(greeting % b"%d" % number) for number in range(100)]
        # A hundred checks take several seconds of a thread: all of this happens long before they are done.
        for _ in range(50):
            assert await client.ask(b"PUB $mq9.AI.X in.1 1\r\na\r\n") == b"MSG in.1 1 3\r\n<a>\r\n"
        # So does a client that was there before: its password need not be checked again.
        await works(served, user="alice", password="secret")
        assert len(list(served.listener.connections)) > 50
        for other in flood:
            await other.close()
        # Nobody waits for the answer any more, so nobody works for it.
        newcomer = await served.client(greeting % b"wrong")
        assert await newcomer.rest() == VIOLATION


async def test_sources_of_passwords_take_turns() -> None:
    checker = PasswordChecker(threads=1)
    order: list[str] = []
    hashed = SECRET.encode()
    for number in range(5):
        checker.check(hashed, b"x%d" % number, "flood", lambda: True, lambda _: order.append("flood"))
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def finished(is_right: bool) -> None:
        order.append("other")
        done.set_result(is_right)

    checker.check(hashed, b"secret", "other", lambda: True, finished)
    assert await asyncio.wait_for(done, 10)
    assert order.count("flood") <= 2
    checker.close()


async def test_more_passwords_than_can_wait_are_refused() -> None:
    checker = PasswordChecker(threads=1)
    answers: list[bool] = []
    for number in range(1200):
        checker.check(SECRET.encode(), b"%d" % number, "flood", lambda: True, answers.append)
    assert answers == [False] * (1200 - 1024 - 1)
    checker.close()


# Decentralised JWTs.


def jwt_access(authority: Authority, *accounts: str) -> Access:
    return Access(jwt=JwtAccess(authority.operator_jwt, accounts or (authority.account_jwt(),)))


async def jwt_client(served: Served, text: str, key: Key, more: bytes = b"PING\r\n") -> RawClient:
    client = await served.client(b"")
    nonce = client.info.split(b'"nonce":"')[1].split(b'"')[0]
    signature = base64.urlsafe_b64encode(key.sign(nonce)).rstrip(b"=")
    options = b'"verbose":false,"pedantic":false,"headers":true,"jwt":"%b","sig":"%b"'
    client.send(b"CONNECT {" + options % (text.encode(), signature) + b"}\r\n" + more)
    return client


async def lets_in(access: Access, text: str, key: Key) -> bool:
    async with serving(access=access) as served:
        client = await jwt_client(served, text, key)
        answer = await client.until(b"\r\n")
        assert answer in (b"PONG\r\n", VIOLATION)
        return answer == b"PONG\r\n"


async def test_jwt_by_credentials_file(tmp_path: Path) -> None:
    authority, key = Authority(), Key("user")
    right = creds_file(tmp_path / "right.creds", authority.user_jwt(key), key)
    stolen = creds_file(tmp_path / "stolen.creds", authority.user_jwt(key), Key("user"))
    async with serving(access=jwt_access(authority)) as served:
        await refused(served)
        await refused(served, user_credentials=str(stolen))
        await works(served, user_credentials=str(right))


async def test_jwt_chain() -> None:
    authority, key, signer = Authority(), Key("user"), Key("account")
    access = jwt_access(authority)
    assert await lets_in(access, authority.user_jwt(key), key)
    assert not await lets_in(access, authority.user_jwt(key, issuer=Key("account")), key)
    assert not await lets_in(access, Authority().user_jwt(key), key)
    assert not await lets_in(access, authority.user_jwt(key)[:-4] + "AAAA", key)
    # A signing key of the account.
    text = authority.user_jwt(key, issuer=signer, issuer_account=authority.account.public)
    assert not await lets_in(access, text, key)
    assert await lets_in(
        jwt_access(authority, authority.account_jwt(signing_keys=[signer.public])), text, key
    )


async def test_jwt_times_and_revocation() -> None:
    authority, key = Authority(), Key("user")
    now = int(time.time())
    access = jwt_access(authority)
    assert await lets_in(access, authority.user_jwt(key, times={"exp": now + 100, "nbf": now - 1}), key)
    assert not await lets_in(access, authority.user_jwt(key, times={"exp": now - 1}), key)
    assert not await lets_in(access, authority.user_jwt(key, times={"nbf": now + 100}), key)
    for revoked in (key.public, "*"):
        account = authority.account_jwt(revocations={revoked: now})
        old = authority.user_jwt(key, times={"iat": now - 10})
        new = authority.user_jwt(key, times={"iat": now + 1})
        assert not await lets_in(jwt_access(authority, account), old, key)
        assert await lets_in(jwt_access(authority, account), new, key)


async def test_jwt_rules() -> None:
    authority, key, stranger = Authority(), Key("user"), Key("user")
    access = jwt_access(authority)
    assert await lets_in(access, authority.user_jwt(key, src=["10.0.0.0/8", "127.0.0.0/8"]), key)
    assert not await lets_in(access, authority.user_jwt(key, src=["10.0.0.0/8"]), key)
    assert not await lets_in(access, authority.user_jwt(key, src=["nonsense"]), key)
    assert await lets_in(access, authority.user_jwt(key, allowed_connection_types=["STANDARD"]), key)
    assert not await lets_in(access, authority.user_jwt(key, allowed_connection_types=["WEBSOCKET"]), key)
    assert await lets_in(access, authority.user_jwt(key, bearer_token=True), stranger)
    forbidden = authority.account_jwt(limits={"conn": -1, "disallow_bearer": True})
    assert not await lets_in(
        jwt_access(authority, forbidden), authority.user_jwt(key, bearer_token=True), key
    )
    always = [{"start": "00:00:00", "end": "12:00:00"}, {"start": "12:00:00", "end": "00:00:00"}]
    text = jwt(
        authority.account,
        key.public,
        {"type": "user", "times": always, "times_location": "Asia/Shanghai"},
    )
    assert await lets_in(access, text, key)
    never = [{"start": "00:00:00", "end": "00:00:00"}]
    text = jwt(authority.account, key.public, {"type": "user", "times": never})
    assert not await lets_in(access, text, key)


async def test_jwt_that_ends_while_connected() -> None:
    authority, key = Authority(), Key("user")
    async with serving(access=jwt_access(authority)) as served:
        text = authority.user_jwt(key, times={"exp": int(time.time()) + 2})
        client = await jwt_client(served, text, key)
        assert await client.until(b"\r\n") == b"PONG\r\n"
        assert await client.rest() == b"-ERR 'User Authentication Expired'\r\n"


async def test_jwt_permissions_of_user_account_and_signing_key() -> None:
    authority, key, signer = Authority(), Key("user"), Key("account")
    only_a = {"pub": {"allow": ["a"]}, "sub": {"deny": ["secret"]}}
    scope = {"key": signer.public, "kind": "user_scope", "template": only_a}
    account = authority.account_jwt(signing_keys=[scope], default_permissions=only_a)
    denied = b"""-ERR 'Permissions Violation for Publish to "b"'\r\n"""
    async with serving(access=jwt_access(authority, account)) as served:
        for text in (
            authority.user_jwt(key, **only_a),
            authority.user_jwt(key),
            authority.user_jwt(key, issuer=signer, issuer_account=authority.account.public),
        ):
            client = await jwt_client(served, text, key, b"")
            assert await client.ask(b"PUB a 0\r\n\r\nPUB b 0\r\n\r\n") == denied
        text = authority.user_jwt(key, pub={"allow": [">"]})
        assert await (await jwt_client(served, text, key, b"")).ask(b"PUB b 0\r\n\r\n") == b""
        # A scoped key gives its own rules only.
        text = authority.user_jwt(key, issuer=signer, issuer_account=authority.account.public, **only_a)
        assert await (await jwt_client(served, text, key)).until(b"\r\n") == VIOLATION


async def test_jwt_limits() -> None:
    authority, key = Authority(), Key("user")
    account = authority.account_jwt(limits={"conn": 2, "subs": 5, "payload": -1})
    async with serving(access=jwt_access(authority, account)) as served:
        text = authority.user_jwt(key, subs=2, payload=10)
        client = await jwt_client(served, text, key, b"")
        got = await client.ask(b"SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n")
        assert got == b"-ERR 'maximum subscriptions exceeded'\r\n"
        second = await jwt_client(served, text, key)
        assert await second.until(b"\r\n") == b"PONG\r\n"
        third = await jwt_client(served, text, key)
        assert await third.rest() == b"-ERR 'maximum account active connections exceeded'\r\n"
        assert await client.refused(b"PUB a 11\r\n") == b"-ERR 'Maximum Payload Violation'\r\n"
        await eventually(lambda: len(list(served.listener.connections)) == 1)
        assert await (await jwt_client(served, text, key)).until(b"\r\n") == b"PONG\r\n"


async def test_accounts_do_not_hear_each_other() -> None:
    authority, other, key = Authority(), Key("account"), Key("user")
    access = jwt_access(authority, authority.account_jwt(), authority.account_jwt(other))
    async with serving(access=access) as served:
        one = await jwt_client(served, authority.user_jwt(key), key, b"SUB > 1\r\n")
        two = await jwt_client(served, authority.user_jwt(key, issuer=other), key, b"SUB > 1\r\n")
        assert await one.ask(b"") == b""
        assert await two.ask(b"PUB a 1\r\nx\r\n") == b"MSG a 1 1\r\nx\r\n"
        assert await one.ask(b"") == b""


# Reloading.


def authenticator(access: Access) -> Authenticator:
    return Authenticator(access, PasswordChecker(1))


async def test_reload_ends_those_whose_user_is_gone_or_changed() -> None:
    bob = User("bob", SECRET)
    greeting = b'CONNECT {"verbose":false,"pedantic":false,"user":"%b","pass":"secret"}\r\n'
    async with serving(access=Access(users=(ALICE, bob, User("carol", SECRET)))) as served:
        clients = {name: await served.client(greeting % name.encode()) for name in ("alice", "bob", "carol")}
        for client in clients.values():
            assert await client.ask(b"SUB a 1\r\nSUB b 2\r\n") == b""
        late = await served.client(b"")
        restricted = User("carol", SECRET, permissions=PermissionLists(subscribe_allow=("a",)))
        changed = Access(users=(ALICE, User("bob", hash_password("new", 4)), restricted))
        served.listener.reload(authenticator(changed), None)
        assert await clients["alice"].ask(b"") == b""
        assert await clients["bob"].rest() == b"-ERR 'User Authentication Revoked'\r\n"
        assert await late.rest() == b"-ERR 'User Authentication Revoked'\r\n"
        forbidden = b"""-ERR 'Permissions Violation for Subscription to "b"'\r\n"""
        assert (
            await clients["carol"].ask(b"PUB a 0\r\n\r\nPUB b 0\r\n\r\n") == forbidden + b"MSG a 1 0\r\n\r\n"
        )


async def test_reload_that_revokes_a_jwt() -> None:
    authority, key, other = Authority(), Key("user"), Key("user")
    async with serving(access=jwt_access(authority)) as served:
        revoked = await jwt_client(served, authority.user_jwt(key), key)
        stays = await jwt_client(served, authority.user_jwt(other), other)
        assert await revoked.until(b"\r\n") == await stays.until(b"\r\n") == b"PONG\r\n"
        account = authority.account_jwt(revocations={key.public: int(time.time()) + 1})
        served.listener.reload(authenticator(jwt_access(authority, account)), None)
        assert await revoked.rest() == b"-ERR 'User Authentication Revoked'\r\n"
        assert await stays.ask(b"") == b""


async def test_reload_that_begins_to_ask() -> None:
    async with serving() as served:
        client = await served.client()
        assert await client.ask(b"") == b""
        silent = await served.client(b"")
        served.listener.reload(authenticator(Access(users=(ALICE,))), None)
        assert await client.rest() == await silent.rest() == b"-ERR 'User Authentication Revoked'\r\n"
        await works(served, user="alice", password="secret")
        served.listener.reload(None, None)
        await works(served)
