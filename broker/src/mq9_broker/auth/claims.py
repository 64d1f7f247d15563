"""Decentralised users: JWTs of operator, account and user, each signed with the key of the one before.

The form is that of NATS (version 2): `header.claims.signature` in base64url, algorithm `ed25519-nkey`, keys
as NKeys.
"""

from __future__ import annotations

import datetime
import ipaddress
import time
import zoneinfo

import msgspec

from mq9_broker.auth.identity import Credentials
from mq9_broker.auth.nkeys import decode_base64, is_signed

_ALGORITHM = "ed25519-nkey"
_VERSION = 2
_UNLIMITED = -1
_ALL_USERS = "*"


class JwtError(Exception):
    """A JWT does not hold; the message says why."""


class _Header(msgspec.Struct):
    alg: str = ""


class SubjectLists(msgspec.Struct):
    """Subjects that are allowed, all if there are none, and those that are not."""

    allow: list[str] | None = None
    deny: list[str] | None = None


class PermissionClaims(msgspec.Struct):
    """What a user may publish and subscribe to."""

    pub: SubjectLists = msgspec.field(default_factory=SubjectLists)
    sub: SubjectLists = msgspec.field(default_factory=SubjectLists)

    def __bool__(self) -> bool:
        """Whether anything is restricted."""
        return bool(self.pub.allow or self.pub.deny or self.sub.allow or self.sub.deny)

    def entries(self) -> list[str]:
        """Return all subjects of all lists."""
        lists = (self.pub.allow, self.pub.deny, self.sub.allow, self.sub.deny)
        return [entry for entries in lists for entry in entries or ()]


class _Times(msgspec.Struct):
    start: str
    end: str


class _UserRules(PermissionClaims):
    """What stands both in a user's JWT and in the template of a scoped signing key."""

    subs: int = _UNLIMITED
    payload: int = _UNLIMITED
    src: list[str] | str | None = None
    times: list[_Times] | None = None
    times_location: str = ""
    bearer_token: bool = False
    allowed_connection_types: list[str] | None = None


class _OperatorNats(msgspec.Struct):
    type: str = ""
    version: int = 0
    signing_keys: list[str] | None = None
    strict_signing_key_usage: bool = False


class _Scope(msgspec.Struct):
    key: str
    kind: str = ""
    template: _UserRules = msgspec.field(default_factory=_UserRules)


class _AccountLimits(msgspec.Struct):
    conn: int = _UNLIMITED
    subs: int = _UNLIMITED
    payload: int = _UNLIMITED
    disallow_bearer: bool = False


class _AccountNats(msgspec.Struct):
    type: str = ""
    version: int = 0
    limits: _AccountLimits = msgspec.field(default_factory=_AccountLimits)
    signing_keys: list[str | _Scope] | None = None
    revocations: dict[str, int] | None = None
    default_permissions: PermissionClaims = msgspec.field(default_factory=PermissionClaims)


class _UserNats(_UserRules):
    type: str = ""
    version: int = 0
    issuer_account: str = ""


class _Claims(msgspec.Struct):
    iss: str
    sub: str
    iat: int = 0
    exp: int = 0
    nbf: int = 0
    name: str = ""


class OperatorClaims(_Claims):
    """An operator: the root of trust."""

    nats: _OperatorNats = msgspec.field(default_factory=_OperatorNats)


class AccountClaims(_Claims):
    """An account, which lets users in."""

    nats: _AccountNats = msgspec.field(default_factory=_AccountNats)

    def scopes(self) -> dict[str, _Scope | None]:
        """Return the keys that may sign users, with the template of those that have one."""
        keys: dict[str, _Scope | None] = {self.sub: None}
        for entry in self.nats.signing_keys or ():
            if isinstance(entry, str):
                keys[entry] = None
            else:
                keys[entry.key] = entry
        return keys


class UserClaims(_Claims):
    """A user."""

    nats: _UserNats = msgspec.field(default_factory=_UserNats)


def _decode(text: str, claims: type[_Claims], kind: str, issuer: str) -> _Claims:
    """Check form, kind, signature and times of a JWT."""
    parts = text.split(".")
    if len(parts) != 3:
        raise JwtError(f"expected the JWT of {_a(kind)}: three parts with dots between them")
    try:
        header = msgspec.json.decode(decode_base64(parts[0]), type=_Header)
        decoded = msgspec.json.decode(decode_base64(parts[1]), type=claims)
        signature = decode_base64(parts[2])
    except (ValueError, msgspec.DecodeError) as error:
        raise JwtError(f"expected the JWT of {_a(kind)}: {error}") from None
    if header.alg != _ALGORITHM:
        raise JwtError(f"expected the JWT of {_a(kind)} with algorithm {_ALGORITHM}, got {header.alg!r}")
    nats = getattr(decoded, "nats")  # noqa: B009  # each kind has its own
    if nats.type != kind or nats.version != _VERSION:
        raise JwtError(
            f"expected the JWT of {_a(kind)}, version {_VERSION}, "
            f"got type {nats.type!r}, version {nats.version}"
        )
    if not is_signed(decoded.iss, issuer, signature, f"{parts[0]}.{parts[1]}".encode()):
        raise JwtError(f"the signature of the {kind}'s JWT does not fit its issuer {decoded.iss}")
    _check_times(decoded, kind)
    return decoded


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _check_times(claims: _Claims, kind: str) -> None:
    now = time.time()
    if claims.exp and claims.exp <= now:
        raise JwtError(f"the {kind}'s JWT has expired")
    if claims.nbf and claims.nbf > now:
        raise JwtError(f"the {kind}'s JWT does not hold yet")


def read_operator(text: str) -> OperatorClaims:
    """Read the JWT of an operator, who signs himself.

    Raises:
        JwtError: it does not hold.
    """
    claims = _decode(text, OperatorClaims, "operator", "operator")
    assert isinstance(claims, OperatorClaims)
    if claims.iss not in (claims.sub, *(claims.nats.signing_keys or ())):
        raise JwtError("the operator's JWT is signed by somebody else")
    return claims


def read_account(text: str, operator: OperatorClaims) -> AccountClaims:
    """Read the JWT of an account and check that the operator signed it.

    Raises:
        JwtError: it does not hold.
    """
    claims = _decode(text, AccountClaims, "account", "operator")
    assert isinstance(claims, AccountClaims)
    trusted = list(operator.nats.signing_keys or ())
    if not operator.nats.strict_signing_key_usage:
        trusted.append(operator.sub)
    if claims.iss not in trusted:
        raise JwtError(f"the JWT of account {claims.sub} is not signed by the operator")
    for entry in claims.nats.default_permissions.entries():
        _refuse_template(entry)
    return claims


def read_user(text: str, accounts: dict[str, AccountClaims]) -> tuple[UserClaims, AccountClaims, _UserRules]:
    """Read the JWT of a user and check that an account signed it and has not revoked it.

    Returns:
        The user's claims, those of the account, and the rules that count: the user's own, or those of the
        scoped key that signed it.

    Raises:
        JwtError: it does not hold.
    """
    claims = _decode(text, UserClaims, "user", "account")
    assert isinstance(claims, UserClaims)
    account = accounts.get(claims.nats.issuer_account or claims.iss)
    if account is None:
        raise JwtError(f"account {claims.nats.issuer_account or claims.iss} is unknown")
    scopes = account.scopes()
    if claims.iss not in scopes:
        raise JwtError(f"key {claims.iss} may not sign users of account {account.sub}")
    _check_times(account, "account")
    revocations = account.nats.revocations or {}
    if claims.iat <= max(revocations.get(claims.sub, -1), revocations.get(_ALL_USERS, -1)):
        raise JwtError(f"user {claims.sub} is revoked")
    scope = scopes[claims.iss]
    rules: _UserRules = claims.nats
    if scope is not None:
        if claims.nats or claims.nats.subs > 0 or claims.nats.payload > 0 or claims.nats.src:
            raise JwtError("a user that a scoped key signed must have no permissions and limits of his own")
        rules = scope.template
    for entry in rules.entries():
        _refuse_template(entry)
    return claims, account, rules


def _refuse_template(entry: str) -> None:
    if "{{" in entry:
        raise JwtError(f"templates in permissions are not supported: {entry}")
    if not entry.split():
        raise JwtError("an empty subject in permissions")


def check_possession(
    account: AccountClaims, claims: UserClaims, rules: _UserRules, credentials: Credentials
) -> None:
    """Check that who shows a JWT has the user's private key, unless it is a bearer token.

    Raises:
        JwtError: not so.
    """
    if rules.bearer_token:
        if account.nats.limits.disallow_bearer:
            raise JwtError(f"account {account.sub} does not allow bearer tokens")
    else:
        try:
            signature = decode_base64(credentials.signature)
        except ValueError:
            signature = b""
        if not credentials.nonce or not is_signed(claims.sub, "user", signature, credentials.nonce):
            raise JwtError(f"user {claims.sub} did not sign the nonce")


def check_circumstances(rules: _UserRules, address: str, connection_type: str) -> None:
    """Check where from, when and how a user connects.

    Raises:
        JwtError: not so.
    """
    kinds = rules.allowed_connection_types
    if kinds and connection_type not in [kind.upper() for kind in kinds]:
        raise JwtError(f"connections of type {connection_type} are not allowed")
    sources = rules.src.split(",") if isinstance(rules.src, str) else rules.src or []
    sources = [source.strip() for source in sources if source.strip()]
    try:
        if sources and not any(
            ipaddress.ip_address(address) in ipaddress.ip_network(source, strict=False) for source in sources
        ):
            raise JwtError(f"connections from {address} are not allowed")
        if rules.times and not _is_in(rules.times, rules.times_location):
            raise JwtError("connections at this time of day are not allowed")
    except (ValueError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise JwtError(f"its rules cannot be understood: {error}") from None


def _is_in(times: list[_Times], location: str) -> bool:
    zone: datetime.tzinfo = zoneinfo.ZoneInfo(location) if location else datetime.timezone.utc
    now = datetime.datetime.now(zone).time()
    for span in times:
        start, end = datetime.time.fromisoformat(span.start), datetime.time.fromisoformat(span.end)
        if start <= now < end if start <= end else (now >= start or now < end):
            return True
    return False
