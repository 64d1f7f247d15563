"""Runs the tests twice, on the library built for each target framework, and writes one JUnit file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
FRAMEWORKS = ("net10.0", "net8.0")


def run(framework: str) -> int:
    """Runs the tests with one build of the library; the newest one's report has the suite's name."""
    report = "sdk-csharp.xml" if framework == FRAMEWORKS[0] else f"sdk-csharp-{framework}.xml"
    built = ROOT / ".cache" / f"csharp-tests-{framework}"
    build = ["dotnet", "build", "tests/Mq9.Tests", "-c", "Release", "-v", "quiet", "--nologo"]
    build += [f"-p:LibraryFramework={framework}", "-p:RunAnalyzers=false", "-o", str(built)]
    if (code := subprocess.call(build)) != 0:
        return code
    command = [
        "dotnet",
        str(built / "Mq9.Tests.dll"),
        "-noLogo",
        "-noColor",
        "-reporter",
        "quiet",
        "-result-junit",
        str(ROOT / "reports" / report),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout)
    return done.returncode


(ROOT / "reports").mkdir(exist_ok=True)
sys.exit(max(run(framework) for framework in FRAMEWORKS))
