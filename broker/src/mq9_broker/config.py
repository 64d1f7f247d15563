"""The broker's options: one table, from which flags, environment variables and configuration file derive.

An option `max_payload` is the flag `--max-payload`, the variable `MQ9_MAX_PAYLOAD` and the key `max_payload`
of the YAML file. A flag wins over a variable, a variable over the file, the file over the default.
"""
# ruff: noqa: RUF009  # _option() makes a dataclass field

import argparse
import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import yaml

from mq9_broker._generated import DEFAULT_PORT, limits
from mq9_broker.auth.access import SECTIONS, Access, AccessError, read_access
from mq9_broker.observe import logs
from mq9_broker.search.settings import BUILTIN, OFF, SearchSettings

Value = TypeVar("Value")


class ConfigError(Exception):
    """Something is wrong with an option; the message says where, what, and what was expected."""


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Kind(NamedTuple):
    """A kind of value: how it is read from text, how it is shown."""

    read: Callable[[str], Any]  # raises ValueError("expected ..., got ...")
    metavar: str
    show: Callable[[Any], str] = str


def _read_address(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:4222, got {text!r}")
    return Address(match[1] or match[2], int(match[3]))


def _read_address_or_off(text: str) -> Address | None:
    if text == "off":
        return None
    try:
        return _read_address(text)
    except ValueError:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:9090, or off, got {text!r}") from None


def _read_flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def _choice(*choices: str) -> Kind:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {text!r}")
        return text

    return Kind(read, "|".join(choices))


def _integer(least: int, most: int) -> Kind:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return Kind(read, "N")


_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _size(least: int, most: int) -> Kind:
    def read(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,19}) ?([A-Za-z]*)", text, re.ASCII)
        size = int(match[1]) * _UNITS.get(match[2].upper(), -1) if match else -1
        if not match or size < 0 or not least <= size <= most:
            raise ValueError(f"expected bytes from {least} to {most}, such as 65536 or 64KiB, got {text!r}")
        return size

    return Kind(read, "BYTES", _show_size)


def _show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit.upper()] == 0:
            return f"{size // _UNITS[unit.upper()]}{unit}"
    return str(size)


def _seconds(least: float, most: float) -> Kind:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or not least <= float(text) <= most:
            raise ValueError(f"expected seconds from {least:g} to {most:g}, got {text!r}")
        return float(text)

    return Kind(read, "SECONDS", lambda value: f"{value:g}")


def _read_origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not re.fullmatch(r"https?://[^\s/]+", origin):
            raise ValueError(f"expected origins such as https://example.org, got {origin!r}")
    if not origins:
        raise ValueError("expected origins such as https://example.org, got none")
    return origins


def _read_text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"expected some text, got {text!r}")
    return text


def _read_embedder(text: str) -> str:
    if text in (BUILTIN, OFF):
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise ValueError(
            f"expected {BUILTIN}, {OFF}, or a URL such as http://127.0.0.1:8080/v1, got {text!r}"
        )
    return text


def _read_trace_endpoint(text: str) -> str | None:
    if text == "off":
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise ValueError(f"expected a URL such as http://127.0.0.1:4318/v1/traces, or off, got {text!r}")
    return text


def _read_share(text: str) -> float:
    if not re.fullmatch(r"[0-9](\.[0-9]{1,9})?", text, re.ASCII) or float(text) > 1:
        raise ValueError(f"expected a share from 0 to 1, such as 0.01, got {text!r}")
    return float(text)


def _read_log_levels(text: str) -> str:
    logs.parse_levels(text)
    return text


def _read_path(text: str) -> Path:
    if not text:
        raise ValueError("expected a path, got nothing")
    return Path(text).expanduser()


_FLAG = Kind(_read_flag, "", lambda value: "on" if value else "off")
_COUNT_OR_UNLIMITED = _integer(0, 2**63 - 1)


@dataclass(frozen=True)
class OptionInfo:
    """What is known of an option beside its name."""

    group: str
    kind: Kind
    help: str
    default_text: str | None = None


def _option(group: str, kind: Kind, default: Value, help_text: str, default_text: str | None = None) -> Value:
    info = OptionInfo(group, kind, help_text, default_text)
    field: Value = dataclasses.field(default=default, metadata={"option": info})
    return field


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of `mq9-broker serve`. This class is the table: nothing else lists them."""

    listen: Address = _option(
        "Network",
        Kind(_read_address, "HOST:PORT"),
        Address("127.0.0.1", DEFAULT_PORT),
        "where NATS clients connect; port 0 takes a free one; 0.0.0.0:4222 serves other machines",
    )
    http: Address | None = _option(
        "Network",
        Kind(_read_address_or_off, "HOST:PORT|off"),
        Address("127.0.0.1", 9090),
        "where the HTTP server answers /healthz, /readyz, /metrics and the admin pages; off for none",
    )
    server_name: str = _option(
        "Network", Kind(_read_text, "NAME"), "mq9", "the name that clients are told in INFO"
    )
    websocket: Address | None = _option(
        "Network",
        Kind(_read_address_or_off, "HOST:PORT|off"),
        None,
        "where NATS clients connect by WebSocket, such as browsers; off for none",
        "off",
    )
    websocket_origins: tuple[str, ...] = _option(
        "Network",
        Kind(_read_origins, "URL,URL"),
        (),
        "web pages that may connect, by their origin",
        "all",
    )
    max_connections: int = _option(
        "Network", _integer(1, 10_000_000), 65536, "clients at a time; one more is refused"
    )
    max_subscriptions: int = _option(
        "Network", _integer(1, 10_000_000), 10_000, "subscriptions of one client; one more is refused"
    )
    max_payload: int = _option(
        "Network",
        _size(1024, 64 * 2**20),
        limits.MAX_PAYLOAD,
        "the largest message that a client may send, headers included",
    )
    max_control_line: int = _option(
        "Network", _size(512, 2**20), 4096, "the longest protocol line that a client may send"
    )
    max_pending: int = _option(
        "Network",
        _size(64 * 2**10, 2**40),
        64 * 2**20,
        "bytes waiting for one client to read them, beyond which it is cut as a slow consumer",
    )
    write_deadline: float = _option(
        "Network",
        _seconds(0.1, 3600),
        10.0,
        "a client that has much to read and reads nothing for so long is cut as a slow consumer",
    )
    ping_interval: float = _option(
        "Network", _seconds(0.1, 86400), 120.0, "silence after which a client is asked whether it is there"
    )
    max_pings_out: int = _option(
        "Network", _integer(1, 1000), 2, "unanswered PINGs after which a connection counts as stale"
    )

    auth_timeout: float = _option(
        "Network",
        _seconds(0.1, 3600),
        5.0,
        "how long a client may take for its TLS handshake, and for its CONNECT where it has to say who it is",
    )

    tls_cert: Path | None = _option(
        "TLS", Kind(_read_path, "FILE"), None, "the broker's certificate and its chain, PEM", "none"
    )
    tls_key: Path | None = _option(
        "TLS", Kind(_read_path, "FILE"), None, "the certificate's key, PEM", "none"
    )
    tls_ca: Path | None = _option(
        "TLS",
        Kind(_read_path, "FILE"),
        None,
        "authorities, PEM: every client needs a certificate of one of them",
        "none, clients need no certificate",
    )
    tls_map: bool = _option(
        "TLS",
        _FLAG,
        False,
        "a client's certificate says which of the `users` it is: by mail address, DNS name, URI, or subject",
    )
    tls_required: bool = _option("TLS", _FLAG, True, "with a certificate: clients without TLS are refused")
    tls_handshake: str = _option(
        "TLS",
        _choice("after-info", "first", "auto"),
        "after-info",
        "what comes first on a new connection, INFO or TLS; auto gives the client 0.05 seconds to begin",
    )
    websocket_tls: bool = _option(
        "TLS", _FLAG, True, "with a certificate: WebSocket is wss; off where a proxy in front does TLS"
    )

    store: str | None = _option(
        "Storage",
        _choice("memory", "rocksdb"),
        None,
        "memory keeps nothing beyond the process; rocksdb keeps everything in the data folder",
        "rocksdb where a data folder is given, else memory",
    )
    data: Path | None = _option(
        "Storage", Kind(_read_path, "DIR"), None, "folder of the rocksdb store; made if missing", "none"
    )
    fsync: str = _option(
        "Storage",
        _choice("always", "interval", "never"),
        "interval",
        "when what was accepted reaches the disk itself: before it is answered (always: survives a loss of "
        "power), within 0.2 seconds (interval), or when the system likes (never). A broker that is killed "
        "loses nothing in any case",
    )
    reserve: int = _option(
        "Storage",
        _size(0, 2**40),
        96 * 2**20,
        "room kept free in the data folder, with which the broker recovers once the disk has been full; "
        "0 = none: then it may take a restart with more room",
    )
    message_cache: int = _option(
        "Storage",
        _size(0, 2**40),
        128 * 2**20,
        "with rocksdb: so much of what was sent last is kept in memory too, 8MiB at least; a backlog beyond "
        "it is read from the disk",
    )

    max_reply: int = _option(
        "Limits", _size(1024, 64 * 2**20), limits.MAX_REPLY, "a reply ends here or after one message"
    )
    max_message: int = _option(
        "Limits",
        _size(0, 64 * 2**20),
        0,
        "bytes of one stored message with its headers; 0 = as much as max_payload lets in",
    )
    max_mailboxes: int = _option("Limits", _COUNT_OR_UNLIMITED, 10_000_000, "mailboxes in all; 0 = unlimited")
    max_agents: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 1_000_000, "registered agents in all; 0 = unlimited"
    )
    mailbox_max_messages: int = _option(
        "Limits",
        _COUNT_OR_UNLIMITED,
        0,
        "messages of one mailbox, beyond which the oldest acknowledged by all groups go; 0 = unlimited",
    )
    mailbox_max_bytes: int = _option(
        "Limits", _size(0, 2**62), 0, "bytes of one mailbox, likewise; 0 = unlimited"
    )
    mailbox_max_delayed: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 1_000_000, "delayed messages of one mailbox; 0 = unlimited"
    )
    mailbox_max_dedup_ids: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 10_000_000, "remembered dedup-ids of one mailbox; 0 = unlimited"
    )
    mailbox_max_waiting: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 100_000, "waiting FETCHes of one mailbox; 0 = unlimited"
    )
    client_max_waiting: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 10_000, "waiting FETCHes of one client; 0 = unlimited"
    )
    max_waiting: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, 1_000_000, "waiting FETCHes in all; 0 = unlimited"
    )
    max_groups: int = _option(
        "Limits", _COUNT_OR_UNLIMITED, limits.MAX_GROUPS, "consumer groups of one mailbox; 0 = unlimited"
    )

    embedder: str = _option(
        "Search",
        Kind(_read_embedder, "builtin|off|URL"),
        BUILTIN,
        "what finds agents by meaning: builtin needs no network; off: words alone; or the URL of an endpoint "
        "that speaks OpenAI's /embeddings, such as http://127.0.0.1:8080/v1",
    )
    embedder_model: str = _option(
        "Search", Kind(_read_text, "NAME"), SearchSettings().model, "the endpoint's model"
    )
    embedder_key: str = _option(
        "Search",
        Kind(_read_text, "KEY"),
        "",
        "the endpoint's key, sent as a bearer token; keep it off the command line, where others can read it",
        "none",
    )
    embedder_timeout: float = _option(
        "Search",
        _seconds(0.1, 600),
        SearchSettings().timeout,
        "how long the endpoint may take; registrations never wait for it, and a query then goes without it",
    )
    embedder_batch: int = _option(
        "Search", _integer(1, 2048), SearchSettings().batch, "texts of one request to it"
    )

    trace_endpoint: str | None = _option(
        "Traces",
        Kind(_read_trace_endpoint, "URL|off"),
        None,
        "where OpenTelemetry traces of requests go, by OTLP over HTTP, such as "
        "http://127.0.0.1:4318/v1/traces; needs the package's extra: pip install 'mq9-broker[otel]'",
        "off",
    )
    trace_ratio: float = _option(
        "Traces",
        Kind(_read_share, "SHARE", lambda value: f"{value:.9f}".rstrip("0").rstrip(".")),
        1.0,
        "share of the requests without a trace context that are traced; one with a traceparent header is "
        "traced if its sender's span is",
    )
    trace_limit: int = _option(
        "Traces",
        _COUNT_OR_UNLIMITED,
        1000,
        "requests traced in a second at most, whatever share and senders say; 0 = unlimited",
    )

    shutdown_grace: float = _option(
        "Process",
        _seconds(0, 3600),
        2.0,
        "how long connected clients may finish after SIGTERM or Ctrl-C; a second signal ends at once",
    )
    log_level: str = _option(
        "Process",
        Kind(_read_log_levels, "LEVELS"),
        "info",
        "what is logged to stderr: debug, info, warning or error, and where a module shall differ its name: "
        "info,transport=debug",
    )
    log_format: str = _option(
        "Process", _choice("text", "json"), "text", "how: lines for people, or a JSON object a line"
    )
    admin_token: str = _option(
        "Process",
        Kind(_read_text, "TOKEN", lambda token: "(given)"),
        "",
        "token for the admin pages of the HTTP port; without one they answer only where that port is bound "
        "to a loopback address",
        "none",
    )
    show_addresses: bool = _option(
        "Process",
        _FLAG,
        False,
        "show mailboxes by their addresses on the admin pages and in traces, not by a hash: an address is "
        "a key",
    )
    test_clock: bool = _option(
        "Process",
        _FLAG,
        False,
        'for tests: time stands still and is moved by POST /clock {"advance_ms": N} on the HTTP port',
    )

    access: Access = Access()
    """The sections of the file on users; these are no options."""

    @property
    def search_settings(self) -> SearchSettings:
        """How the search index is made."""
        return SearchSettings(
            embedder=self.embedder,
            model=self.embedder_model,
            key=self.embedder_key,
            timeout=self.embedder_timeout,
            batch=self.embedder_batch,
            cache=str(self.data / "search") if self.data is not None else None,
        )

    @property
    def store_kind(self) -> str:
        """`memory` or `rocksdb`, decided."""
        return self.store or ("rocksdb" if self.data is not None else "memory")


_OPTIONS: dict[str, OptionInfo] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(Config) if field.metadata
}
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(Config) if field.metadata
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return "MQ9_" + name.upper()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every option to a parser, with its help."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with options, by their names with _ for - [MQ9_CONFIG]"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, info in _OPTIONS.items():
        group = groups.get(info.group)
        if group is None:
            group = groups[info.group] = parser.add_argument_group(info.group)
        default = info.default_text or info.kind.show(_DEFAULTS[name])
        text = f"{info.help} (default: {default}) [{_variable(name)}]".replace("%", "%%")
        if info.kind is _FLAG:
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, dest=name, help=text)
        else:
            group.add_argument(_flag(name), metavar=info.kind.metavar, dest=name, help=text)


def load(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Put the options together from flags, environment and configuration file.

    Raises:
        ConfigError: a value is wrong, a key is unknown, the file cannot be read, or options contradict.
    """
    values: dict[str, Any] = {}
    file = arguments.config or environment.get("MQ9_CONFIG")
    if file:
        values.update(_read_file(Path(file)))
    for name in _OPTIONS:
        text = environment.get(_variable(name))
        if text:
            values[name] = _read(name, text, _variable(name))
    for name in _OPTIONS:
        given = getattr(arguments, name)
        if given is not None:
            values[name] = given if isinstance(given, bool) else _read(name, given, _flag(name))
    config = Config(**values)
    _check(config)
    return config


def describe(config: Config) -> list[str]:
    """Each option that differs from its default, as a line of the file; secrets are left out."""
    lines = []
    for name, info in _OPTIONS.items():
        value = getattr(config, name)
        if value != _DEFAULTS[name]:
            lines.append(f"{name}: {info.kind.show(value)}")
    if config.access.users:
        lines.append(f"users: {len(config.access.users)}")
    return lines


def _check(config: Config) -> None:
    if config.store_kind == "rocksdb" and config.data is None:
        raise ConfigError("store rocksdb needs a folder: give one with --data DIR")
    if config.store_kind == "memory" and config.data is not None:
        raise ConfigError(
            "store memory keeps nothing in a data folder: leave out --data, or say --store rocksdb"
        )
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigError("TLS needs both: give --tls-cert FILE and --tls-key FILE, or neither")
    if config.tls_ca is not None and config.tls_cert is None:
        raise ConfigError("--tls-ca needs a certificate too: give --tls-cert FILE and --tls-key FILE")
    if config.tls_map and (config.tls_ca is None or not config.access.users):
        raise ConfigError("--tls-map needs --tls-ca FILE and the section `users` of a configuration file")
    if any(not user.password and user.name for user in config.access.users) and not (
        config.tls_map or config.access.no_auth_user
    ):
        raise ConfigError("a user without `password` can only be known by certificate: say --tls-map")
    if config.test_clock and config.http is None:
        raise ConfigError("the test clock is moved over HTTP: leave out --http off, or --test-clock")


def _read(name: str, text: str, where: str) -> Any:
    try:
        return _OPTIONS[name].kind.read(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:{root.start_mark.line + 1}: expected lines of the form `option: value`")
    sections: dict[str, yaml.Node] = {}
    options: list[tuple[yaml.Node, yaml.Node]] = []
    for key, value in root.value:
        if isinstance(key, yaml.ScalarNode) and key.value in SECTIONS:
            if key.value in sections:
                raise ConfigError(f"{path}:{key.start_mark.line + 1}: {key.value!r} is given twice")
            sections[key.value] = value
        else:
            options.append((key, value))
    values = dict(_read_entries(path, options))
    try:
        return {**values, "access": read_access(path, sections)}
    except AccessError as error:
        raise ConfigError(str(error)) from None


def _read_entries(path: Path, entries: Sequence[tuple[yaml.Node, yaml.Node]]) -> list[tuple[str, Any]]:
    read: dict[str, Any] = {}
    for key_node, value_node in entries:
        where = f"{path}:{key_node.start_mark.line + 1}"
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key not in _OPTIONS:
            raise ConfigError(f"{where}: unknown option {key!r}{_suggestion(key)}")
        if key in read:
            raise ConfigError(f"{where}: option {key!r} is given twice")
        if not isinstance(value_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: {key}: expected a single value")
        read[key] = _read(key, value_node.value, f"{where}: {key}")
    return list(read.items())


def _suggestion(key: str | None) -> str:
    close = difflib.get_close_matches((key or "").replace("-", "_").lower(), [*_OPTIONS, *SECTIONS], n=1)
    known = ", ".join([*_OPTIONS, *SECTIONS])
    return f"; did you mean {close[0]!r}?" if close else f"; known are {known}"
