"""Requests to commands, without a shell or an engine."""

import json
from typing import Any

import msgspec

from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.shell.bodies import BodyDecoder
from mq9_broker.shell.headers import HeaderDecoder, SendHeaders
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.shell.router import Router

GENERATED = "0123456789abcdef"
ROUTER = Router(OPERATIONS)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
DECODERS = {op.name: BodyDecoder(op, lambda: GENERATED) for op in OPERATIONS if op.command is not None}


def long_way(subject: str, body: bytes = b"") -> msgspec.Struct | dict[str, str]:
    """The command of a request below `$mq9.AI.`, or the error reply, by the table alone."""
    try:
        route = ROUTER.route(b"$mq9.AI." + subject.encode())
        return DECODERS[route.operation.name].decode(route.values, body)
    except RefusedError as refused:
        reply: dict[str, str] = json.loads(refused.reply)
        return reply


def decode(subject: str, body: Any = b"") -> Any:
    """The command or the error reply of a request; a short cut, where there is one, must agree."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    result = long_way(subject, body)
    try:
        route = ROUTER.route(b"$mq9.AI." + subject.encode())
    except RefusedError:
        return result
    short = DECODERS[route.operation.name].shortcut(route.address, body)
    assert short is None or short == result
    return result


def headers(*lines: bytes) -> SendHeaders | dict[str, str]:
    """What a SEND's header lines say, or the error reply."""
    block = b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    try:
        return HeaderDecoder(BY_NAME["msg.send"]).decode(block)
    except RefusedError as refused:
        reply: dict[str, str] = json.loads(refused.reply)
        return reply
