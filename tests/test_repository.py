"""What holds for the repository as a whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ["codegen", "broker", "conformance", "sdks/python"]


def tracked() -> list[Path]:
    """Every file under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_package_carries_the_licence() -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    for package in PACKAGES:
        assert (ROOT / package / "LICENSE").read_bytes() == licence, package


def test_no_machine_paths() -> None:
    home = re.compile(rb"(?<![\w.])/(?:home|root|Users|work)/[\w.-]+")
    found = [
        str(p.relative_to(ROOT))
        for p in tracked()
        if p.name not in {"uv.lock"} and home.search(p.read_bytes())
    ]
    assert not found


def test_versions_agree() -> None:
    versions = {
        package: re.search(
            r'^version = "([^"]+)"',
            (ROOT / package / "pyproject.toml").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        for package in PACKAGES
    }
    spec = re.search(
        r'^version: "(\d+\.\d+)"', (ROOT / "spec" / "mq9.yaml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert spec
    for package, match in versions.items():
        assert match and match[1].startswith(f"{spec[1]}."), package


# Longer for a reason.
LONG_FOR_A_REASON = {"bench/natsload.c": "one program that one compiler call makes, to be copied anywhere"}


def test_no_file_is_too_long() -> None:
    """Hand-written code stays at about 600 lines a file, so that a person can read it in one sitting."""
    suffixes = {".py", ".c", ".j2"}
    generated = ("_generated", "/generated/")
    names = [p.relative_to(ROOT).as_posix() for p in tracked() if p.suffix in suffixes]
    long = {
        name: lines
        for name in names
        if name not in LONG_FOR_A_REASON and not any(part in name for part in generated)
        if (lines := (ROOT / name).read_text(encoding="utf-8").count("\n"))
        > (750 if "tests/" in name else 650)
    }
    assert not long
