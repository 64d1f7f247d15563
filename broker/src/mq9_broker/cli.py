"""The command `mq9-broker`."""

import argparse
import getpass
import os
import platform
import sys
from collections.abc import Sequence

from mq9_broker import config, native
from mq9_broker._generated import PROTOCOL_VERSION
from mq9_broker.engine import engine
from mq9_broker.tools import cli as tools
from mq9_broker.version import __version__

EXIT_FAILED = 1
EXIT_MISUSED = 2

_DESCRIPTION = "The reference broker of mq9: asynchronous messaging for software agents."
_SERVE = """\
Run the broker until SIGTERM or Ctrl-C. When it is ready it prints one line to stdout:

  mq9-broker ready nats=nats://HOST:PORT http=http://HOST:PORT

(http=off without an HTTP server) and everything else to stderr. Each option may also stand in the environment
under the name in [brackets], or in the file given by --config. A flag wins over the environment, the
environment over the file, the file over the default."""
_SERVE_END = """\
examples:
  mq9-broker serve                                        in memory, for trying things out
  mq9-broker serve --data ./mq9-data --listen 0.0.0.0:4222
  mq9-broker serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --test-clock

exit codes: 0 ended as asked, 1 could not run, 2 wrong options, 130 ended at once by a second signal"""
_ENGINE = "" if (engine.__file__ or "").endswith(".py") else ", engine too"
_FORM = f"compiled{_ENGINE}" if native.IS_COMPILED else "pure"
_VERSION = (
    f"mq9-broker {__version__} (protocol {PROTOCOL_VERSION}, Python {platform.python_version()}, {_FORM})"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mq9-broker", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=_VERSION)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="run the broker",
        description=_SERVE,
        epilog=_SERVE_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    config.add_arguments(serve)
    config_command = commands.add_parser(
        "config", help="check a configuration", description="Look at a configuration without running."
    )
    checking = config_command.add_subparsers(dest="what", metavar="COMMAND", required=True).add_parser(
        "check",
        help="say what is wrong with a configuration, or what it comes to",
        description="Read options as `serve` does, from flags, environment and the file given by --config, "
        "and print what they come to, where that differs from the defaults. Certificates are read too.",
        epilog="exit codes: 0 fine, 1 something cannot be used, 2 wrong options",
        allow_abbrev=False,
    )
    config.add_arguments(checking)
    hashing = commands.add_parser(
        "hash-password",
        help="print the hash of a password for the configuration file",
        description="Read a password or token (from stdin, or asked for at a terminal) and print the bcrypt "
        "hash that stands for it in the sections `users` and `token` of the configuration file.",
        allow_abbrev=False,
    )
    hashing.add_argument(
        "--rounds", type=int, default=11, choices=range(4, 17), metavar="N", help="4 to 16 (default: 11)"
    )
    tools.add_to(commands)
    commands.add_parser("version", help="print the version", description="Print the version.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["search-process"]:
        # What the broker starts for itself: no command for people.
        from mq9_broker.search import worker  # noqa: PLC0415

        return worker.main()
    parsed = _parser().parse_args(given)
    if parsed.command == "version":
        print(_VERSION)
        return 0
    if parsed.command == "hash-password":
        return _hash_password(parsed.rounds)
    if parsed.command in tools.COMMANDS:
        return tools.run(parsed)
    try:
        options = config.load(parsed, os.environ)
    except config.ConfigError as error:
        return _complain(str(error), EXIT_MISUSED)
    if parsed.command == "config":
        return _check_config(options)
    # Only now: --help and a wrong option need none of it.
    from mq9_broker import app  # noqa: PLC0415

    try:
        return app.run(options, lambda: config.load(parsed, os.environ))
    except app.StartError as error:
        return _complain(str(error), EXIT_FAILED)
    except KeyboardInterrupt:  # before the broker took the signals over
        return _complain("interrupted", EXIT_FAILED)


def _check_config(options: config.Config) -> int:
    from mq9_broker import app  # noqa: PLC0415  # only now, as above

    try:
        app.check(options)
    except app.StartError as error:
        return _complain(str(error), EXIT_FAILED)
    for line in config.describe(options):
        print(line)
    print("the configuration is fine")
    return 0


def _hash_password(rounds: int) -> int:
    from mq9_broker.auth.passwords import hash_password  # noqa: PLC0415  # nobody else needs it here

    try:
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
        print(hash_password(password, rounds))
    except ValueError as error:
        return _complain(str(error), EXIT_MISUSED)
    except (KeyboardInterrupt, EOFError):
        return _complain("interrupted", EXIT_FAILED)
    return 0


def _complain(text: str, code: int) -> int:
    print(f"mq9-broker: {text}", file=sys.stderr)
    return code
