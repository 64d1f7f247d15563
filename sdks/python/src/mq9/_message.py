"""What a message can do besides holding its fields."""

from __future__ import annotations

import json
from typing import Any, Protocol

from mq9._generated.errors import InvalidArgumentError
from mq9._generated.headers import MessageHeaders


class Acknowledger(Protocol):
    """The operations of a client that a delivered message uses."""

    async def ack(
        self, mail_address: str, group_name: str, msg_id: int | None = None, *, timeout: float | None = None
    ) -> None:
        """Confirms a message."""

    async def nack(
        self,
        mail_address: str,
        group_name: str,
        msg_ids: list[int],
        *,
        lease_id: str = "",
        delay_ms: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Gives messages back."""

    async def renew(
        self,
        mail_address: str,
        group_name: str,
        msg_ids: list[int],
        *,
        lease_ms: int,
        lease_id: str = "",
        timeout: float | None = None,
    ) -> list[int]:
        """Keeps messages hidden."""
        ...


class Delivery:
    """Through whom, for which group and under which lease a message was delivered."""

    __slots__ = ("client", "group_name", "lease_id", "lease_ms", "mail_address", "settled")

    def __init__(
        self, client: Acknowledger, mail_address: str, group_name: str, lease_id: str, lease_ms: int
    ) -> None:
        self.client = client
        self.mail_address = mail_address
        self.group_name = group_name
        self.lease_id = lease_id
        self.lease_ms = lease_ms
        self.settled = False


class MessageBase(MessageHeaders):
    """The methods of `Message`. Its fields are generated."""

    __slots__ = ("_delivery",)

    msg_id: int
    payload: bytes

    def text(self) -> str:
        """The payload as text.

        Raises:
            UnicodeDecodeError: If it is not UTF-8.
        """
        return self.payload.decode("utf-8")

    def json(self) -> Any:
        """The payload as a JSON value.

        Raises:
            ValueError: If it is not JSON in UTF-8 (`UnicodeDecodeError` and `json.JSONDecodeError` are such
                errors).
        """
        return json.loads(self.payload.decode("utf-8"))

    async def ack(self, *, timeout: float | None = None) -> None:
        """Confirms this message for its consumer group: it never comes again.

        Only for messages that `consume` delivered; others are confirmed by `Client.ack`.

        Args:
            timeout: Seconds to wait for the reply; default: the client's.

        Raises:
            Mq9Error: If it could not be confirmed; it comes again when its lease is over.
        """
        delivery = delivery_of(self, "ack")
        await delivery.client.ack(delivery.mail_address, delivery.group_name, self.msg_id, timeout=timeout)
        delivery.settled = True

    async def nack(self, *, delay_ms: int = 0, timeout: float | None = None) -> None:
        """Gives this message back to its consumer group, unless another consumer holds it by now.

        Args:
            delay_ms: Milliseconds until it comes again, bounded as in `Client.nack`.
            timeout: Seconds to wait for the reply; default: the client's.

        Raises:
            Mq9Error: If it could not be given back; it comes again when its lease is over.
        """
        delivery = delivery_of(self, "nack")
        await delivery.client.nack(
            delivery.mail_address,
            delivery.group_name,
            [self.msg_id],
            lease_id=delivery.lease_id,
            delay_ms=delay_ms,
            timeout=timeout,
        )
        delivery.settled = True

    async def renew(self, *, lease_ms: int | None = None, timeout: float | None = None) -> bool:
        """Keeps this message hidden from the rest of its group for longer.

        `consume` does so by itself while a handler runs.

        Args:
            lease_ms: Milliseconds from now, bounded as in `Client.renew`; default: the lease that it came
                under.
            timeout: Seconds to wait for the reply; default: the client's.

        Returns:
            Whether it is still ours; if not, its lease was over before.

        Raises:
            Mq9Error: If it could not be renewed.
        """
        delivery = delivery_of(self, "renew")
        renewed = await delivery.client.renew(
            delivery.mail_address,
            delivery.group_name,
            [self.msg_id],
            lease_id=delivery.lease_id,
            lease_ms=delivery.lease_ms if lease_ms is None else lease_ms,
            timeout=timeout,
        )
        return self.msg_id in renewed


def set_delivery(message: MessageBase, delivery: Delivery) -> None:
    """Ties a message to its delivery."""
    object.__setattr__(message, "_delivery", delivery)


def delivery_of(message: MessageBase, method: str = "ack") -> Delivery:
    """The delivery of a message that `consume` brought.

    Raises:
        InvalidArgumentError: It has none; `method` is named as what to use instead.
    """
    delivery: Delivery | None = getattr(message, "_delivery", None)
    if delivery is None:
        raise InvalidArgumentError(
            f"message {message.msg_id} did not come from consume: call the client's {method} instead",
            code="invalid_argument",
            field="message",
        )
    return delivery
