"""The command line's arguments; those of the operations come from the specification."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from mq9._encode import invalid
from mq9._generated import commands, constants
from mq9._version import __version__
from mq9.cli.options import Command, Option

_DURATION = re.compile(r"([0-9]+)(ms|s|m|h|d)?")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BY_HAND = {"msg.send", "msg.fetch", "msg.query", "msg.ack", "agent.register", "agent.discover"}
"""Operations whose commands do more than the operation; all others are made of their description alone."""
_TEXT_BY_MEANING = ""
"""What `--semantic` is without a sentence of its own."""
_EPILOG = """\
environment (options win):
  MQ9_URL                          server URLs, with commas between
  MQ9_USER, MQ9_PASSWORD           user name and password
  MQ9_TOKEN, MQ9_CREDS             token; credentials file
  MQ9_TIMEOUT                      seconds to wait for a reply
  NO_COLOR                         no colours

exit codes:
  0 done   1 the broker refused   2 wrong arguments   3 no broker, or no answer   130 interrupted
"""


def integer(text: str) -> int:
    """A whole number in plain digits."""
    if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _duration(unit: str, *, suffix_needed: bool) -> Any:
    def convert(text: str) -> int:
        match = _DURATION.fullmatch(text)
        if match is None or (suffix_needed and not match[2] and text != "0"):
            raise argparse.ArgumentTypeError(f"{text!r} is no duration like 500ms, 30s, 5m or 2h")
        if not match[2]:
            return int(match[1])
        value = int(match[1]) * _MILLISECONDS[match[2]]
        size = 1000 if unit == "seconds" else 1
        if value % size:
            raise argparse.ArgumentTypeError(f"{text!r} is not in whole seconds")
        return value // size

    return convert


def _seconds(text: str) -> float:
    """Seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def moment(text: str) -> int:
    """Unix seconds, from a number or a date and time (local time if it says no zone)."""
    if re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
        return int(text)
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither Unix seconds nor a time like 2026-01-31T12:00"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or `@file` with one."""
    try:
        value = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"no JSON object: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("no JSON object")
    return value


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), value.strip()


class _Headers(argparse.Action):
    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: str | None = None) -> None:
        name, value = values
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest, None) or {}), name: value})


class _Words(argparse.Action):
    """Collects `--tags a,b --tags c`."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: str | None = None) -> None:
        words = [word for word in values.split(",") if word]
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest, None) or []), *words])


def _converter(option: Option) -> Any:
    if option.type == "integer":
        if option.unit in ("seconds", "milliseconds"):
            return _duration(option.unit, suffix_needed=False)
        return moment if option.unit == "unix_seconds" else integer
    return {"number": float, "json_object": json_object}.get(option.type, str)


def _add(parser: argparse.ArgumentParser, option: Option, *, positional: bool) -> None:
    name = option.name.rstrip("_")
    text = option.help.replace("%", "%%").replace("`", "")
    settings: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
    if positional:
        settings |= {"metavar": name.upper(), "type": _converter(option)}
        if option.repeated:
            settings["nargs"] = "+"
        elif not option.required:
            settings["nargs"] = "?"
        parser.add_argument(option.name, **settings)
        return
    flags = ["--" + name.replace("_", "-")]
    settings["dest"] = option.name
    if option.type == "boolean":
        parser.add_argument(*flags, action="store_true", **settings)
        return
    settings |= {"metavar": name.upper(), "type": _converter(option), "required": option.required}
    if option.values:
        settings["metavar"] = "{" + ",".join(option.values) + "}"
    if option.type == "header_map_single":
        settings |= {"metavar": "NAME=VALUE", "type": _header, "action": _Headers}
        flags.append("--header")
    elif option.repeated and option.type == "integer":
        settings["nargs"] = "+"
    elif option.repeated:
        settings |= {"metavar": "WORD[,WORD...]", "action": _Words}
        flags.append("--" + name.removesuffix("s").replace("_", "-"))
    elif name.endswith("_name"):
        flags.append("--" + name.removesuffix("_name"))
    if option.unit == "seconds":
        settings |= {"metavar": "SECONDS", "help": f"{text} Also with a unit: 90s, 5m, 2h, 7d."}
    if option.unit != "milliseconds" or not name.endswith("_ms"):
        parser.add_argument(*flags, **settings)
    else:
        group = parser.add_mutually_exclusive_group(required=option.required)
        settings |= {"required": False, "metavar": "MILLISECONDS"}
        group.add_argument(*flags, **settings)
        settings |= {"type": _duration(option.unit, suffix_needed=True), "metavar": "DURATION"}
        settings["help"] = "the same with a unit: 500ms, 30s, 5m"
        group.add_argument("--" + name.removesuffix("_ms").replace("_", "-"), **settings)


def _by_meaning(parser: argparse.ArgumentParser) -> None:
    """Adds the option that looks by meaning, with a sentence or for the one without a flag."""
    option = next(option for option in commands.AGENT_DISCOVER.options if option.name == "semantic")
    parser.add_argument(
        "--semantic",
        nargs="?",
        const=_TEXT_BY_MEANING,
        default=argparse.SUPPRESS,
        metavar="SENTENCE",
        help=f"{option.help} Without one here it is TEXT.",
    )


def _operation(
    parser: argparse.ArgumentParser,
    command: Command,
    *,
    positional: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Adds the options of an operation; `positional` names those without a flag (default: the protocol's)."""
    names = [o.name for o in command.options if o.positional] if positional is None else positional
    for name in names:
        _add(parser, next(o for o in command.options if o.name == name), positional=True)
    for option in command.options:
        if option.name not in names and option.name not in skip:
            _add(parser, option, positional=False)


class _Parser(argparse.ArgumentParser):
    """Takes the payload of `send` behind options too, as argparse does in newer versions of Python alone.

    A mistake is one line, and says where help is.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see: {self.prog} --help\n")

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] (it is overloaded)
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        words = rest[1:] if rest[:1] == ["--"] else rest
        missing = getattr(found, "text", "") is None
        if missing and words and (words[0] in ("", "-") or words != rest or words[0][0] != "-"):
            if found.file is not None:
                self.error("argument PAYLOAD: not allowed with argument --file")
            found.text, rest = words[0], words[1:]
        return found, rest


def _every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every", type=_seconds, default=5.0, metavar="SECONDS", help="how often to look (default 5)"
    )


def _common() -> argparse.ArgumentParser:
    """Options that every command takes, before or behind its name."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("connection and output")
    group.add_argument("-s", "--server", metavar="URL", help="server URLs, with commas between (MQ9_URL)")
    group.add_argument("--user", help="user name (MQ9_USER)")
    group.add_argument("--password", help="password; better in MQ9_PASSWORD, where others can't see it")
    group.add_argument("--token", help="token; better in MQ9_TOKEN")
    group.add_argument("--creds", metavar="FILE", help="credentials file (MQ9_CREDS)")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long to wait for a reply (MQ9_TIMEOUT, default 5)",
    )
    group.add_argument("--json", action="store_true", help="JSON, one value a line")
    return common


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = _common()
    top = _Parser(
        prog="mq9",
        description="Asynchronous messaging for software agents.",
        epilog=_EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"mq9 {__version__} (protocol {constants.SPEC_VERSION})"
    top.add_argument("--version", action="version", version=version)
    parts = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(group: Any, name: str, command: Command, run: str, text: str = "") -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = group.add_parser(
            name,
            parents=[common],
            help=text or command.summary,
            description=text or f"{command.summary} {command.doc}".replace("`", "").replace("\n", " "),
        )
        added.set_defaults(run=run, operation=command)
        return added

    def nested(name: str, text: str) -> Any:
        group = parts.add_parser(name, help=text, description=text)
        return group.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)

    groups = {"msg": parts, "mailbox": nested("mailbox", "Creates, shows and deletes mailboxes.")}
    groups["agent"] = agent = nested("agent", "Registers, finds and watches agents.")

    send = add(parts, "send", commands.MSG_SEND, "send")
    _operation(send, commands.MSG_SEND, positional=["mail_address"])
    source = send.add_mutually_exclusive_group()
    source.add_argument(
        "text",
        nargs="?",
        metavar="PAYLOAD",
        help="the payload; without it, or with -, it is read from standard input",
    )
    source.add_argument("--file", metavar="FILE", help="a file with the payload")

    fetch = add(parts, "fetch", commands.MSG_FETCH, "fetch")
    _operation(fetch, commands.MSG_FETCH)
    fetch.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="go on until Ctrl-C; with a group, what is not acknowledged (see --ack) comes again",
    )
    fetch.add_argument("--ack", action="store_true", help="acknowledge what was printed (needs a group)")
    fetch.add_argument("--raw", action="store_true", help="the payloads alone, byte for byte")

    query = add(parts, "query", commands.MSG_QUERY, "query")
    _operation(query, commands.MSG_QUERY)
    query.add_argument("--raw", action="store_true", help="the payloads alone, byte for byte")

    ack = add(parts, "ack", commands.MSG_ACK, "call")
    _operation(ack, commands.MSG_ACK, positional=["mail_address", "group_name", "msg_ids"], skip=["msg_id"])
    register = add(agent, "register", commands.AGENT_REGISTER, "register")
    register.add_argument(
        "card_file",
        metavar="CARD",
        help="a file with the agent's card, a JSON object with a name; - reads it from standard input",
    )
    _operation(register, commands.AGENT_REGISTER, positional=[], skip=["name", "card"])
    register.add_argument("--name", default=argparse.SUPPRESS, help="instead of the card's name")
    register.add_argument(
        "--keep-alive", action="store_true", help="stay, report the agent regularly, unregister it at Ctrl-C"
    )
    discover = add(agent, "discover", commands.AGENT_DISCOVER, "discover")
    _operation(discover, commands.AGENT_DISCOVER, skip=["semantic"])
    _by_meaning(discover)
    discover.add_argument(
        "--watch", action="store_true", help="stay, and show which agents come, change and go, until Ctrl-C"
    )
    _every(discover)
    watch = add(
        agent,
        "watch",
        commands.AGENT_DISCOVER,
        "watch",
        "Shows which agents come, change and go, until Ctrl-C.",
    )
    _operation(watch, commands.AGENT_DISCOVER, skip=["semantic", "page", "cursor", "limit"])
    _by_meaning(watch)
    _every(watch)
    for command in commands.ALL:
        if command.name not in _BY_HAND:
            kind, _, name = command.name.partition(".")
            if kind not in groups:
                groups[kind] = nested(kind, f"Operations on a {kind}.")
            _operation(add(groups[kind], name, command, "call"), command)
    return top


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """What `mq9.connect` is called with: options first, then the environment."""
    names = {
        "server": "URL",
        "user": "USER",
        "password": "PASSWORD",
        "token": "TOKEN",
        "creds": "CREDS",
        "timeout": "TIMEOUT",
    }
    found = {
        name: getattr(options, name, None) or os.environ.get(f"MQ9_{key}") or None
        for name, key in names.items()
    }
    result = {
        "servers": found.pop("server"),
        "credentials_file": found.pop("creds"),
        **found,
        "name": "mq9 command line",
    }
    if result["timeout"] is not None:
        try:
            result["timeout"] = float(result["timeout"])
        except ValueError:
            raise invalid("MQ9_TIMEOUT", f"must be seconds, not {result['timeout']!r}") from None
    return {name: value for name, value in result.items() if value is not None}


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the operation that were given."""
    given = vars(options)
    found = {option.name: given[option.name] for option in options.operation.options if option.name in given}
    if found.get("semantic") == _TEXT_BY_MEANING:
        found["semantic"] = found.pop("text", None)
        if not found["semantic"]:
            raise invalid("semantic", "needs a sentence behind it, or as TEXT")
    return found
