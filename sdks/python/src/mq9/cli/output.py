"""What the command prints: readable on a terminal, one plain line a thing in a pipe, JSON on demand."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mq9._base import Mq9Error
from mq9._generated.models import AgentMeta, DiscoverResult, Message

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HINTS = {
    "mailbox_not_found": "create it with: mq9 mailbox create ADDRESS",
    "mailbox_exists": "choose another name, or none to get a new one",
    "agent_not_found": "see who is there with: mq9 agent discover",
    "unauthorized": "check MQ9_USER and MQ9_PASSWORD, MQ9_TOKEN or MQ9_CREDS",
    "timeout": "is the broker busy? --timeout SECONDS waits longer",
    "no_responders": "start a broker with: mq9-broker serve; or point --server or MQ9_URL at one",
    "connection_closed": "start a broker with: mq9-broker serve; or point --server or MQ9_URL at one",
}


def explain(error: Mq9Error) -> str:
    """An error on one line: what was wrong, and what to do."""
    hint = _HINTS.get(error.code or "") or _HINTS.get(error.kind)
    if error.code == "mailbox_not_found" and error.operation == "mailbox.delete":
        hint = None
    code = f" ({error.code})" if error.code else ""
    text = " ".join(_visible(str(error)).split())
    return f"{text}{code}; {hint}" if hint else f"{text}{code}"


class Output:
    """Prints results.

    Args:
        as_json: One JSON value a line.
        raw: Payloads alone.
    """

    def __init__(self, *, as_json: bool = False, raw: bool = False) -> None:
        self.as_json = as_json
        self.raw = raw
        self.pretty: bool = sys.stdout.isatty()
        self._colour = self.pretty and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def dim(self, text: str) -> str:
        """Less important text."""
        return self._style(text, "2")

    def bold(self, text: str) -> str:
        """What to look at first."""
        return self._style(text, "1")

    def line(self, text: str) -> None:
        """One line, at once."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def json(self, value: Any) -> None:
        """One JSON value on one line."""
        self.line(json.dumps(plain(value), ensure_ascii=False))

    def result(self, value: Any) -> None:
        """What an operation gave, if it gave anything."""
        if self.as_json:
            self.json({"ok": True} if value is None else value)
        elif value is None or value is True:
            if self.pretty:
                self.line("done")
        elif dataclasses.is_dataclass(value):
            self._fields(plain(value))
        elif isinstance(value, list):
            for item in value:
                self.line(str(item))
        else:
            self.line(_visible(str(value)))

    def _fields(self, fields: dict[str, Any]) -> None:
        width = max((len(name) for name in fields), default=0)
        for name, value in fields.items():
            label = self.dim(name.ljust(width)) if self.pretty else name
            if isinstance(value, list):
                self.line(label if value else f"{label}  -")
                for item in value:
                    self.line(f"  {_visible(_pairs(item))}")
            elif self.pretty and isinstance(value, int) and name.endswith(("_time", "_at", "_seen")):
                self.line(f"{label}  {value}  {self.dim(_time(value))}")
            else:
                self.line(f"{label}  {_visible(_pairs(value))}")

    def message(self, message: Message, *, lease_id: str | None = None) -> None:
        """One message, and the lease that it was handed out under."""
        if self.raw:
            sys.stdout.buffer.write(message.payload)
            sys.stdout.buffer.flush()
        elif self.as_json:
            self.json({**plain(message), "lease_id": lease_id} if lease_id else message)
        elif self.pretty:
            parts = [self.bold(f"#{message.msg_id}"), message.priority]
            if message.create_time is not None:
                parts.append(_time(message.create_time))
            if message.key:
                parts.append(f"key {message.key}")
            if message.tags:
                parts.append(f"tags {','.join(message.tags)}")
            if (message.delivery_count or 0) > 1:
                parts.append(f"delivery {message.delivery_count}")
            if lease_id:
                parts.append(f"lease {lease_id}")
            parts += [f"{name}: {', '.join(values)}" for name, values in (message.headers or {}).items()]
            self.line(self.dim("  ").join(_visible(part, keep_style=True) for part in parts))
            self.line(_payload(message.payload))
        else:
            text = _payload(message.payload).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
            self.line(f"{message.msg_id}\t{message.priority}\t{message.create_time or ''}\t{text}")

    def agents(self, result: DiscoverResult) -> None:
        """Agents that were found, one a line."""
        meta: Sequence[AgentMeta | None] = result.meta or [None] * len(result.agents)
        if self.pretty and not self.as_json:
            self._table(result.agents, meta)
            if result.cursor:
                self.line(self.dim(f"more with --cursor {result.cursor}"))
            return
        for agent, about in zip(result.agents, meta, strict=False):
            if self.as_json:
                self.json({"agent": agent, "meta": about})
            else:
                score = f"{about.score:.3g}" if about is not None and about.score is not None else ""
                self.line(self.agent(agent, score))

    def _table(self, agents: Sequence[dict[str, Any]], meta: Sequence[AgentMeta | None]) -> None:
        """Agents in columns, cut to the width of the terminal: score, name, mailbox, description."""
        rows: list[tuple[str, str, str, str]] = []
        for agent, about in zip(agents, meta, strict=False):
            score = f"{about.score:.3f}" if about is not None and about.score is not None else ""
            said = " ".join(str(agent.get("description") or agent.get("payload") or "").split())
            rows.append(
                (score, _visible(str(agent.get("name", ""))), _visible(str(agent.get("mailbox") or "")), said)
            )
        if not rows:
            return
        # A column that nothing stands in is left out, with its title.
        widths = [min(max(len(row[column]) for row in rows), 40) for column in range(3)]
        titles = ("score", "name", "mailbox")
        widths = [width and max(width, len(title)) for width, title in zip(widths, titles, strict=True)]
        head = [title.ljust(width) for title, width in zip(titles, widths, strict=True) if width]
        self.line(self.dim("  ".join((*head, "about"))))
        room = max(shutil.get_terminal_size().columns - sum(widths) - 6, 20)
        for score, name, mailbox, said in rows:
            cells = (
                self.dim(score.rjust(widths[0])),
                self.bold(name.ljust(widths[1])),
                self.dim(mailbox.ljust(widths[2])),
            )
            shown = [cell for cell, width in zip(cells, widths, strict=True) if width]
            self.line("  ".join((*shown, _visible(said[:room]))).rstrip())

    def agent(self, agent: dict[str, Any], note: str = "") -> str:
        """An agent on one line."""
        name, mailbox = str(agent.get("name", "")), str(agent.get("mailbox") or "")
        about = " ".join(str(agent.get("description") or agent.get("payload") or "").split())
        if self.pretty:
            parts = (self.bold(name), mailbox and self.dim(mailbox), about, note and self.dim(note))
            return _visible("  ".join(part for part in parts if part), keep_style=True)
        return _visible("\t".join(part.replace("\t", " ") for part in (name, mailbox, about, note)))


def plain(value: Any) -> Any:
    """A result as JSON values; a payload that is text stays readable, any other is base64."""
    if isinstance(value, Message):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        try:
            fields |= {"payload": value.payload.decode("utf-8"), "encoding": None}
        except UnicodeDecodeError:
            fields |= {"payload": base64.b64encode(value.payload).decode("ascii"), "encoding": "base64"}
        return {name: item for name, item in fields.items() if item is not None}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _pairs(value: Any) -> str:
    return (
        "  ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    )


def _payload(payload: bytes) -> str:
    try:
        return _visible(payload.decode("utf-8"))
    except UnicodeDecodeError:
        return f"<{len(payload)} bytes that are no text; --raw or --json shows them>"


def _visible(text: str, *, keep_style: bool = False) -> str:
    """Text of others without characters that a terminal would act upon."""
    if keep_style:
        pieces = re.split(r"(\x1b\[[0-9;]*m)", text)
        return "".join(piece if index % 2 else _visible(piece) for index, piece in enumerate(pieces))
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
