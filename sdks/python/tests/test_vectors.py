"""Every wire vector of the specification: the exact request of a call, and what a reply becomes."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import mq9

FILE = Path(__file__).parent / "generated" / "vectors.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["vectors"]


def _payload(value: dict[str, Any]) -> Any:
    if "base64" in value:
        return base64.b64decode(value["base64"])
    return value["text"] if "text" in value else value["json"]


def _bytes(value: dict[str, Any]) -> bytes:
    payload = _payload(value)
    return payload if isinstance(payload, bytes) else payload.encode()


def _expected(value: Any) -> Any:
    """A result as the specification writes it, with payloads as bytes."""
    if isinstance(value, dict):
        return {
            key: _bytes(item) if key == "payload" and isinstance(item, dict) else _expected(item)
            for key, item in value.items()
        }
    return [_expected(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """A result of the SDK in the same form: what is absent is left out."""
    if value is None:
        return {}
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _exact(value: Any) -> str:
    """Tells 1, 1.0 and true apart, which compare as equal."""
    return json.dumps(value, sort_keys=True, default=lambda raw: {"bytes": raw.hex()})


def _check_request(wanted: dict[str, Any], request: Any) -> None:
    assert request.subject == wanted["subject"]
    if wanted.get("empty"):
        assert request.payload == b""
    if "json" in wanted:
        assert _exact(json.loads(request.payload)) == _exact(wanted["json"])
    if "payload" in wanted:
        if "json" in wanted["payload"]:
            assert _exact(json.loads(request.payload)) == _exact(wanted["payload"]["json"])
        else:
            assert request.payload == _bytes(wanted["payload"])
    if "headers" in wanted:
        assert request.headers == wanted["headers"]
    for pattern in wanted.get("forbid_headers", ()):
        assert not [name for name in request.headers if fnmatchcase(name.lower(), pattern.lower())]


def _answer(reply: dict[str, Any] | None, statuses: dict[str, Callable[[], Exception]]) -> Any:
    if reply is None:
        return {"error": ""}
    if "status" in reply:
        return lambda _: statuses[reply["status"]]()
    if "json" in reply:
        return reply["json"]
    return (
        base64.b64decode(reply["base64"])
        if "base64" in reply
        else reply["text"].encode("utf-8", "surrogatepass")
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{v['operation']}/{v['id']}" for v in VECTORS])
async def test_vector(vector: dict[str, Any], fake: Any, statuses: Any) -> None:
    client, connection = fake(_answer(vector["reply"], statuses))
    method = getattr(client, vector["method"])
    call = {
        key: _payload(v) if key == "payload" and isinstance(v, dict) else v
        for key, v in vector["call"].items()
    }
    result: Any = None
    error: mq9.Mq9Error | None = None
    try:
        result = await method(**call)
    except mq9.Mq9Error as failure:
        error = failure
    except asyncio.CancelledError:
        raise AssertionError("nobody cancelled") from None

    if vector["request"] is None:
        assert connection.requests == []
    else:
        assert connection.requests, error
        for request in connection.requests:
            _check_request(vector["request"], request)
    if vector.get("attempts"):
        assert len(connection.requests) == vector["attempts"]
    if vector["is_ok"]:
        assert error is None
        assert _exact(_plain(result)) == _exact(_expected(vector["ok"]))
    else:
        assert error is not None, result
        wanted = vector["error"]
        assert error.kind == wanted["kind"]
        if "code" in wanted:
            assert error.code == wanted["code"]
        if "field" in wanted:
            assert error.field == wanted["field"]
        assert error.operation in (None, vector["operation"])


def test_all_vectors_are_here() -> None:
    operations = {vector["operation"] for vector in VECTORS}
    assert len(operations) >= 14
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)
