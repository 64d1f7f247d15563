"""The skeleton of a new target: it renders the whole spec as it stands, ready to be edited."""

from __future__ import annotations

import re
from pathlib import Path

from mq9_codegen.problems import Problem, SpecError

_FOLDER = Path(__file__).parent / "skeleton"


def make_skeleton(folder: Path) -> list[Path]:
    """Writes a new target's folder.

    Args:
        folder: The folder; its name is the target's.

    Raises:
        SpecError: If the name is not well formed or the folder exists.
    """
    if not re.match(r"[a-z][a-z0-9-]*\Z", folder.name):
        raise SpecError(
            [
                Problem(
                    "new-target",
                    0,
                    f"'{folder.name}' is no name of a target",
                    "lower-case letters, digits and -",
                )
            ]
        )
    if folder.exists():
        raise SpecError([Problem(str(folder), 0, "is there already", "another name")])
    folder.mkdir(parents=True)
    written: list[Path] = []
    for path in sorted(_FOLDER.iterdir()):
        content = path.read_text("utf-8").replace("@NAME@", folder.name)
        (folder / path.name).write_text(content, "utf-8")
        written.append(folder / path.name)
    return written
