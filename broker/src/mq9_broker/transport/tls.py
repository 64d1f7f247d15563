"""TLS between a socket and a connection, by memory BIOs, on any event loop.

Both ways in which NATS clients begin: the server says INFO in plain text and the client answers with TLS, or
the client begins with TLS at once ("handshake first").
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mq9_broker.transport.channel import CERTIFICATE, Channel, MakeUpper
from mq9_broker.transport.handshakes import Outcome

if TYPE_CHECKING:
    from mq9_broker.transport.listener import Listener

log = logging.getLogger(__name__)

_FIRST_BYTE_OF_TLS = 0x16
_RECORD = 16 * 1024
# Seconds that a client has to begin with TLS before it is sent INFO, as in nats-server.
_AUTO_WAIT = 0.05
TLS_REQUIRED = b"-ERR 'Secure Connection - TLS Required'\r\n"

Handshake = Literal["after-info", "first", "auto"]


class TlsError(Exception):
    """A certificate or key cannot be used; the message says why."""


@dataclass(frozen=True)
class TlsOptions:
    """How clients are served with TLS.

    Attributes:
        context: certificate, key, authorities.
        required: clients without TLS are refused.
        handshake: INFO comes first and TLS after it (`after-info`), TLS comes first (`first`), or the client
            decides: it has a moment to begin with TLS (`auto`).
    """

    context: ssl.SSLContext
    required: bool = True
    handshake: Handshake = "after-info"

    def info(self) -> dict[str, object]:
        """Return what INFO says of it."""
        info: dict[str, object] = {"tls_required" if self.required else "tls_available": True}
        if self.context.verify_mode == ssl.CERT_REQUIRED:
            info["tls_verify"] = True
        return info

    def only_first(self) -> TlsOptions:
        """Return the same with TLS first, as it is below HTTP."""
        return dataclasses.replace(self, required=True, handshake="first")


def load_context(certificate: Path, key: Path, authorities: Path | None = None) -> ssl.SSLContext:
    """Read a certificate with its key, and the authorities that clients' certificates must come from.

    Args:
        certificate: PEM file, the chain in it too.
        key: PEM file, not encrypted.
        authorities: PEM file; None = clients need no certificate.

    Raises:
        TlsError: they cannot be read, or do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No tickets: they cost memory and bytes for each client, and connections here live long.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise TlsError(f"cannot use {certificate} with key {key}: {_reason(error)}") from None
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ValueError) as error:
            raise TlsError(f"cannot use {authorities}: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password, readable for the broker only")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return "key and certificate do not fit" if "MISMATCH" in str(error) else "it is not the PEM expected"
    return getattr(error, "strerror", None) or str(error)


class SecureChannel(asyncio.Protocol):
    """One client's TLS: a protocol for the socket below, a transport for what stands on it.

    Args:
        listener: counts clients.
        options: see there.
        make_upper: makes what stands on it.
    """

    __slots__ = (
        "_early",
        "_incoming",
        "_is_open",
        "_is_shaking",
        "_is_shut",
        "_listener",
        "_options",
        "_outgoing",
        "_timer",
        "_tls",
        "_transport",
        "_upper",
        "_upper_began",
    )

    def __init__(self, listener: Listener, options: TlsOptions, make_upper: MakeUpper) -> None:
        self._listener = listener
        self._options = options
        self._upper = make_upper()
        self._upper_began = False
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._is_open = False  # the handshake is done
        self._is_shaking = False  # a step of it is done in another thread, which has all of TLS meanwhile
        self._early = b""  # what came in during that
        self._is_shut = False  # nothing is written any more
        self._timer: asyncio.TimerHandle | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: say INFO, or wait for TLS."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        if not self._listener.arrive():
            self._transport.abort()
            self._transport = None
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._listener.options.auth_timeout, self._too_late)
        if self._options.handshake == "after-info":
            self._begin_upper()
        elif self._options.handshake == "auto":
            loop.call_later(_AUTO_WAIT, self._begin_upper_unless_tls)

    def data_received(self, data: bytes) -> None:
        """Take TLS, or find that it is none."""
        if self._transport is None:
            return
        if self._tls is None:
            if data[0] != _FIRST_BYTE_OF_TLS:
                self._go_on_without(data)
                return
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = self._options.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        if self._is_open:
            assert self._incoming is not None
            self._incoming.write(data)
            self._read()
        elif self._is_shaking:
            self._early += data
        else:
            self._shake_hands(data)

    def eof_received(self) -> None:
        """Let the transport close."""
        if self._upper_began:
            self._upper.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        if self._transport is None:
            return
        self._arrived()
        self._transport = None
        if self._upper_began:
            self._upper.connection_lost(error)

    def pause_writing(self) -> None:
        """Tell what stands on this."""
        self._upper.pause_writing()

    def resume_writing(self) -> None:
        """Tell what stands on this."""
        self._upper.resume_writing()

    # The beginning.

    def _begin_upper(self) -> None:
        self._upper_began = True
        self._upper.connection_made(self)

    def _begin_upper_unless_tls(self) -> None:
        if self._transport is not None and self._tls is None and not self._upper_began:
            self._begin_upper()

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._listener.arrived()

    def _too_late(self) -> None:
        if self._transport is not None:
            log.info("TLS from %s: not done in time", self._peer())
            self._transport.abort()

    def _go_on_without(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if self._options.required:
            log.info("TLS from %s: the client does not speak it", self._peer())
            transport.write(TLS_REQUIRED)
            transport.close()
            return
        self._arrived()
        if not self._upper_began:
            self._begin_upper()
        # From here on nothing stands in between.
        transport.set_protocol(cast("asyncio.Protocol", self._upper))
        self._upper.attach(transport)
        self._upper.data_received(data)

    def _shake_hands(self, data: bytes) -> None:
        """Go on with the handshake, beside everything else."""
        assert self._tls is not None and self._incoming is not None and self._transport is not None
        self._is_shaking = True
        self._transport.pause_reading()
        self._listener.handshakes.go_on(self._tls, self._incoming, data, self._shaken)

    def _shaken(self, outcome: Outcome) -> None:
        """Take the handshake back, with how far it has come."""
        self._is_shaking = False
        early, self._early = self._early, b""
        if self._transport is None or self._transport.is_closing():
            return
        self._flush()  # where it failed the alert says why
        if isinstance(outcome, ssl.SSLError):
            log.info("TLS from %s: %s", self._peer(), outcome.reason or outcome)
            self._transport.close()
            return
        self._transport.resume_reading()
        if not outcome:
            if early:
                self._shake_hands(early)
            return
        self._is_open = True
        self._arrived()
        if not self._upper_began:
            self._begin_upper()
        if early and self._incoming is not None:
            self._incoming.write(early)
        self._read()

    def _peer(self) -> str:
        return str((self.get_extra_info("peername") or ("?",))[0])

    # Afterwards.

    def _read(self) -> None:
        assert self._tls is not None
        parts: list[bytes] = []
        is_over = False
        try:
            while part := self._tls.read(_RECORD):
                parts.append(part)
            is_over = True
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            is_over = True
            log.info("TLS from %s: %s", self._peer(), error.reason or error)
        if parts:
            self._upper.data_received(b"".join(parts))
        if is_over and self._transport is not None:
            self._flush()
            self._upper.eof_received()
            self._transport.close()

    def _flush(self) -> None:
        if self._outgoing is not None and self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())

    # Called by what stands on this, as by a transport.

    def write(self, data: bytes) -> None:
        """Send data: in plain text before the client has begun with TLS, not at all while it begins."""
        if self._transport is None or self._is_shut:
            return
        if self._tls is None:
            self._transport.write(data)
        elif self._is_open:
            rest = memoryview(data)
            while rest:
                rest = rest[self._tls.write(rest) :]
            self._flush()

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        if self._transport is None or self._is_shut:
            return
        self._is_shut = True
        if self._is_open and self._tls is not None:
            with contextlib.suppress(ssl.SSLError):  # the client has not said so itself yet
                self._tls.unwrap()
            self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is ending or has ended."""
        return self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take nothing more from the client for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take again what the client sends."""
        if self._transport is not None:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called, and when `resume_writing`."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known about the client."""
        if name == CERTIFICATE:
            if self._tls is None or not self._is_open:
                return default
            return self._tls.getpeercert(binary_form=True)
        return self._transport.get_extra_info(name, default) if self._transport is not None else default


_: type[Channel] = SecureChannel
