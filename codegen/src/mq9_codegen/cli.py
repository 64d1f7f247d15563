"""`mq9-codegen`: see `mq9-codegen --help` and README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mq9_codegen import commands
from mq9_codegen.problems import SpecError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mq9-codegen",
        description="Turns the protocol's definition (YAML) into SDKs, models, documents and tests.",
    )
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        part = sub.add_parser(name, help=text, description=text)
        part.set_defaults(action=action)
        part.add_argument(
            "--spec",
            type=Path,
            default=None,
            metavar="DIR",
            help="the specification (default: spec/ of this repository)",
        )
        part.add_argument(
            "--out",
            type=Path,
            default=None,
            metavar="DIR",
            help="the root that targets write below (default: this repository)",
        )
        part.add_argument(
            "--targets",
            type=Path,
            action="append",
            default=[],
            metavar="DIR",
            help="a folder with more targets; may be repeated",
        )
        return part

    part = add(
        "generate",
        commands.generate,
        "Writes the files of all targets and removes generated ones that are no longer made.",
    )
    part.add_argument(
        "--target", action="append", default=[], metavar="T", help="only this target; may be repeated"
    )
    part = add(
        "check",
        commands.check,
        "Compares what would be generated with what is there: sets of files and bytes.",
    )
    part.add_argument(
        "--target", action="append", default=[], metavar="T", help="only this target; may be repeated"
    )
    part = add(
        "lint",
        commands.lint,
        "Finds every mistake in the specification, also requirements that nothing checks.",
    )
    part = add("explain", commands.explain, "Shows the resolved model of an operation as a template sees it.")
    part.add_argument("operation", help="an operation such as msg.fetch, or `spec` for everything")
    part.add_argument("--target", default=None, metavar="T", help="also show names and types of this target")
    part = add("targets", commands.targets, "Lists the targets.")
    part = add("new-target", commands.new_target, "Makes the skeleton of a new target.")
    part.add_argument("name", help="its name, in lower case")
    part = add(
        "diff",
        commands.diff,
        "Compares two versions of a specification, field by field; 1 = the version number does not allow it.",
    )
    part.add_argument("old", type=Path, nargs="?", help="the older specification's folder")
    part.add_argument("new", type=Path, nargs="?", help="the newer one's (default: --spec)")
    part.add_argument(
        "--against", choices=["released"], help="compare with the newest version below spec/released/"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; exit code 0 is success, 1 findings, 2 mistakes in the input."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except BrokenPipeError:
        # The reader of a long output has seen enough (`| head`); closing stdout would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SpecError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        count = len(error.problems)
        print(f"mq9-codegen: {count} {'mistake' if count == 1 else 'mistakes'}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
