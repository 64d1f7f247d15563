"""Lists the public API, as the class files have it, in api.txt; with --check compares only."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CLASSES = HERE / "target" / "classes"
FILE = HERE / "api.txt"
HEAD = "# The public API. `make api` writes this file; a change of it is a change for users.\n"


def main() -> int:
    """Writes or compares."""
    names = sorted(str(path.relative_to(CLASSES))[:-6].replace("/", ".") for path in CLASSES.rglob("*.class"))
    command = ["javap", "-protected", "-constants", "-cp", str(CLASSES), *names]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = []
    for text in re.split(r"^Compiled from .*\n", output, flags=re.MULTILINE):
        # Members of classes that nobody outside can name are listed where a public class has them.
        if re.match(r"(?:\w+ )*?(?:public|protected) ", text) and text.startswith("public"):
            head, *members, tail = text.strip().split("\n")
            found.append("\n".join([head, *sorted(members), tail]))
    text = HEAD + "\n" + "\n\n".join(found) + "\n"
    if "--check" not in sys.argv:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        sys.exit("the public API is not what api.txt says: run `make api` and look at the difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
