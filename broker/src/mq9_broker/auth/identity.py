"""What a client shows when it connects, and who it is found to be."""

from dataclasses import dataclass

from mq9_broker.auth.permissions import Permissions

STANDARD = "STANDARD"
WEBSOCKET = "WEBSOCKET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows.

    Attributes:
        user: name of CONNECT.
        password: password of CONNECT.
        token: `auth_token` of CONNECT.
        nkey: public key of CONNECT.
        signature: base64 of the signed nonce.
        jwt: the user's JWT.
        nonce: what the client was asked to sign.
        certificate: the TLS client certificate, DER, checked against the authorities.
        address: the client's IP address.
        connection_type: STANDARD or WEBSOCKET.
    """

    user: str = ""
    password: str = ""
    token: str = ""
    nkey: str = ""
    signature: str = ""
    jwt: str = ""
    nonce: bytes = b""
    certificate: bytes | None = None
    address: str = ""
    connection_type: str = STANDARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a client is.

    Attributes:
        name: for the log: the user's name or public key.
        proof: what this rests on: equal after a reload, or the client has to go.
        account: clients of different accounts do not hear each other outside of `$mq9.AI.`; "" without JWTs.
        permissions: None = everything.
        expires_at: Unix seconds at which the client has to go; None = never.
        max_subscriptions: of one connection; None = what the listener allows.
        max_payload: bytes of a message that it may send; None = what the listener allows.
    """

    name: str
    proof: object
    account: str = ""
    permissions: Permissions | None = None
    expires_at: float | None = None
    max_subscriptions: int | None = None
    max_payload: int | None = None


class RefusedError(Exception):
    """A client is not let in; the message, for the log only, says why."""
