"""Checks licences and sources of every dependency that a user of the crate gets, as Cargo.lock pins them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC", "MIT", "MIT-0", "OpenSSL", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met by allowed licences."""
    text = expression.replace("/", " OR ").strip()
    while text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1].strip()
    groups = re.split(r"\s+AND\s+(?![^(]*\))", text)
    if len(groups) > 1:
        return all(is_allowed(group) for group in groups)
    return any(choice.strip(" ()") in ALLOWED for choice in re.split(r"\s+OR\s+", text))


def main() -> int:
    """Prints what is wrong."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    output = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True).stdout
    wrong = []
    for package in json.loads(output)["packages"]:
        name = f"{package['name']} {package['version']}"
        source = package["source"]
        if source is not None and not source.startswith(
            "registry+https://github.com/rust-lang/crates.io-index"
        ):
            wrong.append(f"{name}: comes from {source}, not from crates.io")
        if not is_allowed(package["license"] or ""):
            wrong.append(f"{name}: licence {package['license']!r} is not among the allowed ones")
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
