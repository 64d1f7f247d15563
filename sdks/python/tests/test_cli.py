"""The `mq9` command in processes of its own, against a real broker."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mq9.cli import main
from mq9.cli.arguments import arguments_of, parser

COMMAND = [sys.executable, "-m", "mq9"]


class Cli:
    def __init__(self, url: str) -> None:
        self.env = {**os.environ, "MQ9_URL": url, "MQ9_TIMEOUT": "5", "TERM": "dumb"}

    def __call__(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        """Runs the command in this process; the tests that need a process of its own use `start`."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            patch.setattr(os, "environ", self.env)
            try:
                ended = main(arguments)
            except SystemExit as error:
                ended = error.code if isinstance(error.code, int) else 1
        self.errors = err.getvalue()
        self.raw = out.buffer.getvalue()  # type: ignore[attr-defined]
        assert ended == code, self.errors
        return self.raw.decode("utf-8", "replace")

    def json(self, *arguments: str, stdin: bytes = b"") -> list[Any]:
        return [json.loads(line) for line in self(*arguments, "--json", stdin=stdin).splitlines()]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env
        )


@pytest.fixture
def cli(broker: Any) -> Cli:
    return Cli(broker.url)


@pytest.fixture
def box(cli: Cli) -> str:
    return cli("mailbox", "create").strip()


def test_a_mailbox_from_create_to_delete(cli: Cli) -> None:
    assert cli("mailbox", "create", "cli.box", "--ttl", "1h", "--desc", "For tests") == "cli.box\n"
    info = cli.json("mailbox", "info", "cli.box")[0]
    assert (info["mail_address"], info["ttl"], info["desc"]) == ("cli.box", 3600, "For tests")
    assert "mail_address  cli.box" in cli("mailbox", "info", "cli.box")
    cli("mailbox", "delete", "cli.box")
    cli("mailbox", "info", "cli.box", code=1)
    assert cli.errors == (
        "mq9: mailbox cli.box does not exist (mailbox_not_found); "
        "create it with: mq9 mailbox create ADDRESS\n"
    )


def test_payload_from_argument_file_and_standard_input(cli: Cli, box: str, tmp_path: Path) -> None:
    blob = bytes(range(256))
    (tmp_path / "payload").write_bytes(blob)
    assert cli("send", box, "häl lo") == "0\n"
    assert cli("send", box, "--file", str(tmp_path / "payload")) == "1\n"
    assert cli("send", box, stdin=b"from a pipe\n") == "2\n"
    assert cli("send", box, "-", stdin=b"") == "3\n"
    messages = cli.json("query", box)
    assert [message["payload"] for message in messages[::2]] == ["häl lo", "from a pipe\n"]
    assert messages[1]["encoding"] == "base64"
    cli("query", box, "--from-id", "1", "--limit", "1", "--raw")
    assert cli.raw == blob


def test_payload_may_stand_behind_options(cli: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"x")
    assert cli("send", box, "--priority", "urgent", "hello") == "0\n"
    assert cli("send", "--key", "k", box, "--ttl", "60", "--", "--hello") == "1\n"
    assert [message["payload"] for message in cli.json("query", box)] == ["hello", "--hello"]
    cli("send", box, "--file", str(tmp_path / "payload"), "hello", code=2)
    cli("send", box, "--priority", "urgent", "two", "words", code=2)
    assert len(cli.json("query", box)) == 2


def test_all_options_of_send_travel(cli: Cli, box: str) -> None:
    cli(
        *(
            "send",
            box,
            "x",
            "--priority",
            "urgent",
            "--key",
            "k",
            "--ttl",
            "60",
            "--tags",
            "a,b",
            "--tag",
            "c",
        ),
        *(
            "--dedup-id",
            "d",
            "--reply-to",
            "me.inbox",
            "--correlation-id",
            "7",
            "--header",
            "x-trace=one two",
            "--retry",
        ),
    )
    assert cli.json("send", box, "x", "--delay", "5m") == [{"msg_id": -1}]
    message = cli.json("query", box)[0]
    assert (message["priority"], message["key"], message["tags"]) == ("urgent", "k", ["a", "b", "c"])
    assert message["headers"]["x-trace"] == ["one two"]
    assert message["headers"]["mq9-reply-to"] == ["me.inbox"]


def test_fetch_is_one_plain_line_a_message_in_a_pipe(cli: Cli, box: str) -> None:
    cli("send", box, "two\nlines\tand \\ \x1b[31m")
    line = cli("fetch", box, "--deliver", "earliest", "--max-wait", "0")
    number, priority, _, payload = line.rstrip("\n").split("\t")
    assert (number, priority, payload) == ("0", "normal", "two\\nlines\\tand \\\\ \\\\x1b[31m")


def test_fetch_with_a_group_and_ack(cli: Cli, box: str) -> None:
    cli("send", box, "one")
    arguments = (
        "fetch",
        box,
        "--group",
        "g",
        "--deliver",
        "earliest",
        "--lease",
        "30s",
        "--max-wait-ms",
        "0",
    )
    assert len(cli.json(*arguments, "--ack")) == 1
    assert cli(*arguments) == ""
    assert cli.json("mailbox", "info", box)[0]["groups"] == [{"group_name": "g", "pending": 0, "leased": 0}]
    cli("fetch", box, "--ack", code=2)
    assert cli.errors == "mq9: group_name: --ack needs --group (invalid_argument)\n"


def test_nack_renew_ack_and_delete(cli: Cli, box: str) -> None:
    cli("send", box, "one")
    cli("send", box, "two")
    fetch = ("fetch", box, "--group", "g", "--deliver", "earliest", "--lease", "30s", "--max-wait-ms", "0")
    assert len(cli.json(*fetch)) == 2
    assert cli("renew", box, "g", "0", "1", "--lease-ms", "60000").split() == ["0", "1"]
    cli("nack", box, "g", "0", "1")
    cli("ack", box, "g", "1")
    assert [message["msg_id"] for message in cli.json(*fetch)] == [0]
    cli("delete", box, "0")
    cli("delete", box, "0", code=1)
    assert "message not found (message_not_found)" in cli.errors


@pytest.mark.parametrize("group", [(), ("--group", "g", "--ack")])
def test_follow_prints_what_arrives_until_interrupted(cli: Cli, box: str, group: tuple[str, ...]) -> None:
    cli("send", box, "before")
    process = cli.start("fetch", box, "--follow", "--deliver", "earliest", "--json", *group)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["payload"] == "before"
    for number in range(3):
        cli("send", box, f"later {number}", "--priority", "critical")
        assert json.loads(process.stdout.readline())["payload"] == f"later {number}"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""
    assert out == ""
    if group:
        confirmed = cli.json("mailbox", "info", box)[0]["groups"][0]
        assert confirmed["leased"] == 0


def test_follow_of_latest_does_not_show_what_was_there(cli: Cli, box: str) -> None:
    cli("send", box, "old")
    process = cli.start("fetch", box, "--follow", "--raw", "--max-wait", "200ms")
    assert process.stdout is not None
    for _ in range(300):
        cli("send", box, "new")
        if select.select([process.stdout], [], [], 0.1)[0]:
            break
    assert process.stdout.read(3) == "new"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_agents(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(
        '{"name": "cli-translator", "description": "Translates\\ntext", "n": 9007199254740993}', "utf-8"
    )
    assert cli("agent", "register", str(card), "--mailbox", "cli.inbox") == "cli-translator\n"
    found = cli.json("agent", "discover", "Translates")
    assert [item["agent"]["name"] for item in found] == ["cli-translator"]
    assert found[0]["agent"]["n"] == 9007199254740993
    assert cli("agent", "discover", "Translates").startswith("cli-translator\tcli.inbox\tTranslates text\t")
    cli("agent", "discover", "--semantic", code=2)
    assert "TEXT" in cli.errors
    cli("agent", "report", "cli-translator", "--report-info", "idle", "--status", '{"load": 0.5}')
    assert cli.json("agent", "discover", "Translates")[0]["meta"]["status"] == {
        "report_info": "idle",
        "load": 0.5,
    }
    cli("agent", "unregister", "cli-translator")
    assert cli("agent", "discover", "Translates") == ""
    cli("agent", "report", "cli-translator", code=1)
    assert "agent_not_found" in cli.errors


@pytest.mark.parametrize(
    "words",
    [
        ["--semantic", "who translates"],
        ["who translates", "--semantic"],
        ["--semantic", "--json", "who translates"],
        ["--semantic=who translates"],
    ],
)
def test_by_meaning(words: list[str]) -> None:
    assert arguments_of(parser().parse_args(["agent", "discover", *words])) == {"semantic": "who translates"}


def test_register_from_standard_input_keeps_alive_and_unregisters(cli: Cli) -> None:
    process = subprocess.Popen(
        [*COMMAND, "agent", "register", "-", "--keep-alive"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=cli.env,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write('{"name": "cli-keeper"}')
    process.stdin.close()
    assert process.stdout.readline() == "cli-keeper\n"
    assert [item["agent"]["name"] for item in cli.json("agent", "discover", "keeper")] == ["cli-keeper"]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
    assert cli.json("agent", "discover", "keeper") == []


@pytest.mark.parametrize("command", [("watch",), ("discover", "--watch")])
def test_watch_shows_who_comes_changes_and_goes(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    card = tmp_path / "card.json"
    process = cli.start("agent", *command, "--every", "0.1", "--json", "watched")
    assert process.stdout is not None
    events = []
    for text in ('{"name": "w", "description": "watched"}', '{"name": "w", "description": "watched again"}'):
        card.write_text(text, "utf-8")
        cli("agent", "register", str(card))
        events.append(json.loads(process.stdout.readline())["event"])
    cli("agent", "unregister", "w")
    events.append(json.loads(process.stdout.readline())["event"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert events == ["came", "changed", "went"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("send", "Not.Lower", "x"), 2, "mq9: mail_address: must be of a-z0-9."),
        (("send", "a.b", "x", "--key", "schlüssel"), 2, "mq9: key: must be printable ASCII"),
        (("fetch", "a.b", "--num-msgs", "1001"), 2, "mq9: num_msgs: must be 1 to 1000, not 1001"),
        (("fetch", "a.b", "--lease", "30"), 2, "'30' is no duration like 500ms"),
        (("fetch", "a.b", "--from-id", "1_0"), 2, "'1_0' is no whole number"),
        (("send", "a.b", "--file", "/no/such/file"), 2, "mq9: No such file or directory: /no/such/file"),
        (("agent", "register", "/no/such/card"), 2, "mq9: No such file or directory: /no/such/card"),
        (("mailbox",), 2, "required: COMMAND"),
        (("nack", "a.b", "g"), 2, "required: MSG_IDS"),
        (("--server", "http://x", "mailbox", "create"), 2, "mq9: servers: 'http://x' is no URL like"),
        (("--server", "127.0.0.1:1", "mailbox", "create"), 3, "Connect call failed"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(
    cli: Cli, arguments: tuple[str, ...], code: int, text: str
) -> None:
    assert cli(*arguments, code=code) == ""
    assert text in cli.errors
    assert len([line for line in cli.errors.splitlines() if line.startswith("mq9")]) == 1


def test_card_that_is_no_card(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    for text, why in (("{", "is no JSON"), ("[]", "holds no JSON object"), ("{}", "has no name")):
        card.write_text(text, "utf-8")
        cli("agent", "register", str(card), code=2)
        assert why in cli.errors


def test_on_a_terminal_it_is_readable(cli: Cli, box: str) -> None:
    cli("send", box, "hello \x1b[31m red", "--tags", "a", "--header", "x-h=v")
    leader, follower = pty.openpty()
    process = subprocess.Popen([*COMMAND, "query", box], stdout=follower, env={**cli.env, "TERM": "xterm"})
    assert process.wait(30) == 0
    os.close(follower)
    text = os.read(leader, 10000).decode()
    os.close(leader)
    assert "\x1b[1m#0\x1b[0m" in text
    assert "tags a" in text
    assert "x-h: v" in text
    assert "hello \\x1b[31m red" in text


def test_reader_that_leaves_early_is_no_error(cli: Cli, box: str) -> None:
    for _ in range(3):
        cli("send", box, "x" * 100_000)
    line = " ".join([*COMMAND, "query", box, "--raw", "|", "head", "-c", "1"])
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=cli.env, timeout=60, check=True)
    assert done.stdout == b"x"
    assert done.stderr == b""


def _help(arguments: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize(
    ("line", "method"),
    [
        ("mailbox create", "mailbox.create"),
        ("send", "msg.send"),
        ("fetch", "msg.fetch"),
        ("query", "msg.query"),
        ("agent discover", "agent.discover"),
    ],
)
def test_help_names_every_option_of_the_specification(line: str, method: str) -> None:
    from mq9._generated import commands

    command = next(command for command in commands.ALL if command.name == method)
    text = _help(line.split())
    for option in command.options:
        flag = option.name.replace("_", "-")
        assert f"--{flag}" in text or option.name.upper() in text, flag


def test_every_operation_has_a_command() -> None:
    from mq9._generated import commands

    text = {
        name: _help(words) for name, words in (("top", []), ("mailbox", ["mailbox"]), ("agent", ["agent"]))
    }
    for command in commands.ALL:
        group, _, name = command.name.partition(".")
        assert re.search(rf"\n    {name}\s", text.get(group, text["top"])), command.name


@pytest.mark.parametrize("options", [(), ("--ttl", "1h")])
def test_agent_may_be_given_a_name_beside_its_card(
    cli: Cli, tmp_path: Path, options: tuple[str, ...]
) -> None:
    card = tmp_path / "card.json"
    card.write_text('{"description": "has no name of its own"}')
    assert cli("agent", "register", str(card), "--name", "named.later", *options) == "named.later\n"
    assert [found["agent"]["name"] for found in cli.json("agent", "discover", "own")] == ["named.later"]


def test_lease_of_what_was_fetched_is_shown(cli: Cli, box: str) -> None:
    cli("send", box, "x")
    fetched = ("fetch", box, "--group", "g", "--deliver", "earliest", "--lease", "30s")
    [message] = cli.json(*fetched)
    cli("nack", box, "g", "0", "--lease-id", "another")
    assert cli.json(*fetched) == []
    assert cli("renew", box, "g", "0", "--lease", "60s", "--lease-id", message["lease_id"]) == "0\n"
    cli("nack", box, "g", "0", "--lease-id", message["lease_id"])
    assert [again["msg_id"] for again in cli.json(*fetched)] == [0]


def test_mistakes_are_one_line(cli: Cli, box: str) -> None:
    cli.env["MQ9_TIMEOUT"] = "soon"
    cli("mailbox", "create", code=2)
    assert cli.errors == "mq9: MQ9_TIMEOUT: must be seconds, not 'soon' (invalid_argument)\n"
    del cli.env["MQ9_TIMEOUT"]
    cli("send", box, "x", "--ttl", "5x", code=2)
    assert cli.errors == (
        "mq9 send: argument --ttl: '5x' is no duration like 500ms, 30s, 5m or 2h; see: mq9 send --help\n"
    )
    cli("query", box, "--raw", "--json", code=2)
    assert cli.errors == "mq9: raw: --raw and --json exclude each other (invalid_argument)\n"
    cli("agent", "watch", "--every", "0", code=2)
    assert "argument --every: '0' is no number of seconds above 0" in cli.errors
    cli("mailbox", "delete", "not.there", code=1)
    assert cli.errors == "mq9: mailbox not.there does not exist (mailbox_not_found)\n"


def test_found_agents_stand_in_columns_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from mq9._generated.models import AgentMeta, DiscoverResult
    from mq9.cli.output import Output

    lines: list[str] = []
    output = Output(as_json=False, raw=False)
    monkeypatch.setattr(output, "pretty", True)
    monkeypatch.setattr(output, "line", lines.append)
    monkeypatch.setattr(output, "dim", str)
    monkeypatch.setattr(output, "bold", str)
    monkeypatch.setenv("COLUMNS", "60")
    agents = [
        {"name": "a", "mailbox": "a.in", "description": "Translates\n" + "much " * 50},
        {"name": "longer\x1b[2J", "payload": "short"},
    ]
    meta = [
        AgentMeta(score=1.25, last_seen=1, registered_at=1),
        AgentMeta(score=0.5, last_seen=1, registered_at=1),
    ]
    output.agents(DiscoverResult(agents=agents, meta=meta, cursor=None))
    head, *lines = lines
    assert len(lines) == 2
    assert lines[0].startswith("1.250  a")
    assert [head.index(word) for word in ("score", "name", "mailbox", "about")] == [
        lines[0].index(word) for word in ("1.250", "a", "a.in", "Translates")
    ]
    assert lines[0].index("Translates") == lines[1].index("short")
    assert max(map(len, lines)) <= 60
    assert "\x1b" not in lines[1]
