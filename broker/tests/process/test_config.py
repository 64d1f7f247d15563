"""Options: where they come from, which wins, and what a mistake looks like."""

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from mq9_broker import config
from mq9_broker.config import Address, Config, ConfigError

HASH = "$2b$04$7E3Y4jTSi7QTFp0uMr2Oxe3QvS4aF7XHQRHLvqp1ELnh5ysIa24sG"


def load(*flags: str, env: dict[str, str] | None = None, file: Path | None = None) -> Config:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    arguments = [*flags, *(["--config", str(file)] if file else [])]
    return config.load(parser.parse_args(arguments), env or {})


def write(folder: Path, text: str) -> Path:
    file = folder / "broker.yaml"
    file.write_text(text, "utf-8")
    return file


def test_defaults() -> None:
    loaded = load()
    assert loaded == Config()
    assert loaded.listen == Address("127.0.0.1", 4222)
    assert loaded.http == Address("127.0.0.1", 9090)
    assert loaded.store_kind == "memory"
    assert loaded.max_payload == 2**20


def test_flag_wins_over_environment_over_file(tmp_path: Path) -> None:
    file = write(tmp_path, "max_payload: 2000\nmax_reply: 2000\nmax_groups: 2\n")
    env = {"MQ9_MAX_PAYLOAD": "3000", "MQ9_MAX_REPLY": "3000"}
    loaded = load("--max-payload", "4000", env=env, file=file)
    assert (loaded.max_payload, loaded.max_reply, loaded.max_groups) == (4000, 3000, 2)


def test_every_option_has_flag_variable_and_key(tmp_path: Path) -> None:
    texts = {
        "listen": "[::1]:5000",
        "http": "off",
        "server_name": "here",
        "store": "memory",
        "data": "/somewhere",
        "fsync": "never",
        "log_level": "debug",
        "log_format": "json",
        "admin_token": "let me in",
        "show_addresses": "true",
        "test_clock": "true",
        "websocket": "[::1]:5001",
        "websocket_origins": "https://a.example, http://b.example:8080",
        "websocket_tls": "false",
        "tls_cert": "/cert.pem",
        "tls_key": "/key.pem",
        "tls_ca": "/ca.pem",
        "tls_map": "true",
        "tls_required": "false",
        "tls_handshake": "auto",
        "trace_endpoint": "https://collector.example/v1/traces",
        "trace_ratio": "0.5",
    }
    # What some options need beside them.
    needed = {
        "data": {"store": "rocksdb"},
        "tls_cert": {"tls_key": "/key.pem"},
        "tls_key": {"tls_cert": "/cert.pem"},
        "tls_ca": {"tls_cert": "/cert.pem", "tls_key": "/key.pem"},
        "tls_map": {"tls_cert": "/cert.pem", "tls_key": "/key.pem", "tls_ca": "/ca.pem"},
    }
    users = f"users:\n- user: alice\n  password: {HASH}\n"
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    for field in fields(Config):
        if field.name == "access":
            continue  # sections of the file only
        text = texts.get(field.name, "123456" if isinstance(field.default, int) else "7.5")
        if field.name in ("write_deadline", "ping_interval", "shutdown_grace", "auth_timeout"):
            text = "7.5"
        if field.name == "max_pings_out":
            text = "9"
        if field.name == "embedder":
            text = "https://example.com/v1"
        if field.name == "embedder_batch":
            text = "32"
        beside = "".join(f"{name}: {value}\n" for name, value in needed.get(field.name, {}).items())
        file = write(tmp_path, beside + (users if field.name == "tls_map" else ""))
        name = field.name.replace("_", "-")
        flags = {"true": [f"--{name}"], "false": [f"--no-{name}"]}.get(text, [f"--{name}", text])
        by_flag = getattr(load(*flags, file=file), field.name)
        by_variable = getattr(load(env={f"MQ9_{field.name.upper()}": text}, file=file), field.name)
        whole = write(tmp_path, f"{file.read_text()}{field.name}: '{text}'\n")
        by_file = getattr(load(file=whole), field.name)
        assert by_flag == by_variable == by_file != field.default
        assert f"[MQ9_{field.name.upper()}]" in parser.format_help()


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64KiB", 65536), ("2MiB", 2**21), ("64 KB", 64000), ("1mb", 10**6)]
)
def test_sizes(text: str, size: int) -> None:
    assert load("--max-payload", text).max_payload == size


def test_addresses() -> None:
    assert load("--listen", "0.0.0.0:0").listen == Address("0.0.0.0", 0)
    assert load("--listen", "localhost:65535").listen == Address("localhost", 65535)
    assert load("--listen", "[::1]:80").listen == Address("::1", 80)
    assert str(load("--listen", "[::1]:80").listen) == "[::1]:80"
    assert load("--http", "off").http is None
    assert load(env={"MQ9_HTTP": "off"}).http is None


def test_empty_variables_count_as_absent() -> None:
    assert load(env={"MQ9_HTTP": "", "MQ9_MAX_PAYLOAD": ""}) == Config()


def test_variables_that_are_no_options_are_nobodys_business() -> None:
    assert load(env={"MQ9_SERVERS": "nats://x", "MQ9_WHATEVER": "1"}) == Config()


def test_a_flag_can_be_taken_back() -> None:
    assert load("--no-test-clock", env={"MQ9_TEST_CLOCK": "true"}).test_clock is False


def test_data_folder_means_rocksdb() -> None:
    assert load("--data", "/x").store_kind == "rocksdb"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "4222"], "--listen: expected HOST:PORT such as 127.0.0.1:4222, got '4222'"),
        (["--listen", "a:65536"], "--listen: expected HOST:PORT"),
        (["--listen", "::1:80"], "--listen: expected HOST:PORT"),
        (["--http", "on"], "--http: expected HOST:PORT such as 127.0.0.1:9090, or off, got 'on'"),
        (["--store", "disk"], "--store: expected one of memory, rocksdb, got 'disk'"),
        (["--max-payload", "1"], "--max-payload: expected bytes from 1024"),
        (["--max-payload", "5 parsecs"], "--max-payload: expected bytes"),
        (["--max-payload", "-5"], "--max-payload: expected bytes"),
        (["--max-groups", "1.5"], "--max-groups: expected a whole number from 0"),
        (["--max-groups", "\uff11"], "--max-groups: expected a whole number from 0"),
        (["--max-groups", "9223372036854775808"], "--max-groups: expected a whole number"),
        (["--shutdown-grace", "soon"], "--shutdown-grace: expected seconds from 0 to 3600, got 'soon'"),
        (["--server-name", "a\nb"], "--server-name: expected some text"),
        (["--embedder", "openai"], "--embedder: expected builtin, off, or a URL such as http://"),
        (["--embedder", "file:///etc/passwd"], "--embedder: expected builtin, off, or a URL"),
        (["--store", "rocksdb"], "store rocksdb needs a folder: give one with --data DIR"),
        (["--store", "memory", "--data", "x"], "leave out --data"),
        (["--test-clock", "--http", "off"], "the test clock is moved over HTTP"),
    ],
)
def test_wrong_flags(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load(env={"MQ9_FSYNC": "sometimes"})
    assert str(caught.value) == "MQ9_FSYNC: expected one of always, interval, never, got 'sometimes'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# x\nmax_payload: 2000\nmax_paylaod: 1\n",
            ":3: unknown option 'max_paylaod'; did you mean 'max_payload'?",
        ),
        ("max-payload: 2000\n", ":1: unknown option 'max-payload'; did you mean 'max_payload'?"),
        ("zzz: 2000\n", ":1: unknown option 'zzz'; known are listen, http"),
        ("store: memory\nstore: memory\n", ":2: option 'store' is given twice"),
        ("\nlisten: 4222\n", ":2: listen: expected HOST:PORT"),
        ("listen: [a, b]\n", ":1: listen: expected a single value"),
        ("- a\n", ":1: expected lines of the form `option: value`"),
        ("a: [\n", ":2: not YAML"),
        ("a: \x00\n", ": not YAML"),
        ("? [a]\n: b\n", ":1: unknown option None"),
        ("config: other.yaml\n", ":1: unknown option 'config'"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    assert str(caught.value).startswith(f"{file}{message}")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration: No such file"):
        load(file=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read the configuration: Is a directory"):
        load(env={"MQ9_CONFIG": str(tmp_path)})
    (tmp_path / "latin.yaml").write_bytes(b"server_name: \xff\n")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load(file=tmp_path / "latin.yaml")


def test_empty_file(tmp_path: Path) -> None:
    assert load(file=write(tmp_path, "# nothing\n")) == Config()
