"""What a connection writes to: a socket, or TLS or WebSocket in between."""

from collections.abc import Callable
from typing import Any, Protocol

# What `get_extra_info` knows beside what asyncio defines: the client's certificate, DER.
CERTIFICATE = "mq9-client-certificate"


class Channel(Protocol):
    """The part of asyncio's transports that is used here; layers above a socket have it too."""

    def write(self, data: bytes) -> None:
        """Send data, some time."""

    def write_eof(self) -> None:
        """Say that nothing more comes."""

    def abort(self) -> None:
        """End at once."""

    def is_closing(self) -> bool:
        """Whether it is ending or has ended."""

    def pause_reading(self) -> None:
        """Take nothing more from the client for now."""

    def resume_reading(self) -> None:
        """Take again what the client sends."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not taken yet."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called, and when `resume_writing`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known about the client."""


class Upper(Protocol):
    """What stands on a channel: a protocol in asyncio's sense that can be moved to another channel."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""

    def attach(self, transport: Any) -> None:
        """Go on with another channel."""

    def data_received(self, data: bytes) -> None:
        """Take what came in."""

    def eof_received(self) -> bool | None:
        """Take note that the client sends no more."""

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""

    def pause_writing(self) -> None:
        """Write less."""

    def resume_writing(self) -> None:
        """Write on."""


MakeUpper = Callable[[], Upper]
