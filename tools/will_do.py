"""Exit status 0 if the Python that runs this can make .venv: new enough, with venv, pip and its headers."""

import importlib.util
import sys
import sysconfig
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  # an older one runs this line too
    sys.exit("older than 3.10")
if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
    sys.exit("no venv or ensurepip")
if not Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit("no Python.h")
