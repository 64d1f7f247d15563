"""What each command does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mq9._client import Client, connect
from mq9._encode import invalid
from mq9._generated import constants, validators
from mq9._generated.models import Message
from mq9.cli.arguments import arguments_of, connection
from mq9.cli.output import Output

_FOLLOW_LEASE_MS = constants.CONSUME_LEASE_MS
_FOLLOW_WAIT_MS = 30000
_PAGE = validators.QUERY_LIMIT.high


async def run(options: Any) -> int:
    """Connects, carries the command out and closes."""
    if getattr(options, "raw", False) and getattr(options, "json", False):
        raise invalid("raw", "--raw and --json exclude each other")
    output = Output(as_json=getattr(options, "json", False), raw=getattr(options, "raw", False))
    # What it needs is read before anything is sent, so that a mistake in it changes nothing.
    prepare: dict[str, Callable[[Any], Any]] = {"send": _payload, "register": _card}
    prepared = prepare[options.run](options) if options.run in prepare else None
    async with await connect(**connection(options)) as client:
        await _COMMANDS[options.run](client, options, output, prepared)
    return 0


async def _call(client: Client, options: Any, output: Output, _: Any) -> None:
    arguments = arguments_of(options)
    positional = [
        arguments.pop(o.name) for o in options.operation.options if o.positional and o.name in arguments
    ]
    if len(positional) < sum(o.positional for o in options.operation.options):
        # A gap among the positional ones: by name then.
        arguments, positional = arguments_of(options), []
    output.result(await getattr(client, options.operation.method)(*positional, **arguments))


def _payload(options: Any) -> bytes:
    if options.file is not None:
        return Path(options.file).read_bytes()
    if options.text is not None and options.text != "-":
        return str(options.text).encode("utf-8", "surrogateescape")
    if sys.stdin.isatty() and options.text is None:
        raise invalid("payload", "give it as an argument, with --file, or on standard input")
    return sys.stdin.buffer.read()


async def _send(client: Client, options: Any, output: Output, payload: bytes) -> None:
    msg_id = await client.send(payload=payload, **arguments_of(options))
    if output.as_json:
        output.json({"msg_id": msg_id})
    elif output.pretty:
        output.line(f"sent #{msg_id}" if msg_id >= 0 else "accepted, delayed")
    else:
        output.line(str(msg_id))


async def _fetch(client: Client, options: Any, output: Output, _: Any) -> None:
    arguments = arguments_of(options)
    group = arguments.get("group_name")
    if options.ack and not group:
        raise invalid("group_name", "--ack needs --group")
    if options.follow:
        await (_follow_group if group else _follow)(client, options, output, arguments)
        return
    result = await client.fetch(**arguments)
    for message in result.messages:
        output.message(message, lease_id=result.lease_id)
    if options.ack and result.messages:
        ids = [message.msg_id for message in result.messages]
        await client.ack(arguments["mail_address"], arguments["group_name"], msg_ids=ids)
    if output.pretty and not output.as_json and not result.messages:
        there = "" if group or "deliver" in arguments else "; --deliver earliest shows those already there"
        output.line(output.dim(f"no {'new ' if there else ''}messages{there}"))


async def _follow_group(client: Client, options: Any, output: Output, arguments: dict[str, Any]) -> None:
    arguments = {"max_wait_ms": _FOLLOW_WAIT_MS, "lease_ms": _FOLLOW_LEASE_MS, **arguments}
    failures: list[Exception] = []

    def stop(error: Exception, _: Message | None) -> None:
        failures.append(error)
        consumer.cancel()

    consumer = client.consume(**arguments, auto_ack=options.ack, on_error=stop)
    async for message in consumer:
        output.message(message)
    if failures:
        raise failures[0]


async def _follow(client: Client, options: Any, output: Output, arguments: dict[str, Any]) -> None:
    """Without a group: pages through QUERY, which skips nothing, and lets a FETCH wait for more."""
    address = arguments["mail_address"]
    deliver = arguments.get("deliver", "latest")
    since = arguments.get("from_time") if deliver == "from_time" else None
    start = arguments.get("from_id", 0) if deliver == "from_id" else 0
    if deliver == "latest":
        newest = await client.query(address, limit=1)
        start = newest[-1].msg_id + 1 if newest else 0
    while True:
        messages = await client.query(address, from_id=start, since=since, limit=_PAGE)
        for message in messages:
            output.message(message)
            start = message.msg_id + 1
        if not messages:
            wait = arguments.get("max_wait_ms", _FOLLOW_WAIT_MS) or _FOLLOW_WAIT_MS
            await client.fetch(address, deliver="from_id", from_id=start, num_msgs=1, max_wait_ms=wait)


async def _query(client: Client, options: Any, output: Output, _: Any) -> None:
    messages = await client.query(**arguments_of(options))
    for message in messages:
        output.message(message)
    if output.pretty and not output.as_json and not messages:
        output.line(output.dim("no messages"))


def _card(options: Any) -> dict[str, Any]:
    text = sys.stdin.read() if options.card_file == "-" else Path(options.card_file).read_text("utf-8")
    try:
        card = json.loads(text)
    except ValueError as error:
        raise invalid("card", f"{options.card_file} is no JSON: {error}") from None
    if not isinstance(card, dict):
        raise invalid("card", f"{options.card_file} holds no JSON object")
    return card


async def _register(client: Client, options: Any, output: Output, card: dict[str, Any]) -> None:
    arguments = arguments_of(options)
    name = arguments.pop("name", None) or card.get("name")
    if not isinstance(name, str) or not name:
        raise invalid("name", f"{options.card_file} has no name: add one, or give --name")
    if not options.keep_alive:
        await client.agent_register(name, card=card, **arguments)
        output.result(name)
        return
    arguments.pop("ttl", None)
    async with client.agent_keep_alive(name, card=card, **arguments):
        output.result(name)
        await asyncio.Event().wait()


async def _discover(client: Client, options: Any, output: Output, _: Any) -> None:
    if options.watch:
        await _watch(client, options, output, None)
        return
    result = await client.agent_discover(**arguments_of(options))
    output.agents(result)
    if output.pretty and not output.as_json and not result.agents:
        output.line(output.dim("no agents"))


async def _watch(client: Client, options: Any, output: Output, _: Any) -> None:
    known: dict[str, Any] = {}
    while True:
        found: dict[str, Any] = {}
        cursor: str | None = None
        while True:
            arguments: dict[str, Any] = {"limit": 100, **arguments_of(options), "cursor": cursor}
            result = await client.agent_discover(**arguments)
            found |= {str(agent.get("name")): agent for agent in result.agents}
            cursor = result.cursor
            # By meaning every agent is found, sooner or later: the best are looked at.
            if not cursor or arguments.get("semantic"):
                break
        for name in [*found, *(name for name in known if name not in found)]:
            if name not in known:
                _event(output, "+", "came", found[name])
            elif name not in found:
                _event(output, "-", "went", known[name])
            elif found[name] != known[name]:
                _event(output, "~", "changed", found[name])
        known = found
        await asyncio.sleep(options.every)


def _event(output: Output, mark: str, event: str, agent: dict[str, Any]) -> None:
    if output.as_json:
        output.json({"event": event, "agent": agent})
    else:
        output.line(f"{mark}{' ' if output.pretty else chr(9)}{output.agent(agent)}")


_COMMANDS: dict[str, Callable[[Client, Any, Output, Any], Awaitable[None]]] = {
    "call": _call,
    "send": _send,
    "fetch": _fetch,
    "query": _query,
    "register": _register,
    "discover": _discover,
    "watch": _watch,
}
