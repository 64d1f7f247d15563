"""From what a client shows to who it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mq9_broker.auth.access import Access, User
from mq9_broker.auth.claims import (
    AccountClaims,
    JwtError,
    check_circumstances,
    check_possession,
    read_account,
    read_operator,
    read_user,
)
from mq9_broker.auth.identity import Credentials, Identity
from mq9_broker.auth.nkeys import decode_base64, is_signed
from mq9_broker.auth.passwords import PasswordChecker
from mq9_broker.auth.permissions import Permissions

log = logging.getLogger(__name__)

# Checked for users that there are not, so that they take as long as those that there are.
_NOBODYS_HASH = b"$2b$11$UZ9dynYd6cuQ3D4eE7D2..F7rhXaB9qh2YAGr8QxWn8X5NSfmO2YS"
Done = Callable[[Identity | None], None]


class Authenticator:
    """Knows who may connect, as the configuration has it.

    Args:
        access: the configuration.
        passwords: checks passwords; survives a reload of the configuration.
        map_certificates: a client's certificate says which user it is.
    """

    def __init__(self, access: Access, passwords: PasswordChecker, *, map_certificates: bool = False) -> None:
        self._access = access
        self._passwords = passwords
        self._map_certificates = map_certificates
        self._identities = {user: _identity(user) for user in access.users}
        self._by_name = {user.name: user for user in access.users if user.name}
        self._by_nkey = {user.nkey: user for user in access.users if user.nkey}
        self._token_identity = Identity(name="token", proof=access.token)
        self._accounts: dict[str, AccountClaims] = {}
        if access.jwt is not None:
            operator = read_operator(access.jwt.operator)
            for text in access.jwt.accounts:
                account = read_account(text, operator)
                self._accounts[account.sub] = account

    @property
    def wants_signature(self) -> bool:
        """Whether clients get a nonce to sign."""
        return bool(self._by_nkey or self._access.jwt)

    def account_limit(self, account: str) -> int | None:
        """Return how many clients of an account may be connected; None = any number."""
        claims = self._accounts.get(account)
        return claims.nats.limits.conn if claims is not None and claims.nats.limits.conn >= 0 else None

    def check(self, credentials: Credentials, is_wanted: Callable[[], bool], done: Done) -> None:
        """Find out who a client is and call `done` with it, at once or later; with None if it is nobody.

        Args:
            credentials: what it shows.
            is_wanted: whether the client is still there.
            done: called in the event loop.
        """
        if credentials.jwt:
            done(self._by_jwt(credentials))
        elif credentials.nkey:
            done(self._by_signature(credentials))
        elif credentials.token and self._access.token:
            self._check_password(
                self._access.token, credentials.token, self._token_identity, credentials, is_wanted, done
            )
        elif credentials.user:
            user = self._by_name.get(credentials.user)
            identity = self._identities[user] if user is not None and user.password else None
            hashed = user.password if user is not None and user.password else ""
            self._check_password(hashed, credentials.password, identity, credentials, is_wanted, done)
        elif self._map_certificates and credentials.certificate is not None:
            done(self._by_certificate(credentials.certificate))
        else:
            user = self._by_name.get(self._access.no_auth_user)
            done(self._identities[user] if user is not None else None)

    def renewed(self, identity: Identity, address: str, connection_type: str) -> Identity | None:
        """Return who a client is that somebody else let in before the configuration changed; None = nobody.

        Args:
            identity: as it was.
            address: where the client connects from.
            connection_type: STANDARD or WEBSOCKET.
        """
        proof = identity.proof
        if isinstance(proof, _UserJwt):
            try:
                return self._of_jwt(proof.text, address, connection_type)
            except JwtError as error:
                log.info("user %s: %s", identity.name, error)
                return None
        if isinstance(proof, User):
            user = self._by_nkey.get(proof.nkey) if proof.nkey else self._by_name.get(proof.name)
            return self._identities[user] if user is not None and user.password == proof.password else None
        return self._token_identity if proof and proof == self._access.token else None

    def _check_password(
        self,
        hashed: str,
        password: str,
        identity: Identity | None,
        credentials: Credentials,
        is_wanted: Callable[[], bool],
        done: Done,
    ) -> None:
        self._passwords.check(
            hashed.encode() or _NOBODYS_HASH,
            password.encode(),
            credentials.address,
            is_wanted,
            lambda is_right: done(identity if is_right else None),
        )

    def _by_signature(self, credentials: Credentials) -> Identity | None:
        user = self._by_nkey.get(credentials.nkey)
        try:
            signature = decode_base64(credentials.signature)
        except ValueError:
            return None
        if user is None or not is_signed(user.nkey, "user", signature, credentials.nonce):
            return None
        return self._identities[user]

    def _by_certificate(self, certificate: bytes) -> Identity | None:
        for name in certificate_names(certificate):
            user = self._by_name.get(name)
            if user is not None:
                return self._identities[user]
        return None

    def _by_jwt(self, credentials: Credentials) -> Identity | None:
        try:
            return self._of_jwt(
                credentials.jwt, credentials.address, credentials.connection_type, credentials
            )
        except JwtError as error:
            log.info("a JWT from %s does not hold: %s", credentials.address, error)
            return None

    def _of_jwt(
        self, text: str, address: str, connection_type: str, shown: Credentials | None = None
    ) -> Identity:
        claims, account, rules = read_user(text, self._accounts)
        if shown is not None:
            check_possession(account, claims, rules, shown)
        check_circumstances(rules, address, connection_type)
        granted = rules if rules else account.nats.default_permissions
        permissions = None
        if granted:
            permissions = Permissions(
                granted.pub.allow or None,
                granted.pub.deny or (),
                granted.sub.allow or None,
                granted.sub.deny or (),
            )
        ends = [moment for moment in (claims.exp, account.exp) if moment]
        limits = account.nats.limits
        return Identity(
            name=claims.sub,
            proof=_UserJwt(text),
            account=account.sub,
            permissions=permissions,
            expires_at=min(ends) if ends else None,
            max_subscriptions=_least(rules.subs, limits.subs),
            max_payload=_least(rules.payload, limits.payload),
        )


@dataclass(frozen=True, slots=True)
class _UserJwt:
    """The JWT that a client showed."""

    text: str


def _least(*limits: int) -> int | None:
    known = [limit for limit in limits if limit >= 0]
    return min(known) if known else None


def _identity(user: User) -> Identity:
    lists = user.permissions
    permissions = None
    if lists is not None:
        permissions = Permissions(
            lists.publish_allow, lists.publish_deny, lists.subscribe_allow, lists.subscribe_deny
        )
    return Identity(name=user.name or user.nkey, proof=user, permissions=permissions)


def certificate_names(certificate: bytes) -> list[str]:
    """Return what a certificate may call its user: mail addresses, DNS names, URIs, then the whole subject.

    The subject is given as in RFC 4514, such as `CN=alice,O=mq9`.
    """
    from cryptography import x509  # noqa: PLC0415  # slow to load, and few brokers need it
    from cryptography.x509.oid import ExtensionOID  # noqa: PLC0415

    parsed = x509.load_der_x509_certificate(certificate)
    names: list[str] = []
    try:
        found = parsed.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        found = None
    if isinstance(found, x509.SubjectAlternativeName):
        for kind in (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier):
            names += found.get_values_for_type(kind)
    names.append(parsed.subject.rfc4514_string())
    return names
