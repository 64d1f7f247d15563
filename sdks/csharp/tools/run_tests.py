"""Runs the tests twice, on the library built for each target framework; each run writes a JUnit file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
BUILT = ROOT / ".cache" / "csharp" / "bin"
FRAMEWORKS = ("net10.0", "net8.0")


def tests_with(framework: str) -> Path:
    """The built tests, for net10.0, beside the library of a framework; they come with that for net10.0."""
    tests = BUILT / "Mq9.Tests" / "release"
    if framework == FRAMEWORKS[0]:
        return tests
    folder = BUILT / f"Mq9.Tests-{framework}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tests, folder)
    for file in (BUILT / "Mq9" / f"release_{framework}").glob("Mq9.*"):
        shutil.copy(file, folder)
    return folder


def run(framework: str) -> int:
    """Runs the tests with one build of the library; the newest one's report has the suite's name."""
    report = "sdk-csharp.xml" if framework == FRAMEWORKS[0] else f"sdk-csharp-{framework}.xml"
    command = [
        "dotnet",
        str(tests_with(framework) / "Mq9.Tests.dll"),
        "-noLogo",
        "-noColor",
        "-reporter",
        "quiet",
        "-result-junit",
        str(ROOT / "reports" / report),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Profiles pay off in programs that run for longer.
        env={**os.environ, "MQ9_LIBRARY_FRAMEWORK": framework, "DOTNET_TieredPGO": "0"},
    )
    if done.returncode:
        print(done.stdout)
    return done.returncode


(ROOT / "reports").mkdir(exist_ok=True)
sys.exit(max(run(framework) for framework in FRAMEWORKS))
