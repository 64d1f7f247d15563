"""Compiles what the target makes of the nasty toy protocol, on the hand-written files of this crate.

The toy (codegen/tests/toyspec on top of spec/) has reserved words, names of 1 and 60 letters and prose full of what ends
comments. rustfmt has to change nothing, and the library has to compile without warnings: `python tools/compile_toy.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
ROOT = FOLDER.parent.parent
OUT = ROOT / ".cache" / "rust-toy"

sys.path.insert(0, str(ROOT / "codegen" / "tests"))


def main() -> int:
    """Makes the copy, generates into it, and checks it."""
    from mq9_codegen.cli import main as codegen  # noqa: PLC0415 (after the path is set)
    from overlay import overlay  # noqa: PLC0415

    shutil.rmtree(OUT, ignore_errors=True)
    copy = OUT / "sdks" / "rust"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("generated", "dispatch.rs", "tests", "examples"))
    manifest = (copy / "Cargo.toml").read_text("utf-8").replace('[[test]]\nname = "vectors"\nharness = false\n', "")
    (copy / "Cargo.toml").write_text(manifest, "utf-8")
    spec = overlay(ROOT / "spec", ROOT / "codegen" / "tests" / "toyspec", OUT / "spec")
    for target in ("rust", "adapter-rust"):
        if codegen(["generate", "--target", target, "--spec", str(spec), "--out", str(OUT)]):
            return 1
    target_dir = os.environ.get("CARGO_TARGET_DIR", str(ROOT / ".cache" / "cargo-target"))
    for command in (["cargo", "fmt", "--all", "--check"], ["cargo", "check", "--quiet", "--locked", "--workspace"]):
        environment = {**os.environ, "CARGO_TARGET_DIR": target_dir, "RUSTFLAGS": ""}
        done = subprocess.run(command, cwd=copy, env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
