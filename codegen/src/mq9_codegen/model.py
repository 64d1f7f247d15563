"""The resolved protocol: what every template sees. Frozen, in a stable order, with all references expanded.

Nothing here is shaped by a language: names are split into words, types are trees, bounds are numbers. How a
language writes them is the matter of a target's data (see `mq9_codegen.target`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """What a value has to satisfy; None and empty mean no such bound.

    Attributes:
        min: Smallest number.
        max: Greatest number.
        min_length: Fewest characters.
        max_length: Most characters.
        min_bytes: Fewest bytes of UTF-8.
        max_bytes: Most bytes of UTF-8.
        min_items: Fewest items of a list.
        max_items: Most items of a list.
        chars: Allowed characters, as the inside of a regular expression's character class.
        first: Allowed first characters, likewise.
        last: Allowed last characters, likewise.
        forbid: Texts that may not occur.
        text: `no_control` (no characters below U+0020, nor U+007F to U+009F) or `printable_ascii` (U+0020 to
            U+007E, no blanks at the ends); empty = any.
    """

    min: int | None = None
    max: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    chars: str = ""
    first: str = ""
    last: str = ""
    forbid: tuple[str, ...] = ()
    text: str = ""

    @property
    def any(self) -> bool:
        """Whether there is any bound at all."""
        return self != Bounds()

    @property
    def pattern(self) -> str:
        """Characters, first and last as one anchored regular expression; empty if any text will do.

        Forbidden texts are not part of it (that would need look-ahead, which Go and Rust lack).
        """
        if not self.chars:
            return ""
        first, last = self.first or self.chars, self.last or self.chars
        return f"^[{first}]([{self.chars}]*[{last}])?$"


@dataclass(frozen=True)
class Type:
    """A type as a parameter or field uses it.

    Attributes:
        text: As written in the spec, e.g. `list<msg_id>`.
        kind: `scalar`, `enum`, `object` or `list`.
        name: Name of the scalar, enum or object; `list` for lists.
        base: For scalars `string`, `integer`, `number`, `boolean`, `bytes`, `json_object`, `header_map`
            (name to list of values), `header_map_single` (name to value), `duration` or `tls` (the last two
            only for the client); else the kind.
        unit: `seconds`, `milliseconds`, `unix_seconds`, `unix_milliseconds` or empty.
        item: The type of a list's items.
        bounds: The bounds of the type itself; a parameter may narrow them (see `Parameter.bounds`).
        error: The code of a value that breaks the bounds (`invalid_argument` unless the type says otherwise).
        doc: What the type means.
    """

    text: str
    kind: str
    name: str
    base: str
    unit: str = ""
    item: Type | None = None
    bounds: Bounds = Bounds()
    error: str = "invalid_argument"
    doc: str = ""

    @property
    def leaf(self) -> Type:
        """The type itself, or of a list its innermost items."""
        return self.item.leaf if self.item else self


@dataclass(frozen=True)
class Scalar:
    """A shared scalar type (`types.yaml`)."""

    name: str
    words: tuple[str, ...]
    type: Type
    doc: str = ""


@dataclass(frozen=True)
class EnumValue:
    """One value of an enum. `requires` names the parameter that has to be given with it, or is empty."""

    name: str
    words: tuple[str, ...]
    doc: str = ""
    requires: str = ""


@dataclass(frozen=True)
class Enum:
    """A set of known texts; if `open`, others of a newer broker reach the user as they are."""

    name: str
    words: tuple[str, ...]
    values: tuple[EnumValue, ...]
    open: bool = True
    default: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Field:
    """A field of an object or reply.

    Attributes:
        name: Its wire name.
        words: The words of the name.
        type: Its type.
        required: Whether it is always there; otherwise it may be absent or null.
        odd: What a value of another type does: `fail` (protocol error), `absent` (counts as absent) or
            `drop` (the whole item is left out and logged).
        has_default: Whether `default` counts when it is absent.
        default: That default.
        encoding_field: For payloads: the name of the sibling field that tells how the text is encoded.
        origin: `public`, or `added` for what this project adds to the public protocol.
        since: The protocol version that brought it.
        deprecated: Since when and why, or empty.
        doc: What it means.
    """

    name: str
    words: tuple[str, ...]
    type: Type
    required: bool = True
    odd: str = "fail"
    has_default: bool = False
    default: Any = None
    encoding_field: str = ""
    origin: str = "public"
    since: str = ""
    deprecated: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Object:
    """A shared object type. `decode: message` = decoded with the special rules for messages."""

    name: str
    words: tuple[str, ...]
    fields: tuple[Field, ...]
    decode: str = ""
    origin: str = "public"
    doc: str = ""


@dataclass(frozen=True)
class Header:
    """A header that the protocol knows.

    Attributes:
        name: Its name on the wire, lower case.
        words: The words of the name without the prefix.
        type: The type of its value.
        encoding: `text`, `integer` (decimal digits) or `comma_separated`.
        repeat: `first` (the first value counts) or `join` (all values).
        consumed: Whether the broker acts on it and does not hand it back in `headers`.
        parameter: The parameter of msg.send that sets it; empty for headers that the broker sets.
        origin: `public` or `added`.
        doc: What it means.
    """

    name: str
    words: tuple[str, ...]
    type: Type
    encoding: str
    repeat: str = "first"
    consumed: bool = False
    parameter: str = ""
    origin: str = "public"
    doc: str = ""


@dataclass(frozen=True)
class Limit:
    """A number that more than one place needs."""

    name: str
    words: tuple[str, ...]
    value: int
    unit: str
    configurable: bool = False
    doc: str = ""


@dataclass(frozen=True)
class ErrorCode:
    """A code of a failed reply. `arguments` are the names in braces in `text`, in order."""

    name: str
    words: tuple[str, ...]
    text: str
    arguments: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True)
class Classify:
    """How the text of a reply without `code` is recognised: by prefix and suffix."""

    prefix: str
    suffix: str
    code: str
    source: str = ""


@dataclass(frozen=True)
class ErrorKind:
    """How a call can fail in an SDK."""

    name: str
    words: tuple[str, ...]
    doc: str = ""


@dataclass(frozen=True)
class RetryClass:
    """After which kinds of failure or codes an SDK may try again, with the parameter that it `needs`."""

    name: str
    retries_on: tuple[str, ...]
    needs: str = ""
    doc: str = ""


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation, of `connect` or of `consume`.

    Attributes:
        name: The SDK's name for it (casing follows the language).
        words: The words of the name.
        type: Its type.
        place: Where it travels: `subject`, `body`, `header` (one header), `headers` (more headers),
            `payload` or `client` (not sent).
        path: For `body`: the keys from the top of the body, e.g. `("config", "num_msgs")`.
        header: For `header`: the header.
        optional: Whether a caller may leave it out; then field or header are left out too.
        has_default: Whether `default` is what the broker (or the SDK, for `client`) takes when it is left
            out.
        default: That default.
        positional: Its position from 1 among the arguments that need no name, or 0.
        broker_type: The wider type that the broker takes for it (`any`, or a scalar's name), or empty.
        spread: For `body`: the members of this object stand in the body themselves; the other parameters win.
        until_first_fetch: For `consume`: sent with each FETCH until one has succeeded.
        bounds: The bounds of the type, narrowed by the parameter's own.
        origin: `public`, or `added` for what this project adds to the public protocol.
        since: The protocol version that brought it.
        deprecated: Since when and why, or empty.
        doc: What it means.
    """

    name: str
    words: tuple[str, ...]
    type: Type
    place: str = "client"
    path: tuple[str, ...] = ()
    header: Header | None = None
    optional: bool = False
    has_default: bool = False
    default: Any = None
    positional: int = 0
    broker_type: str = ""
    spread: bool = False
    until_first_fetch: bool = False
    bounds: Bounds = Bounds()
    origin: str = "public"
    since: str = ""
    deprecated: str = ""
    doc: str = ""

    @property
    def required(self) -> bool:
        """Whether a caller has to give it."""
        return not self.optional and not self.has_default

    @property
    def wire(self) -> str:
        """The name on the wire: the last key of `path`, or the header's name, or the parameter's own."""
        if self.header:
            return self.header.name
        return self.path[-1] if self.path else self.name

    @property
    def min_is_set(self) -> bool:
        """Whether the parameter has a lower or upper bound as a number."""
        return self.bounds.min is not None or self.bounds.max is not None


@dataclass(frozen=True)
class BodyField:
    """A member of a request body: a parameter, an object with members of its own, or a constant.

    Attributes:
        name: Its wire name.
        words: The words of the name.
        parameter: The parameter whose value it has, or None.
        fields: For an inner object: its members.
        constant: For a constant such as the body's `mail_address`: the name of the parameter whose value is
            repeated, else empty.
    """

    name: str
    words: tuple[str, ...]
    parameter: Parameter | None = None
    fields: tuple[BodyField, ...] = ()
    constant: str = ""


@dataclass(frozen=True)
class Segment:
    """A token of a subject: fixed text or a parameter's value (which may hold dots itself)."""

    text: str = ""
    parameter: Parameter | None = None


@dataclass(frozen=True)
class Rule:
    """A condition over several parameters; a call that breaks it is invalid_argument with field `fails_on`.

    Attributes:
        kind: `require_any` (one of `require` has to be given; for lists: not empty), `when` (if parameter
            `subject` has the value `value`, `require` has to be given) or `when_present` (if parameter
            `subject` is given and not 0, likewise).
        require: Names of parameters.
        subject: The parameter of the condition.
        value: The value of the condition.
        fails_on: The field that is named in the error.
    """

    kind: str
    require: tuple[str, ...]
    fails_on: str
    subject: str = ""
    value: Any = None


@dataclass(frozen=True)
class Result:
    """What an SDK's method gives back.

    Attributes:
        kind: `none`, `field` (the value of one field of the reply) or `reply` (an object with all fields of
            the reply).
        field: For `field`: that field.
        type_name: For `reply`: the name of the object type.
        words: The words of `type_name`.
    """

    kind: str
    field: Field | None = None
    type_name: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """One sentence that can be checked. `checks` are the vectors and scenarios that say they cover it."""

    id: str
    level: str
    by: str
    text: str
    operation: str = ""
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vector:
    """A wire vector: a call, the exact request it makes, a reply and what comes out.

    Attributes:
        id: Its name, unique in the spec.
        words: The words of the name.
        operation: Name of the operation.
        covers: Requirement ids that it checks.
        call: Parameters by name. A payload is `{text: …}`, `{base64: …}` or `{json: …}`.
        request: The exact request (`subject`; `json` body, `payload` or `empty`; `headers`;
            `forbid_headers`), or None if nothing may be sent.
        reply: What the broker answers (`json`, `text`, `base64` or `status`), or None if there is nothing to
            answer.
        ok: The expected result, if `is_ok`.
        error: The expected failure (`kind`, `code`, `field`), or None.
        is_ok: Whether the call succeeds.
        attempts: How many requests go out, retries included; None = not looked at.
        odd: Whether it stands in the file of odd cases, beside those that explain the operation.
        doc: Why the vector is there, or empty.
    """

    id: str
    words: tuple[str, ...]
    operation: str
    covers: tuple[str, ...]
    call: Mapping[str, Any]
    request: Mapping[str, Any] | None
    reply: Mapping[str, Any] | None
    ok: Any = None
    error: Mapping[str, Any] | None = None
    is_ok: bool = False
    attempts: int | None = None
    odd: bool = False
    doc: str = ""


@dataclass(frozen=True)
class Leases:
    """When an operation's reply may bring messages under a lease.

    Attributes:
        when_present: The parameter that asks for a lease.
        group: The parameter that names the consumer group.
    """

    when_present: str
    group: str


@dataclass(frozen=True)
class Operation:
    """One operation of the protocol.

    Attributes:
        name: Its name, e.g. `msg.fetch`.
        words: The words of the name.
        group: What stands before the dot.
        method: The name of the SDK's method, e.g. `fetch`.
        method_words: Its words.
        summary: One sentence.
        doc: More prose.
        since: The protocol version that brought it.
        origin: `public`, or `added` for what this project adds to the public protocol.
        deprecated: Since when and why, or empty.
        subject: The subject with `{parameter}` in it.
        segments: The same in pieces; joined with dots they are the subject.
        partition: The partition key: the name of a parameter, or `registry`.
        effect: `read` or `write`.
        retry: When an SDK may try again.
        timeout_adds: The parameter whose milliseconds (or its default) are added to the timeout, or empty.
        leases: When its reply may bring messages under a lease, or None.
        max_body: The bound of the whole body, or None.
        body: `none`, `json` or `payload`.
        parameters: All parameters, in the spec's order.
        body_fields: The members of the JSON body, as a tree, in the order in which they are written.
        rules: Conditions over several parameters.
        reply: The fields of a successful reply besides `error`.
        result: What an SDK's method gives back.
        errors: The codes it may answer.
        requirements: Its requirements.
        vectors: Its wire vectors.
    """

    name: str
    words: tuple[str, ...]
    group: str
    method: str
    method_words: tuple[str, ...]
    summary: str
    doc: str
    since: str
    origin: str
    deprecated: str
    subject: str
    segments: tuple[Segment, ...]
    partition: str
    effect: str
    retry: RetryClass
    timeout_adds: str
    leases: Leases | None
    max_body: Limit | None
    body: str
    parameters: tuple[Parameter, ...]
    body_fields: tuple[BodyField, ...]
    rules: tuple[Rule, ...]
    reply: tuple[Field, ...]
    result: Result
    errors: tuple[ErrorCode, ...]
    requirements: tuple[Requirement, ...]
    vectors: tuple[Vector, ...]

    def parameter(self, name: str) -> Parameter:
        """The parameter of this name."""
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def placed(self, *places: str) -> tuple[Parameter, ...]:
        """The parameters that travel in one of these places."""
        return tuple(parameter for parameter in self.parameters if parameter.place in places)

    @property
    def positional(self) -> tuple[Parameter, ...]:
        """The parameters that need no name, in order."""
        return tuple(sorted((p for p in self.parameters if p.positional), key=lambda p: p.positional))

    @property
    def keyword(self) -> tuple[Parameter, ...]:
        """The parameters that are given by name."""
        return tuple(parameter for parameter in self.parameters if not parameter.positional)

    @property
    def fixed_subject(self) -> str:
        """The subject up to its first parameter, without the last dot if a parameter follows."""
        return ".".join(
            s.text
            for s in self.segments[: next((i for i, s in enumerate(self.segments) if s.parameter), None)]
        )


@dataclass(frozen=True)
class ClientCall:
    """`connect` or `consume`: what an SDK offers besides the operations."""

    doc: str
    parameters: tuple[Parameter, ...]
    positional: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Client:
    """What an SDK adds to the wire; the mappings hold the numbers of `client.yaml`, by name."""

    connect: ClientCall
    consume: ClientCall
    request: Mapping[str, Any]
    retry: Mapping[str, Any]
    agent_keep_alive: Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """The whole protocol.

    Attributes:
        protocol: Its name.
        version: `MAJOR.MINOR`.
        hash: A hash of the content (comments and formatting of the YAML do not count).
        title: One line.
        doc: Prose.
        subject_prefix: What every subject starts with.
        default_port: The NATS port.
        licence: SPDX identifier.
        check_order: What a failed request is checked for, in order.
        retry_classes: By name.
        scalars: Shared scalar types.
        enums: Shared enums.
        objects: Shared object types.
        header_prefix: The prefix of the protocol's headers.
        headers: Headers that a sender may set.
        dead_letter_headers: Headers that the broker puts on dead letters.
        codes: Codes of failed replies.
        classify: How replies without a code are recognised.
        kinds: Kinds of failure in an SDK.
        limits: Shared numbers.
        client: What an SDK adds.
        operations: All operations, by name.
        requirements: All requirements, of operations too, by id.
        vectors: All vectors, in the order of the operations.
    """

    protocol: str
    version: str
    hash: str
    title: str
    doc: str
    subject_prefix: str
    default_port: int
    licence: str
    check_order: tuple[str, ...]
    retry_classes: tuple[RetryClass, ...]
    scalars: tuple[Scalar, ...]
    enums: tuple[Enum, ...]
    objects: tuple[Object, ...]
    header_prefix: str
    headers: tuple[Header, ...]
    dead_letter_headers: tuple[Header, ...]
    codes: tuple[ErrorCode, ...]
    classify: tuple[Classify, ...]
    kinds: tuple[ErrorKind, ...]
    limits: tuple[Limit, ...]
    client: Client
    operations: tuple[Operation, ...]
    requirements: tuple[Requirement, ...]
    vectors: tuple[Vector, ...]

    def limit(self, name: str) -> int:
        """The value of a limit."""
        return next(limit.value for limit in self.limits if limit.name == name)

    def object(self, name: str) -> Object:
        """The object type of this name."""
        return next(item for item in self.objects if item.name == name)

    def enum(self, name: str) -> Enum:
        """The enum of this name."""
        return next(item for item in self.enums if item.name == name)

    def operation(self, name: str) -> Operation:
        """The operation of this name."""
        return next(item for item in self.operations if item.name == name)
