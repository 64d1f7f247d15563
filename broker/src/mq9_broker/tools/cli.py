"""The commands `backup`, `restore`, `inspect` and `check`, for data folders, of running brokers too."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

#: Names of the commands.
COMMANDS: Final = ("backup", "restore", "inspect", "check")
_EXIT_CODES: Final = "exit codes: 0 done, 1 could not do it, 2 wrong options, 130 interrupted"
_DATA_HELP: Final = "data folder; a broker may be running on it"
_BACKUP: Final = """\
Make a consistent copy of a data folder, of the moment at which the command is given. A broker may be running
on it: it is asked, by the socket `control` in the folder, for a checkpoint, which costs it next to nothing,
and this command copies that. The copy is complete when the command has ended; a broker can be started on it
as it is."""
_RESTORE: Final = """\
Make a new data folder of a backup or a dump. Every file is compared with what was backed up, and the
invariants of the store are verified, before the folder becomes one that a broker opens. Nothing is ever
restored over existing data."""
_INSPECT: Final = """\
Print what a data folder holds. Mailboxes appear by a hash of their address, because the address is the key to
a mailbox; --addresses prints the addresses themselves."""
_CHECK: Final = """\
Verify that everything in a data folder holds together: counters against messages, timers against leases and
delays, groups against what they lease and confirmed, addresses against mailboxes, agents against their index.
Exit code 1 when something is wrong, with a line for each problem."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to a parser."""

    def command(name: str, help_text: str, description: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help_text,
            description=description,
            epilog=f"example:\n  {example}\n\n{_EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    parser = command(
        "backup", "copy a data folder", _BACKUP, "mq9-broker backup --data /var/lib/mq9 --to /backup/monday"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help=_DATA_HELP)
    parser.add_argument(
        "--to",
        metavar="PATH",
        required=True,
        help="new folder; with --json-lines a new file, or - for standard output",
    )
    parser.add_argument(
        "--json-lines",
        action="store_true",
        help="write a dump: one JSON object a line, for reading and for moving",
    )
    parser = command(
        "restore",
        "make a data folder of a backup or a dump",
        _RESTORE,
        "mq9-broker restore --from /backup/monday --data /var/lib/mq9",
    )
    parser.add_argument(
        "--from",
        metavar="PATH",
        required=True,
        dest="source",
        help="backup, or dump; - reads one from standard input",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="new or empty folder")
    parser = command(
        "inspect", "print what a data folder holds", _INSPECT, "mq9-broker inspect --data /var/lib/mq9"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help=_DATA_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--addresses", action="store_true", help="print addresses of mailboxes instead of hashes"
    )
    parser.add_argument(
        "--top", metavar="N", type=int, default=10, help="largest mailboxes to list (default: 10)"
    )
    parser = command("check", "verify a data folder", _CHECK, "mq9-broker check --data /var/lib/mq9")
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help=_DATA_HELP)


def run(options: argparse.Namespace) -> int:
    """Carry out one of the commands; return the exit code."""
    # Only now: --help and a wrong option need none of it.
    from mq9_broker.tools import commands  # noqa: PLC0415

    try:
        if options.command == "backup":
            commands.backup(options.data, options.to, options.json_lines)
        elif options.command == "restore":
            commands.restore(options.source, options.data)
        elif options.command == "inspect":
            commands.inspect(options.data, options.json, options.addresses, options.top)
        elif commands.check(options.data):
            return 1
    except commands.CommandError as error:
        print(f"mq9-broker: {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"mq9-broker: {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mq9-broker: {options.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0
