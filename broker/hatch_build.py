"""Puts the compiled parts of the broker into a wheel, where they can be made; see native/build.py."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _build_module() -> Any:
    path = Path(__file__).resolve().parent / "native" / "build.py"
    spec = spec_from_file_location("mq9_native_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before the wheel is packed. A wheel without compiled parts runs everywhere."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. An editable installation runs from the sources: `make setup` compiles there."""
        if version == "editable":
            return
        native = _build_module()
        reason = native.build()
        if reason:
            print(f"mq9-broker without its compiled parts, which is slower: {reason}", file=sys.stderr)
            return
        file = native.module_file()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(file)] = f"mq9_broker/{file.name}"
