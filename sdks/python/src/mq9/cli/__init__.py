"""The `mq9` command."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from mq9._base import Mq9Error
from mq9.cli.arguments import parser
from mq9.cli.output import explain
from mq9.cli.run import run

EXIT_REFUSED = 1
EXIT_ARGUMENTS = 2
EXIT_NO_BROKER = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands behind `mq9`; default: the command line's.

    Returns:
        0; 1 if the broker refused; 2 if an argument was wrong; 3 if there was no broker, or no answer; 130
        after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        return asyncio.run(_until_interrupted(options))
    except Mq9Error as error:
        sys.stderr.write(f"mq9: {explain(error)}\n")
        return {"server": EXIT_REFUSED, "invalid_argument": EXIT_ARGUMENTS}.get(error.kind, EXIT_NO_BROKER)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read from us has enough. Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_REFUSED
        sys.stderr.write(f"mq9: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return EXIT_ARGUMENTS
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


async def _until_interrupted(options: object) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread.
            loop.add_signal_handler(number, task.cancel)
    return await run(options)
