"""The sections `token`, `users`, `no_auth_user` and `jwt` of the configuration file: who may connect.

Everything is checked when it is read, and a mistake is named with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mq9_broker.auth.claims import JwtError, read_account, read_operator
from mq9_broker.auth.nkeys import public_key
from mq9_broker.auth.permissions import wrong_subject

SECTIONS = ("token", "users", "no_auth_user", "jwt")
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_LARGEST_JWT_FILE = 2**20


@dataclass(frozen=True)
class PermissionLists:
    """Subjects as they stand in the configuration; None = all."""

    publish_allow: tuple[str, ...] | None = None
    publish_deny: tuple[str, ...] = ()
    subscribe_allow: tuple[str, ...] | None = None
    subscribe_deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class User:
    """One entry of `users`.

    Attributes:
        name: what he calls himself, or is called in his certificate; "" with an NKey.
        password: its bcrypt hash; "" for a user known by certificate or NKey.
        nkey: his public key; "" without.
        permissions: None = everything.
    """

    name: str = ""
    password: str = ""
    nkey: str = ""
    permissions: PermissionLists | None = None


@dataclass(frozen=True)
class JwtAccess:
    """The section `jwt`.

    Attributes:
        operator: the operator's JWT, whom users' JWTs lead back to.
        accounts: the JWTs of the accounts that are let in.
    """

    operator: str
    accounts: tuple[str, ...]


@dataclass(frozen=True)
class Access:
    """Who may connect. Without any of this, everybody.

    Attributes:
        token: bcrypt hash of a token that lets a client in with all permissions.
        users: by name or NKey.
        no_auth_user: the user that a client is which shows no credentials.
        jwt: decentralised users.
    """

    token: str = ""
    users: tuple[User, ...] = ()
    no_auth_user: str = ""
    jwt: JwtAccess | None = None

    def __bool__(self) -> bool:
        """Whether a client has to say who it is."""
        return bool(self.token or self.users or self.jwt)


class AccessError(Exception):
    """Something in these sections is wrong; the message says where, what, and what was expected."""


class _Reader:
    """Reads the sections of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrong(self, node: yaml.Node, text: str) -> AccessError:
        return AccessError(f"{self._path}:{node.start_mark.line + 1}: {text}")

    def text(self, node: yaml.Node, name: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise self.wrong(node, f"{name}: expected some text")
        value: str = node.value
        return value

    def items(self, node: yaml.Node, name: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self.wrong(node, f"{name}: expected a list with an entry at least")
        entries: list[yaml.Node] = node.value
        return entries

    def fields(self, node: yaml.Node, name: str, known: Sequence[str]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{name}: expected lines of the form `key: value`")
        found: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key not in known:
                raise self.wrong(key_node, f"{name}: unknown key {key!r}; known are {', '.join(known)}")
            if key in found:
                raise self.wrong(key_node, f"{name}: {key!r} is given twice")
            found[key] = value_node
        return found

    def hashed(self, node: yaml.Node, name: str) -> str:
        text = self.text(node, name)
        if not _HASH.fullmatch(text):
            # What was written is not shown: it may be the password itself.
            raise self.wrong(
                node, f"{name}: expected a bcrypt hash, such as `mq9-broker hash-password` prints"
            )
        return text

    def users(self, node: yaml.Node) -> tuple[User, ...]:
        users: list[User] = []
        seen: set[str] = set()
        for entry in self.items(node, "users"):
            user = self.user(entry)
            key = user.nkey or user.name
            if key in seen:
                raise self.wrong(entry, f"users: {key!r} is there twice")
            seen.add(key)
            users.append(user)
        return tuple(users)

    def user(self, node: yaml.Node) -> User:
        fields = self.fields(node, "users", ("user", "password", "nkey", "permissions"))
        if ("user" in fields) == ("nkey" in fields):
            raise self.wrong(node, "users: expected either `user` or `nkey` in each entry")
        permissions = self.permissions(fields["permissions"]) if "permissions" in fields else None
        if "nkey" in fields:
            if "password" in fields:
                raise self.wrong(fields["password"], "users: an `nkey` needs no password")
            nkey = self.text(fields["nkey"], "nkey")
            try:
                public_key(nkey, "user")
            except ValueError as error:
                raise self.wrong(fields["nkey"], f"nkey: {error}") from None
            return User(nkey=nkey, permissions=permissions)
        name = self.text(fields["user"], "user")
        password = self.hashed(fields["password"], "password") if "password" in fields else ""
        return User(name, password, permissions=permissions)

    def permissions(self, node: yaml.Node) -> PermissionLists:
        fields = self.fields(node, "permissions", ("publish", "subscribe"))
        lists: dict[str, tuple[str, ...]] = {}
        for verb, part in fields.items():
            with_queue = verb == "subscribe"
            if not isinstance(part, yaml.MappingNode):
                lists[f"{verb}_allow"] = self.subjects(part, verb, with_queue)
                continue
            for name, entries in self.fields(part, verb, ("allow", "deny")).items():
                lists[f"{verb}_{name}"] = self.subjects(entries, f"{verb}: {name}", with_queue)
        return PermissionLists(**lists)

    def subjects(self, node: yaml.Node, name: str, with_queue: bool) -> tuple[str, ...]:
        entries = [node] if isinstance(node, yaml.ScalarNode) else self.items(node, name)
        subjects: list[str] = []
        for entry in entries:
            subject = self.text(entry, name)
            if why := wrong_subject(subject, with_queue=with_queue):
                raise self.wrong(entry, f"{name}: {why}")
            subjects.append(subject)
        return tuple(subjects)

    def jwt(self, node: yaml.Node) -> JwtAccess:
        fields = self.fields(node, "jwt", ("operator", "accounts"))
        for name in ("operator", "accounts"):
            if name not in fields:
                raise self.wrong(node, f"jwt: {name!r} is missing")
        operator = self.token_or_file(fields["operator"], "operator", read_operator)
        trusted = read_operator(operator)
        accounts = tuple(
            self.token_or_file(entry, "accounts", lambda text: read_account(text, trusted))
            for entry in self.items(fields["accounts"], "accounts")
        )
        return JwtAccess(operator, accounts)

    def token_or_file(self, node: yaml.Node, name: str, check: Callable[[str], object]) -> str:
        """Read a JWT that stands here, or in a file named here (relative to the configuration)."""
        text = self.text(node, name)
        if not text.startswith("eyJ"):
            file = self._path.parent / Path(text).expanduser()
            try:
                with file.open(encoding="utf-8") as opened:
                    text = _undecorated(opened.read(_LARGEST_JWT_FILE))
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or error
                raise self.wrong(node, f"{name}: expected a JWT or a file with one: {file}: {why}") from None
        try:
            check(text)
        except JwtError as error:
            raise self.wrong(node, f"{name}: {error}") from None
        return text


def _undecorated(text: str) -> str:
    """Return the first JWT of a file: the lines around it are those that `nsc` writes."""
    found = re.search(r"^eyJ\S+", text, re.MULTILINE)
    return found[0] if found else text.strip()


def read_access(path: Path, sections: dict[str, yaml.Node]) -> Access:
    """Read what the sections of a configuration file say.

    Args:
        path: the file, for messages and for the files that it names.
        sections: by their names, those of `SECTIONS` that are there.

    Raises:
        AccessError: something is wrong.
    """
    reader = _Reader(path)
    token = reader.hashed(sections["token"], "token") if "token" in sections else ""
    users = reader.users(sections["users"]) if "users" in sections else ()
    jwt = reader.jwt(sections["jwt"]) if "jwt" in sections else None
    no_auth_user = ""
    if "no_auth_user" in sections:
        node = sections["no_auth_user"]
        no_auth_user = reader.text(node, "no_auth_user")
        if no_auth_user not in {user.name for user in users}:
            raise reader.wrong(node, f"no_auth_user: {no_auth_user!r} is not the name of one of the `users`")
    return Access(token, users, no_auth_user, jwt)
