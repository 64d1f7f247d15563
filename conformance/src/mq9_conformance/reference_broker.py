"""Starts the reference broker for scenarios; MQ9_MUTANT puts one broken piece into it from outside."""

from __future__ import annotations

import os
import sys


def preload() -> None:
    """Loads what `main` needs, for processes that are forked; what mutants need only if MQ9_MUTANT is set."""
    from mq9_broker import app  # noqa: F401, PLC0415

    if "MQ9_MUTANT" in os.environ:
        from .mutants import brokers  # noqa: F401, PLC0415
        from .mutants.edge import protocol  # noqa: PLC0415

        protocol()
    sys.argv[0] = "mq9-broker"


def main() -> int:
    """Runs `mq9-broker` with the arguments given."""
    mutant = os.environ.get("MQ9_MUTANT")
    if mutant:
        from .mutants.brokers import install  # noqa: PLC0415 (only where a mutant is asked for)

        install(mutant)
    from mq9_broker.cli import main as broker_main  # noqa: PLC0415 (after the mutant is in place)

    result = broker_main(sys.argv[1:])
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
