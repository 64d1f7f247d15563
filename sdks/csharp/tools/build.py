"""Builds everything once, with all analyzers, into the cache of the repository."""

import os
import subprocess
import sys
from pathlib import Path


def compiler() -> Path:
    """The compiler's server in the .NET SDK that is used here."""

    def dotnet(option: str) -> str:
        return subprocess.run(["dotnet", option], check=True, capture_output=True, text=True).stdout.strip()

    version = dotnet("--version")
    line = next(line for line in dotnet("--list-sdks").splitlines() if line.startswith(f"{version} ["))
    return Path(line.split("[")[1].rstrip("]")) / version / "Roslyn" / "bincore" / "VBCSCompiler.dll"


# One compiler for all projects, warm after the first; it is this build's own, and ends with it.
pipe = f"mq9-{os.getpid()}"
build = ["dotnet", "build", "Mq9.slnx", "-c", "Release", "-m:1", "-v", "quiet", "--nologo"]
done = subprocess.run([*build, f"-p:SharedCompilationId={pipe}"], stdout=subprocess.PIPE, text=True)
subprocess.run(["dotnet", str(compiler()), "-shutdown", f"-pipename:{pipe}"], stdout=subprocess.DEVNULL)
if done.returncode:
    print(done.stdout)
sys.exit(done.returncode)
