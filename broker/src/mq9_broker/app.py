"""The running broker: puts store, engine, shell, NATS listener and HTTP port together, and ends them."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING

import msgspec

from mq9_broker import native
from mq9_broker.auth import Authenticator
from mq9_broker.auth.passwords import PasswordChecker
from mq9_broker.clock import Clock, ManualClock, WallClock
from mq9_broker.config import Address, Config, ConfigError
from mq9_broker.engine import Engine, EngineLimits, FormatError
from mq9_broker.http import HttpRequest, HttpResponse, HttpServer, Route
from mq9_broker.observe import logs
from mq9_broker.observe.admin import Admin, AdminOptions
from mq9_broker.observe.census import CensusTaker
from mq9_broker.observe.meter import Histogram
from mq9_broker.observe.metrics import Sources
from mq9_broker.observe.request_log import RequestLog
from mq9_broker.search.metrics import search_metrics
from mq9_broker.search.process import SearchProcess
from mq9_broker.shell.discovery import RegisteredAgents
from mq9_broker.shell.shell import Shell
from mq9_broker.shell.waking import ShellOptions
from mq9_broker.storage import Storage
from mq9_broker.store import FolderError, StoreUnavailableError
from mq9_broker.transport import Listener, ListenerOptions
from mq9_broker.transport.tls import TlsError, TlsOptions, load_context
from mq9_broker.version import __version__

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from mq9_broker.observe.traces import Tracing

log = logging.getLogger(__name__)

# Seconds between bringing the store to disk, with `fsync: interval`.
_SYNC_INTERVAL = 0.2
# A thousand years: times of the engine have to fit 64 bits.
_MOST_ADVANCE_MS = 1000 * 366 * 86_400_000


class StartError(Exception):
    """The broker cannot run; the message says why and what to do."""


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /clock."""

    advance_ms: int


class App:
    """One broker.

    Args:
        config: its options.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        tls = _tls_options(config)  # first: a mistake here shall leave no store open
        self._tracing = _tracing(config)
        try:
            self._storage = Storage(config.data, config.fsync, config.reserve)
        except FolderError as error:
            raise StartError(f"--data {config.data}: {error}") from None
        limits = EngineLimits(
            max_messages=config.mailbox_max_messages,
            max_bytes=config.mailbox_max_bytes,
            max_delayed=config.mailbox_max_delayed,
            max_dedup_ids=config.mailbox_max_dedup_ids,
            max_groups=config.max_groups,
            max_message=config.max_message,
            max_mailboxes=config.max_mailboxes,
            max_agents=config.max_agents,
            max_reply=config.max_reply,
        )
        try:
            engine = Engine(self._storage.store, limits, config.message_cache if config.data else 0)
        except (FormatError, StoreUnavailableError) as error:
            self._storage.store.close()
            raise StartError(f"--data {config.data}: {error}") from None
        self._clock: Clock = WallClock()
        if config.test_clock:
            # It may have been ahead of the computer's when the store was written: time never goes back.
            self._clock = ManualClock(max(self._clock.now_ms(), engine.time_ms))
        self.search = SearchProcess(
            config.search_settings, RegisteredAgents(engine), config.log_level, config.log_format
        )
        self._shell = Shell(
            engine,
            self._clock,
            ShellOptions(
                max_waiting=config.mailbox_max_waiting,
                max_waiting_of_client=config.client_max_waiting,
                max_waiting_in_all=config.max_waiting,
                max_reply=config.max_reply,
            ),
            self.search,
        )
        self._passwords = PasswordChecker()
        handler = self._shell if self._tracing is None else self._tracing.traced(self._shell)
        self._requests = RequestLog(handler, show_addresses=config.show_addresses)
        self._listener = Listener(
            self._requests if self._requests.is_wanted() else handler,
            ListenerOptions(
                server_name=config.server_name,
                max_payload=config.max_payload,
                max_control_line=config.max_control_line,
                max_connections=config.max_connections,
                max_subscriptions=config.max_subscriptions,
                auth_timeout=config.auth_timeout,
                max_pending=config.max_pending,
                write_high_water=min(4 * 2**20, config.max_pending),
                write_deadline=config.write_deadline,
                ping_interval=config.ping_interval,
                max_pings_out=config.max_pings_out,
            ),
            self._authenticator(config),
            tls,
        )
        self.websocket_url = ""
        self._census = CensusTaker(engine)
        self._counting: asyncio.Task[None] | None = None
        self._sync_seconds = Histogram()
        self._http: HttpServer | None = None
        self._is_ready = False

    async def start(self) -> tuple[str, str]:
        """Begin to serve; return the URLs for NATS and HTTP (`off` without).

        Raises:
            StartError: an address cannot be listened on.
        """
        await self._storage.start(self._shell, self._sync_seconds.add)
        http_url = "off"
        if self.config.http is not None:
            self._http = HttpServer(self._routes(self.config.http))
            self._counting = asyncio.create_task(self._census.run())
            try:
                http_url = f"http://{Address(*await self._http.start(*self.config.http))}"
            except OSError as error:
                raise _cannot_listen("--http", self.config.http, error) from None
        try:
            await self._listener.start(*self.config.listen)
        except OSError as error:
            raise _cannot_listen("--listen", self.config.listen, error) from None
        if self.config.websocket is not None:
            self.websocket_url = await self._start_websocket(self.config.websocket)
        self._is_ready = True
        return f"nats://{Address(*self._listener.address)}", http_url

    async def _start_websocket(self, address: Address) -> str:
        secure = self.config.tls_cert is not None and self.config.websocket_tls
        origins = frozenset(self.config.websocket_origins)
        try:
            bound = await self._listener.start_websocket(*address, secure=secure, origins=origins)
        except OSError as error:
            raise _cannot_listen("--websocket", address, error) from None
        return f"{'wss' if secure else 'ws'}://{Address(*bound)}"

    def _authenticator(self, config: Config) -> Authenticator | None:
        if not config.access:
            return None
        return Authenticator(config.access, self._passwords, map_certificates=config.tls_map)

    def reload(self, config: Config) -> None:
        """Let users, TLS and log level of a changed configuration hold. Other options stay as they are.

        Raises:
            StartError: the certificate cannot be used; then nothing has changed.
        """
        if (config.tls_cert is None) != (self.config.tls_cert is None):
            raise StartError("TLS cannot be switched on or off while the broker runs")
        tls = _tls_options(config)
        self._listener.reload(self._authenticator(config), tls)
        logs.configure(config.log_level, config.log_format)
        if self._requests.is_wanted():
            self._listener.handler = self._requests

    async def stop(self) -> None:
        """Let clients finish, for `shutdown_grace` seconds at most, and end."""
        self._is_ready = False
        self._listener.stop_accepting()
        self._shell.shutdown()
        await self._listener.drain(self.config.shutdown_grace)
        self._storage.flush()
        await self._listener.close()
        await self.release()

    async def release(self) -> None:
        """Close what is open besides connections to clients."""
        if self._counting is not None:
            self._counting.cancel()
        if self._http is not None:
            await self._http.close()
        self._passwords.close()
        self._shell.close()
        await self.search.wait_closed()
        await self._storage.close()
        if self._tracing is not None:
            await self._tracing.close()

    def _routes(self, address: Address) -> dict[str, dict[str, Route]]:
        options = AdminOptions(address.host, self.config.admin_token, self.config.show_addresses)
        routes: dict[str, dict[str, Route]] = {
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            **Admin(self._sources(), options, self._listener.describe).routes(),
        }
        if isinstance(self._clock, ManualClock):
            routes["/clock"] = {"POST": self._advance_clock}
        return routes

    def _sources(self) -> Sources:
        shell, listener, disk = self._shell, self._listener, self._storage.disk
        return Sources(
            meter=shell.meter,
            counters=shell.counters,
            census=lambda: self._census.latest,
            sync_seconds=self._sync_seconds,
            waiting=lambda: shell.waiting,
            connections=lambda: len(listener),
            subscriptions=listener.subscription_count,
            agents=lambda: shell.agent_count,
            store_bytes=lambda: disk.size() if disk is not None else None,
            more=self._more_metrics,
        )

    def _more_metrics(self) -> Iterator["Metric"]:
        yield from search_metrics(self.search)
        if self._tracing is not None:
            yield from self._tracing.metrics()

    async def _healthz(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(200, {"status": "ok", "version": __version__})

    async def _readyz(self, _: HttpRequest) -> HttpResponse:
        if self._is_ready:
            return HttpResponse(200, {"status": "ready"})
        return HttpResponse(503, {"status": "not ready"})

    async def _advance_clock(self, request: HttpRequest) -> HttpResponse:
        try:
            advance = msgspec.json.decode(request.body, type=_Advance)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return HttpResponse(400, {"error": f'body: expected {{"advance_ms": N}}: {error}'})
        if not 0 <= advance.advance_ms <= _MOST_ADVANCE_MS:
            why = f"advance_ms: expected 0 to {_MOST_ADVANCE_MS}, got {advance.advance_ms}"
            return HttpResponse(400, {"error": why})
        self._shell.advance_clock(advance.advance_ms)
        return HttpResponse(200, {"now_ms": self._clock.now_ms()})


def _tls_options(config: Config) -> TlsOptions | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    try:
        context = load_context(config.tls_cert, config.tls_key, config.tls_ca)
    except TlsError as error:
        raise StartError(str(error)) from None
    return TlsOptions(context, config.tls_required, config.tls_handshake)  # type: ignore[arg-type]


def _tracing(config: Config) -> "Tracing | None":
    """What makes traces; None, and nothing of it is loaded, where none are wanted."""
    if config.trace_endpoint is None:
        return None
    try:
        from mq9_broker.observe.traces import TraceOptions, Tracing  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        why = f"--trace-endpoint needs {error.name}, which is not installed: pip install 'mq9-broker[otel]'"
        raise StartError(why) from None
    options = TraceOptions(config.trace_ratio, config.show_addresses, config.trace_limit, config.max_message)
    return Tracing(config.trace_endpoint, config.server_name, options)


def _cannot_listen(option: str, address: Address, error: OSError) -> StartError:
    # What asyncio says repeats the address; what the system says does not.
    reason = error.strerror or str(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        reason = os.strerror(error.errno)
    return StartError(f"{option} {address}: cannot listen there: {reason}; choose another address")


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.info("open files stay limited to %d: %s", soft, error)


async def _serve(config: Config, read_config: Callable[[], Config] | None) -> int:
    stopping = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            log.warning("second signal: ending at once")
            logging.shutdown()
            os._exit(128 + number)
        log.info("%s: stopping", signal.Signals(number).name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":
            signal.signal(number, lambda number, _: loop.call_soon_threadsafe(on_signal, number))
        else:
            loop.add_signal_handler(number, on_signal, number)
    app = App(config)

    def on_reload() -> None:
        try:
            app.reload(read_config() if read_config is not None else config)
        except (ConfigError, StartError) as error:
            log.error("SIGHUP: nothing is reloaded: %s", error)  # a user's mistake
        else:
            log.info("SIGHUP: users, TLS and log level are reloaded")

    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGHUP, on_reload)
    try:
        nats_url, http_url = await app.start()
    except StartError:
        await app.release()
        raise
    log.info("version %s, store %s, %s", __version__, config.store_kind, type(loop).__module__)
    if not native.IS_COMPILED:
        log.info("without the compiled parts, which is slower")
    websocket = f" websocket={app.websocket_url}" if app.websocket_url else ""
    sys.stdout.write(f"mq9-broker ready nats={nats_url} http={http_url}{websocket}\n")
    sys.stdout.flush()
    await stopping.wait()
    await app.stop()
    log.info("stopped")
    return 0


def check(config: Config) -> None:
    """See whether a configuration can be used, without using it.

    Raises:
        StartError: it cannot; the message says why.
    """
    _tls_options(config)
    _tracing(config)


def run(config: Config, read_config: Callable[[], Config] | None = None) -> int:
    """Run a broker until it is told to end; return the exit code.

    Args:
        config: the options.
        read_config: reads them again at SIGHUP.

    Raises:
        StartError: it cannot run.
    """
    logs.configure(config.log_level, config.log_format)
    _raise_file_limit()
    return _run_loop(_serve(config, read_config))


def _run_loop(main: Coroutine[None, None, int]) -> int:
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415  # not on Windows

    return uvloop.run(main)
