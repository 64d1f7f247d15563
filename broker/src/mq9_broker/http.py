"""The broker's HTTP port: a few small answers, far from the hot path."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import h11

from mq9_broker.version import __version__

log = logging.getLogger(__name__)

_MAX_BODY = 64 * 1024
_IDLE_TIMEOUT = 60.0
_READ_SIZE = 16 * 1024


class HttpRequest(NamedTuple):
    """What a route may look at; header names are lower case."""

    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str]


class HttpResponse(NamedTuple):
    """An answer; the body is sent as JSON, or as it is where `content_type` says what it is."""

    status: int
    body: object
    content_type: str = ""


Route = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpServer:
    """Answers requests by their path and method.

    Args:
        routes: by path, by method. HEAD is answered where GET is.
    """

    def __init__(self, routes: Mapping[str, Mapping[str, Route]]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Begin to answer; return host and port.

        Raises:
            OSError: the address is in use, unknown or not allowed.
        """
        self._server = await asyncio.start_server(self._accept, host, port)
        bound = self._server.sockets[0].getsockname()
        return bound[0], bound[1]

    async def close(self) -> None:
        """Stop answering, connections included."""
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_READ_SIZE)
        try:
            while await self._answer_one(http, reader, writer):
                http.start_next_cycle()
        except (ConnectionError, asyncio.TimeoutError, TimeoutError):
            pass  # the client has gone, or is silent: nobody to tell
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one request and answer it; whether another may follow on the connection."""
        try:
            request, body = await _read_request(http, reader, writer)
        except h11.RemoteProtocolError as error:
            if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                response = HttpResponse(error.error_status_hint, {"error": f"not understood: {error}"})
                await _send(http, writer, response, with_body=True)
            return False
        if request is None:
            return False
        if body is None:
            response = HttpResponse(413, {"error": f"body: at most {_MAX_BODY} bytes"})
            await _send(http, writer, response, with_body=True)
            return False
        response = await self._respond(request, body)
        await _send(http, writer, response, with_body=request.method != b"HEAD")
        return http.our_state is h11.DONE and http.their_state is h11.DONE

    async def _respond(self, request: h11.Request, body: bytes) -> HttpResponse:
        path, _, query = request.target.decode("latin-1").partition("?")
        methods = self._routes.get(path)
        if methods is None:
            return HttpResponse(404, {"error": f"nothing at {path}; there is {', '.join(self._routes)}"})
        method = request.method.decode("latin-1")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            return HttpResponse(405, {"error": f"{path} takes {', '.join(methods)}"})
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
            return await route(HttpRequest(body, headers, dict(parse_qsl(query))))
        except Exception:
            log.exception("%s %s failed", method, path)
            return HttpResponse(500, {"error": "internal error; the log has details"})


async def _read_request(
    http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request | None, bytes | None]:
    """Return a request and its body: no request at the end of the input, no body where it is too large."""
    request: h11.Request | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                writer.write(_bytes(http.send(h11.InformationalResponse(status_code=100, headers=[]))))
            http.receive_data(await asyncio.wait_for(reader.read(_READ_SIZE), _IDLE_TIMEOUT))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if len(body) > _MAX_BODY:
                return request, None
        elif isinstance(event, h11.EndOfMessage):
            return request, body
        else:  # the client closed, or what follows has to wait for the answer
            return None, b""


async def _send(
    http: h11.Connection, writer: asyncio.StreamWriter, response: HttpResponse, *, with_body: bool
) -> None:
    if response.content_type and isinstance(response.body, bytes):
        body = response.body
    else:
        body = json.dumps(response.body, ensure_ascii=False).encode() + b"\n"
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type or "application/json"),
        ("Content-Length", str(len(body))),
        ("Server", f"mq9-broker/{__version__}"),
        ("Cache-Control", "no-store"),
    ]
    reason = HTTPStatus(response.status).phrase
    head = h11.Response(status_code=response.status, headers=headers, reason=reason)
    writer.write(_bytes(http.send(head)))
    if with_body:
        writer.write(_bytes(http.send(h11.Data(data=body))))
    writer.write(_bytes(http.send(h11.EndOfMessage())))
    await writer.drain()


def _bytes(data: bytes | None) -> bytes:
    return data or b""
