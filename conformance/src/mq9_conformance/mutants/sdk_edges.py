"""The edges of the Python SDK and its adapter at which most adapter mutants sit.

The arguments that the adapter hands over, the requests and replies of the SDK's connection, its loop of
attempts, the numbers of the specification, and what the adapter answers.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces an attribute by one made of it; fails if there is none."""
    setattr(owner, name, make(getattr(owner, name)))


def sdk(path: str) -> Any:
    """Something of the SDK or its adapter: `module:attribute`."""
    module, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else []:
        found = getattr(found, part)
    return found


def arguments(operations: set[str], edit: Callable[[Json], Any]) -> Callable[[], None]:
    """Edits the arguments before the SDK sees them."""

    def put_in() -> None:
        def make(original: Any) -> Any:
            async def carry_out(self: Any, request: Json) -> Any:
                if request["op"] in operations or "*" in operations:
                    edit(request.setdefault("args", {}))
                return await original(self, request)

            return carry_out

        wrap(sdk("adapter:Adapter"), "carry_out", make)

    return put_in


def answers(edit: Callable[[Json], Any]) -> Callable[[], None]:
    """Edits the errors that the adapter answers."""

    def put_in() -> None:
        def make(original: Any) -> Any:
            def write(self: Any, line: Json) -> None:
                if "error" in line and "event" not in line:
                    edit(line["error"])
                original(self, line)

            return write

        wrap(sdk("adapter:Adapter"), "write", make)

    return put_in


def kind_becomes(old: str, new: str) -> Callable[[], None]:
    """One kind of failure is reported as another."""
    return answers(lambda error: error.update(kind=new) if error["kind"] == old else None)


EditRequest = Callable[[str, str, bytes, Any], tuple[str, bytes, Any]]


def requests(edit: EditRequest) -> Callable[[], None]:
    """Edits what goes over the wire: subject, payload and headers, knowing the operation."""

    def put_in() -> None:
        def make(original: Any) -> Any:
            async def request(
                self: Any, operation: str, subject: str, payload: bytes, headers: Any, *rest: Any, **more: Any
            ) -> Any:
                subject, payload, headers = edit(operation, subject, payload, headers)
                return await original(self, operation, subject, payload, headers, *rest, **more)

            return request

        wrap(sdk("mq9._connection:Connection"), "request", make)

    return put_in


def bodies(operation: str, edit: Callable[[Json], Any]) -> Callable[[], None]:
    """Edits the JSON body of one operation."""

    def change(name: str, subject: str, payload: bytes, headers: Any) -> tuple[str, bytes, Any]:
        if name == operation:
            body = json.loads(payload or b"{}")
            edit(body)
            payload = json.dumps(body).encode()
        return subject, payload, headers

    return requests(change)


def replies(edit: Callable[[str, bytes], bytes]) -> Callable[[], None]:
    """Edits replies as they come from the wire."""

    def put_in() -> None:
        def make(original: Any) -> Any:
            async def request(self: Any, operation: str, *rest: Any, **more: Any) -> Any:
                return edit(operation, await original(self, operation, *rest, **more))

            return request

        wrap(sdk("mq9._connection:Connection"), "request", make)

    return put_in


def reply_values(edit: Callable[[str, Json], Any]) -> Callable[[], None]:
    """Edits replies that are JSON objects."""

    def change(operation: str, data: bytes) -> bytes:
        try:
            value = json.loads(data)
        except ValueError:
            return data
        if isinstance(value, dict):
            edit(operation, value)
            return json.dumps(value).encode()
        return data

    return replies(change)


def swallow(
    operation: str, answer: Json, when: Callable[[Json], bool] = lambda body: True
) -> Callable[[], None]:
    """An operation never reaches the wire; the SDK takes this for its reply."""

    def put_in() -> None:
        def make(original: Any) -> Any:
            async def request(
                self: Any, name: str, subject: str, payload: bytes, *rest: Any, **more: Any
            ) -> Any:
                if name == operation and when(json.loads(payload or b"{}")):
                    return json.dumps(answer).encode()
                return await original(self, name, subject, payload, *rest, **more)

            return request

        wrap(sdk("mq9._connection:Connection"), "request", make)

    return put_in


def constant(name: str, value: Any) -> Callable[[], None]:
    """A number of the specification that the SDK has wrong."""
    return lambda: wrap(sdk("mq9._generated.constants"), name, lambda old: value)


def retries_after(
    *more: str, operations: set[str] | None = None, everything: bool = False
) -> Callable[[], None]:
    """Tries again after failures that are final."""

    class Everything(frozenset[str]):
        def __contains__(self, item: object) -> bool:
            return item not in {"cancelled", "invalid_argument", None}

    def put_in() -> None:
        def edit(call: Json) -> None:
            operation = call["operation"]
            if operations is None or operation.name in operations:
                wanted = Everything() if everything else operation.retries_on | set(more)
                call["operation"], call["repeatable"] = operation._replace(retries_on=wanted), True

        _edit_attempts(edit)

    return put_in


def _edit_attempts(edit: Callable[[Json], None]) -> None:
    """Edits the arguments of the SDK's loop of attempts, by their names."""

    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        async def attempts(*args: Any, **more: Any) -> Any:
            call = signature.bind(*args, **more)
            edit(call.arguments)
            return await original(*call.args, **call.kwargs)

        return attempts

    wrap(sdk("mq9._client:Client"), "_attempts", make)
