"""The time before a client is let in, where clients have to say who they are."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from typing import TYPE_CHECKING

import msgspec

from mq9_broker.auth import Authenticator, Credentials, Identity

if TYPE_CHECKING:
    from mq9_broker.transport.connection import Connection

log = logging.getLogger(__name__)

AUTHORIZATION_VIOLATION = "Authorization Violation"
AUTHENTICATION_TIMEOUT = "Authentication Timeout"
AUTHENTICATION_EXPIRED = "User Authentication Expired"
AUTHENTICATION_REVOKED = "User Authentication Revoked"
TOO_MANY_OF_ACCOUNT = "maximum account active connections exceeded"

_NONCE_BYTES = 11


class ConnectOptions(msgspec.Struct):
    """What CONNECT may say and the broker looks at; everything else is ignored."""

    verbose: bool | None = None
    pedantic: bool | None = None
    echo: bool | None = None
    headers: bool | None = None
    no_responders: bool | None = None
    protocol: int | None = None
    name: str | None = None
    lang: str | None = None
    version: str | None = None
    user: str | None = None
    password: str | None = msgspec.field(default=None, name="pass")
    auth_token: str | None = None
    nkey: str | None = None
    sig: str | None = None
    jwt: str | None = None


decode_connect = msgspec.json.Decoder(ConnectOptions).decode


class Admission:
    """One client that has not been let in yet. It is there until then, and no longer.

    Args:
        connection: the client.
        authenticator: knows who may connect.
        timeout: seconds that the client has to send its CONNECT.

    Attributes:
        nonce: what the client is asked to sign, b"" for nothing.
    """

    __slots__ = ("_authenticator", "_connection", "_timer", "nonce")

    def __init__(self, connection: Connection, authenticator: Authenticator, timeout: float) -> None:
        self._connection = connection
        self._authenticator = authenticator
        self.nonce = (
            base64.urlsafe_b64encode(secrets.token_bytes(_NONCE_BYTES)).rstrip(b"=")
            if authenticator.wants_signature
            else b""
        )
        self._timer = asyncio.get_running_loop().call_later(timeout, connection.fail, AUTHENTICATION_TIMEOUT)

    def end(self) -> None:
        """Stop waiting for the client."""
        self._timer.cancel()

    def check(self, options: ConnectOptions) -> None:
        """Find out who the client is; then it is let in, or not, at once or later."""
        self.end()  # from here on it is the broker that needs time
        connection = self._connection
        credentials = Credentials(
            user=options.user or "",
            password=options.password or "",
            token=options.auth_token or "",
            nkey=options.nkey or "",
            signature=options.sig or "",
            jwt=options.jwt or "",
            nonce=self.nonce,
            certificate=connection.certificate,
            address=connection.address,
            connection_type=connection.connection_type,
        )
        self._authenticator.check(credentials, lambda: not connection.is_closed, self._finish)

    def _finish(self, identity: Identity | None) -> None:
        connection = self._connection
        if connection.is_closed:
            return
        if identity is None:
            log.info("connection %d from %s: not let in", connection.client_id, connection.address)
            connection.fail(AUTHORIZATION_VIOLATION)
            return
        connection.let_in(identity)
