"""From a request's subject to its operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from mq9_broker._generated import errors
from mq9_broker.shell.bodies import decimal, value_check
from mq9_broker.shell.description import Operation
from mq9_broker.shell.refusal import RefusedError, refuse

# Subjects seen lately; when there are more they are all forgotten.
REMEMBERED_SUBJECTS: Final = 65_536


class Route(NamedTuple):
    """Where a request goes.

    Attributes:
        operation: What to do.
        address: The mailbox that the subject names, empty if it names none.
        values: All that the subject names.
    """

    operation: Operation
    address: bytes
    values: dict[str, Any]


class Router:
    """Finds the operation of a subject, and remembers it."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        known = list(operations)
        self._exact = {op.subject: op for op in known if not op.subject_fields}
        prefixes = [(op.subject + b".", op) for op in known if op.subject_fields]
        self._prefixes = sorted(prefixes, key=lambda pair: -len(pair[0]))
        self._checks = {(op.name, f.name): value_check(f) for op in known for f in op.subject_fields}
        self.remembered: dict[bytes, Route] = {}

    def route(self, subject: bytes) -> Route:
        """Return where a subject leads.

        Raises:
            RefusedError: No operation has this subject, or what it names is malformed.
        """
        remembered = self.remembered.get(subject)
        if remembered is not None:
            return remembered
        operation = self._exact.get(subject)
        if operation is not None:
            return self._remember(subject, Route(operation, b"", {}))
        for prefix, candidate in self._prefixes:
            if subject.startswith(prefix) or subject == prefix[:-1]:
                return self._with_fields(subject, subject[len(prefix) :], candidate)
        shown = subject[:200].decode(errors="replace")
        raise RefusedError(errors.unsupported_operation(f"no operation has the subject {shown}"))

    def _with_fields(self, subject: bytes, tail: bytes, operation: Operation) -> Route:
        fields = operation.subject_fields
        parts = tail.rsplit(b".", len(fields) - 1) if len(fields) > 1 else [tail]
        if len(parts) < len(fields):
            parts.insert(0, b"")  # the first one, the address, is what is missing
        values: dict[str, Any] = {}
        for field, part in zip(fields, parts, strict=True):
            text = part.decode(errors="replace")
            if field.kind == "integer":
                values[field.name] = decimal(text, field)
                continue
            code = field.text.code if field.text is not None else errors.INVALID_ARGUMENT
            named = "" if code == errors.INVALID_MAIL_ADDRESS else field.name
            if not text:
                raise refuse(code, named, "missing in the subject")
            try:
                values[field.name] = self._checks[operation.name, field.name](text)
            except ValueError as error:
                raise refuse(code, named, str(error)) from None
        route = Route(operation, values.get(operation.partition, b""), values)
        # With a message's number in it a subject seldom comes twice.
        return self._remember(subject, route) if len(fields) == 1 else route

    def _remember(self, subject: bytes, route: Route) -> Route:
        if len(self.remembered) >= REMEMBERED_SUBJECTS:
            self.remembered.clear()
        self.remembered[subject] = route
        return route
