"""Puts the compiled parts of the broker into a wheel, where they can be made; see native/."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before the wheel is packed. A wheel without compiled parts runs everywhere."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. An editable installation runs from the sources: `make setup` compiles there."""
        if version == "editable":
            return
        sys.path.insert(0, str(HERE / "native"))
        import build  # noqa: PLC0415
        import engine  # noqa: PLC0415

        reason = build.build()
        if reason:
            print(f"mq9-broker without its compiled parts, which is slower: {reason}", file=sys.stderr)
            return
        file = build.module_file()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(file)] = f"mq9_broker/{file.name}"
        # Compiling takes half a minute: whoever builds often keeps what was compiled.
        folder = Path(os.environ.get("MQ9_ENGINE_CACHE") or HERE / "build" / "engine")
        reason = engine.compile_engine(folder)
        if reason:
            print(f"mq9-broker without a compiled engine, which is slower: {reason}", file=sys.stderr)
            return
        for path in engine.compiled_files(folder):
            build_data["force_include"][str(folder / path)] = str(path)
