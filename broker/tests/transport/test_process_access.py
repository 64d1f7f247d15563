"""A broker in a process of its own: users, TLS and WebSocket by its options, and SIGHUP."""

import asyncio
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import nats
import nats.errors
import pytest

from mq9_broker.auth.passwords import hash_password

from .credentials import Authority, CertificateAuthority, Key, creds_file
from .support import eventually

PROGRAM = str(Path(sys.executable).parent / "mq9-broker")


def config(*users: tuple[str, str], more: str = "") -> str:
    entries = "".join(f"- user: {name}\n  password: {hash_password(word, 4)}\n" for name, word in users)
    return f"users:\n{entries}{more}"


class Process:
    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--http", "off", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        ready = re.fullmatch(r"mq9-broker ready nats=(\S+) http=off(?: websocket=(\S+))?\n", line)
        assert ready, (line, self.process.communicate()[1] if not line else "")
        self.url, self.websocket = ready[1], ready[2]

    async def logged(self, text: str) -> str:
        assert self.process.stderr is not None
        while text not in (line := await asyncio.to_thread(self.process.stderr.readline)):
            assert line, f"never logged: {text}"
        return line

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


async def test_users_tls_websocket_and_reload(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    server = authority.issue("server")
    context = ssl.create_default_context(cafile=str(authority.file))
    file = tmp_path / "broker.yaml"
    users = config(("alice", "one"), ("bob", "two"))
    file.write_text(users)
    options = (
        *("--config", str(file), "--tls-cert", str(server.certificate), "--tls-key", str(server.key)),
        *("--websocket", "127.0.0.1:0"),
    )
    with Process(*options) as broker:

        async def ignore(_: Exception) -> None:
            pass

        how = {"tls": context, "allow_reconnect": False, "error_cb": ignore}
        assert broker.websocket.startswith("wss://")
        alice = await nats.connect(broker.url, user="alice", password="one", **how)
        url = broker.websocket.replace("127.0.0.1", "localhost")
        bob = await nats.connect(url, user="bob", password="two", **how)
        created = await bob.request("$mq9.AI.MAILBOX.CREATE", b'{"name":"a"}', timeout=10)
        assert created.data == b'{"error":"","mail_address":"a"}'

        file.write_text("users: [\n")
        broker.process.send_signal(signal.SIGHUP)
        assert "broker.yaml:2: not YAML" in await broker.logged("nothing is reloaded")
        assert (await bob.request("$mq9.AI.MSG.SEND.a", b"x", timeout=10)).data == b'{"error":"","msg_id":0}'

        file.write_text(users.partition("- user: bob")[0])
        broker.process.send_signal(signal.SIGHUP)
        await broker.logged("are reloaded")
        # Not its closed_cb: by WebSocket the library may wait for ever before it calls that.
        await eventually(lambda: bob.is_closed)
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await nats.connect(broker.url, user="bob", password="two", **how)
        assert (
            await alice.request("$mq9.AI.MSG.SEND.a", b"x", timeout=10)
        ).data == b'{"error":"","msg_id":1}'
        await alice.close()


async def test_jwt_by_files(tmp_path: Path) -> None:
    authority, user = Authority(), Key("user")
    (tmp_path / "operator.jwt").write_text(authority.operator_jwt)
    (tmp_path / "account.jwt").write_text(
        f"-----BEGIN NATS ACCOUNT JWT-----\n{authority.account_jwt()}\n------END NATS ACCOUNT JWT------\n"
    )
    (tmp_path / "broker.yaml").write_text("jwt:\n  operator: operator.jwt\n  accounts: [account.jwt]\n")
    creds = creds_file(tmp_path / "user.creds", authority.user_jwt(user), user)
    with Process("--config", str(tmp_path / "broker.yaml")) as broker:
        client = await nats.connect(broker.url, user_credentials=str(creds), allow_reconnect=False)
        assert b'"error":""' in (await client.request("$mq9.AI.MAILBOX.CREATE", b"", timeout=10)).data
        await client.close()
