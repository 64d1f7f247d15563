"""Keys, JWTs and certificates made for tests, as `nsc` and a certificate authority would make them."""

import base64
import binascii
import datetime
import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED = 18 << 3


def _text(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


class Key:
    """A key pair of an operator, an account or a user."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._private = Ed25519PrivateKey.generate()
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = _text(bytes([_KINDS[kind]]) + raw)

    @property
    def seed(self) -> str:
        raw = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        kind = _KINDS[self.kind]
        return _text(bytes([_SEED | kind >> 5, (kind & 31) << 3]) + raw)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(issuer: Key, subject: str, nats: Mapping[str, object], **claims: object) -> str:
    """Return a signed JWT; `nats` holds its kind and rules."""
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {
        "jti": "x",
        "iat": int(time.time()),
        "iss": issuer.public,
        "sub": subject,
        "name": "test",
        "nats": {"version": 2, **nats},
        **claims,
    }
    text = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(body).encode())}"
    return f"{text}.{_base64(issuer.sign(text.encode()))}"


UNLIMITED = {"subs": -1, "data": -1, "payload": -1}


class Authority:
    """An operator with one account, and users of it."""

    def __init__(self) -> None:
        self.operator = Key("operator")
        self.account = Key("account")

    @property
    def operator_jwt(self) -> str:
        return jwt(self.operator, self.operator.public, {"type": "operator"})

    def account_jwt(self, account: Key | None = None, **nats: object) -> str:
        limits = {**UNLIMITED, "conn": -1}
        return jwt(
            self.operator, (account or self.account).public, {"type": "account", "limits": limits, **nats}
        )

    def user_jwt(self, user: Key, issuer: Key | None = None, times: Any = None, **nats: object) -> str:
        rules = {"type": "user", "pub": {}, "sub": {}, **UNLIMITED, **nats}
        return jwt(issuer or self.account, user.public, rules, **(times or {}))


def creds_file(path: Path, user_jwt: str, user: Key) -> Path:
    """Write a file as `nsc generate creds` does."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return path


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


class CertificateAuthority:
    """An authority whose certificates are files in a folder."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def issue(self, name: str, organisation: str = "", mail: str = "") -> Certificate:
        """Make a certificate for 127.0.0.1 and localhost, usable on both sides."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if organisation:
            parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        if mail:
            names.append(x509.RFC822Name(mail))
        certificate = (
            self._builder(x509.Name(parts), key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        issued = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        issued.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return issued
