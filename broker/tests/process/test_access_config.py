"""The sections on users of the configuration file: what they mean, and what a mistake looks like."""

from pathlib import Path

import bcrypt
import pytest

from mq9_broker.auth.access import Access, PermissionLists, User
from mq9_broker.config import ConfigError

from .support import run
from .test_config import HASH, load, write

NKEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_users(tmp_path: Path) -> None:
    text = f"""
server_name: here
token: {HASH}
no_auth_user: guest
users:
  - user: alice
    password: {HASH}
  - nkey: {NKEY}
    permissions:
      publish: $mq9.AI.MSG.SEND.>
      subscribe: [_INBOX.>, jobs workers]
  - user: guest
    permissions:
      publish: {{allow: [$mq9.AI.AGENT.DISCOVER], deny: [">"]}}
      subscribe: {{deny: secret.*}}
"""
    loaded = load(file=write(tmp_path, text))
    assert loaded.server_name == "here"
    assert loaded.access == Access(
        token=HASH,
        no_auth_user="guest",
        users=(
            User("alice", HASH),
            User(
                nkey=NKEY,
                permissions=PermissionLists(
                    publish_allow=("$mq9.AI.MSG.SEND.>",), subscribe_allow=("_INBOX.>", "jobs workers")
                ),
            ),
            User(
                "guest",
                permissions=PermissionLists(
                    publish_allow=("$mq9.AI.AGENT.DISCOVER",),
                    publish_deny=(">",),
                    subscribe_deny=("secret.*",),
                ),
            ),
        ),
    )
    assert loaded.access
    assert not load().access


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("token: secret", r":1: token: expected a bcrypt hash, such as `mq9-broker hash-password` prints"),
        ("users: alice", r":1: users: expected a list with an entry at least"),
        ("users: []", r":1: users: expected a list with an entry at least"),
        ("\nusers:\n- alice", r":3: users: expected lines of the form `key: value`"),
        ("users:\n- user: a\n  passwort: x", r":3: users: unknown key 'passwort'; known are user, password"),
        ("users:\n- password: x", r":2: users: expected either `user` or `nkey` in each entry"),
        ("users:\n- user: a\n  nkey: x", r":2: users: expected either `user` or `nkey` in each entry"),
        ("users:\n- user: a\n  password: hunter2", r":3: password: expected a bcrypt hash"),
        (f"users:\n- nkey: {NKEY[:-1]}A", r":2: nkey: the NKey's checksum is wrong"),
        ("users:\n- nkey: alice", r":2: nkey: expected the public NKey of a user, 56 letters and digits"),
        (f"users:\n- nkey: {NKEY}\n  password: x", r":3: users: an `nkey` needs no password"),
        (f"users:\n- nkey: {NKEY}\n- nkey: {NKEY}", r":3: users: '.*' is there twice"),
        (
            f"users:\n- nkey: {NKEY}\n  permissions:\n    publish: a..b",
            r":4: publish: expected a subject without empty parts and with > only at its end, got 'a..b'",
        ),
        (
            f"users:\n- nkey: {NKEY}\n  permissions:\n    publish:\n      allow: [a, b c]",
            r":5: publish: allow: expected a subject, got 'b c'",
        ),
        (
            f"users:\n- nkey: {NKEY}\n  permissions:\n    subscribe:\n      deny: []",
            r":5: subscribe: deny: expected a list with an entry at least",
        ),
        (
            f"users:\n- nkey: {NKEY}\n  permissions:\n    publish:\n      alow: a",
            r":5: publish: unknown key 'alow'; known are allow, deny",
        ),
        (f"users:\n- nkey: {NKEY}\nno_auth_user: bob", r":3: no_auth_user: 'bob' is not the name of one"),
        (f"users:\n- nkey: {NKEY}\nusers:\n- nkey: {NKEY}", r":3: 'users' is given twice"),
        ("jwt:\n  operator: x", r":2: jwt: 'accounts' is missing"),
        (
            "jwt:\n  operator: none.jwt\n  accounts: [x]",
            r":2: operator: expected a JWT or a file with one: .*none",
        ),
        ("jwt:\n  operator: eyJabc\n  accounts: [x]", r":2: operator: expected the JWT of an operator"),
        ("user:\n- a", r":1: unknown option 'user'; did you mean 'users'\?"),
        (
            "users:\n- user: alice",
            r"a user without `password` can only be known by certificate: say --tls-map",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load(file=write(tmp_path, text + "\n"))
    assert "hunter2" not in str(raised.value)


def test_tls_options_that_contradict() -> None:
    for flags in (["--tls-cert", "a"], ["--tls-key", "a"], ["--tls-ca", "a"], ["--tls-map"]):
        with pytest.raises(ConfigError, match=r"give --tls-cert FILE and --tls-key FILE|--tls-map needs"):
            load(*flags)


def test_hash_password() -> None:
    import subprocess

    from .support import PROGRAM, environment

    done = subprocess.run(
        [PROGRAM, "hash-password", "--rounds", "4"],
        input="secret\n",
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
        check=True,
    )
    assert bcrypt.checkpw(b"secret", done.stdout.strip().encode())
    long = subprocess.run(
        [PROGRAM, "hash-password"],
        input="x" * 73,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
        check=False,
    )
    assert (long.returncode, long.stdout) == (2, "")
    assert long.stderr == "mq9-broker: expected a password of 1 to 72 bytes, got 73\n"


def test_a_certificate_that_cannot_be_used() -> None:
    done = run("serve", "--tls-cert", "/none.pem", "--tls-key", "/none.key", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert done.stderr.endswith("cannot use /none.pem with key /none.key: No such file or directory\n")
