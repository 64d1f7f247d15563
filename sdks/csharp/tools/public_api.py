"""Writes the list of the public API from what the analyzer misses when the list is empty."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path("src/Mq9")
SYMBOL = re.compile(r"warning RS0016: Symbol '(.*)' is not part of the declared public API")
HEAD = "#nullable enable\n"

before = {path: path.read_text("utf-8") for path in FOLDER.glob("PublicAPI.*.txt")}
for path in before:
    path.write_text(HEAD, "utf-8")
command = ["dotnet", "build", str(FOLDER), "-f", "net10.0", "-v", "quiet", "--nologo", "--no-incremental"]
done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
others = {line for line in done.stdout.splitlines() if ": error " in line and not SYMBOL.search(line)}
symbols = {match[1] for line in done.stdout.splitlines() if (match := SYMBOL.search(line))}
if others or not symbols:
    for path, text in before.items():
        path.write_text(text, "utf-8")
    sys.exit("\n".join(sorted(others)) or f"the analyzer found no public API:\n{done.stdout}")
(FOLDER / "PublicAPI.Unshipped.txt").write_text(HEAD, "utf-8")
(FOLDER / "PublicAPI.Shipped.txt").write_text(
    HEAD + "".join(f"{symbol}\n" for symbol in sorted(symbols)), "utf-8"
)
