"""The admin pages: read only, for operators. Addresses of mailboxes are keys: shown only when asked for."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from mq9_broker._generated import PROTOCOL_VERSION
from mq9_broker.http import HttpRequest, HttpResponse, Route
from mq9_broker.observe.census import Census, hash_of
from mq9_broker.observe.metrics import CONTENT_TYPE, Metrics, Sources
from mq9_broker.version import __version__


@dataclass(frozen=True)
class AdminOptions:
    """Who may look, and what is shown.

    Attributes:
        host: The address that the HTTP port listens on.
        token: What has to be sent as `Authorization: Bearer TOKEN` or as the query's `token`; empty =
            nothing, which is allowed on loopback only.
        show_addresses: Show mailboxes by address instead of by hash.
    """

    host: str
    token: str
    show_addresses: bool

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Admin:
    """The routes below /admin, /metrics and the page at /.

    Args:
        sources: Where the numbers come from.
        options: Who may look.
        connections: Describes each connection.
    """

    def __init__(
        self,
        sources: Sources,
        options: AdminOptions,
        connections: Callable[[], Iterable[Mapping[str, Any]]],
    ) -> None:
        self._sources = sources
        self._options = options
        self._connections = connections
        self._metrics = Metrics(sources)
        self._began = time.time()

    def routes(self) -> dict[str, dict[str, Route]]:
        """All routes."""
        return {
            "/": {"GET": self._guarded(self._page)},
            "/metrics": {"GET": self._metrics_page},
            "/admin/overview": {"GET": self._guarded(self._overview)},
            "/admin/connections": {"GET": self._guarded(self._list_connections)},
            "/admin/mailboxes": {"GET": self._guarded(self._mailboxes)},
        }

    def _guarded(self, route: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Route:
        async def guard(request: HttpRequest) -> HttpResponse:
            token = self._options.token
            if not token:
                if self._options.is_local:
                    return await route(request)
                why = "the admin pages need a token where others than this machine can ask: set --admin-token"
                return HttpResponse(403, {"error": why})
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            given = given or request.query.get("token", "")
            if hmac.compare_digest(given.encode(), token.encode()):
                return await route(request)
            return HttpResponse(401, {"error": "send the admin token as `Authorization: Bearer TOKEN`"})

        return guard

    async def _metrics_page(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(200, self._metrics.text(), CONTENT_TYPE)

    async def _page(self, _: HttpRequest) -> HttpResponse:
        page = resources.files("mq9_broker.observe").joinpath("page.html").read_bytes()
        return HttpResponse(200, page, "text/html; charset=utf-8")

    async def _overview(self, _: HttpRequest) -> HttpResponse:
        sources, census = self._sources, self._sources.census()
        requests = {
            operation: {
                "requests": histogram.count,
                "failed": sum(n for (name, _), n in sources.meter.failed.items() if name == operation),
                "mean_us": round(1e6 * histogram.total / histogram.count, 1) if histogram.count else 0,
            }
            for operation, histogram in sorted(sources.meter.durations.items())
        }
        return HttpResponse(
            200,
            {
                "version": __version__,
                "protocol": PROTOCOL_VERSION,
                "uptime_s": int(time.time() - self._began),
                "connections": sources.connections(),
                "subscriptions": sources.subscriptions(),
                "waiting_fetches": sources.waiting(),
                "agents": sources.agents(),
                "mailboxes": census.mailboxes,
                "messages": census.messages,
                "delayed": census.delayed,
                "message_bytes": census.bytes_stored,
                "groups": census.groups,
                "store_bytes": sources.store_bytes(),
                "requests": requests,
            },
        )

    async def _list_connections(self, request: HttpRequest) -> HttpResponse:
        limit = _limit(request)
        listed = []
        for number, connection in enumerate(self._connections()):
            if number >= limit:
                break
            listed.append(dict(connection))
        return HttpResponse(200, {"total": self._sources.connections(), "connections": listed})

    async def _mailboxes(self, _: HttpRequest) -> HttpResponse:
        census: Census = self._sources.census()
        return HttpResponse(
            200,
            {
                "total": census.mailboxes,
                "largest": [
                    {
                        "mailbox": facts.address.decode()
                        if self._options.show_addresses
                        else hash_of(facts.address),
                        "messages": sum(facts.live),
                        "delayed": facts.delayed,
                        "bytes": facts.bytes_stored,
                        "groups": facts.groups,
                    }
                    for facts in census.top
                ],
            },
        )


def _limit(request: HttpRequest) -> int:
    text = request.query.get("limit", "100")
    return min(int(text), 10_000) if text.isascii() and text.isdigit() else 100
