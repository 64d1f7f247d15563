"""What the SDKs make of the nasty specification, in copies of them: it is formatted, and it compiles.

The copies use the packages and caches of the real SDKs. A toolchain that is missing shows as NOT RUN; with
STRICT=1 in the environment that is a failure.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from codegen.tests.projects import CACHE, HERE, MADE, ROOT, build, mirror, need, project, run

from mq9_codegen.cli import main

# What is generated in the copies, and what compilers make.
LEFT_ALONE = (*MADE, "zz_generated_*", "generated", "Generated")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real protocol with all nasty cases on top."""
    spec = importlib.util.spec_from_file_location("overlay", HERE / "overlay.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder: Path = module.overlay(ROOT / "spec", HERE / "toyspec", tmp_path_factory.mktemp("nasty") / "spec")
    return folder


def copy_of(sdk: str, nasty: Path, root: Path) -> Path:
    """A copy of an SDK with what its targets make of the nasty specification."""
    folder = root / "sdks" / sdk
    mirror(ROOT / "sdks" / sdk, folder, LEFT_ALONE)
    targets = ["--target", sdk, "--target", f"adapter-{sdk}"]
    assert main(["generate", *targets, "--spec", str(nasty), "--out", str(root)]) == 0
    return folder


def test_go(nasty: Path) -> None:
    need("go", "gofmt")
    with project("nasty-go") as root:
        folder = copy_of("go", nasty, root)
        caches = {
            "GOMODCACHE": str(CACHE / "go-mod"),
            "GOCACHE": str(CACHE / "go-build"),
            "GOFLAGS": "-modcacherw",
        }
        with build(folder, "go version") as needed:
            if needed:
                assert run("gofmt", "-s", "-l", ".", cwd=folder) == ("", "")
                run("go", "vet", "./...", cwd=folder, env=caches)


def test_javascript(nasty: Path) -> None:
    need("node", "npm")
    run("make", "node_modules/.package-lock.json", cwd=ROOT / "sdks" / "js")
    with project("nasty-js") as root:
        folder = copy_of("js", nasty, root)
        if not (folder / "node_modules").is_symlink():
            (folder / "node_modules").symlink_to(ROOT / "sdks" / "js" / "node_modules")
        programs = folder / "node_modules" / ".bin"
        with build(folder, "node --version") as needed:
            if needed:
                run(programs / "prettier", "--check", "src", "adapter", cwd=folder)
                run("node", "scripts/build.mjs", cwd=folder)
                run(programs / "tsc", "-p", ".", cwd=folder)
                run(programs / "tsc", "-p", "adapter", cwd=folder)


def test_rust(nasty: Path) -> None:
    need("cargo", "rustfmt")
    with project("nasty-rust") as root:
        folder = copy_of("rust", nasty, root)
        environment = {"CARGO_TARGET_DIR": str(CACHE / "cargo-target"), "RUSTFLAGS": ""}
        check = ("cargo", "check", "--locked", "-p", "mq9", "-p", "mq9-adapter")
        with build(folder, "cargo --version", "rustc --version") as needed:
            if needed:
                run("cargo", "fmt", "--all", "--check", cwd=folder)
                assert "warning" not in "".join(run(*check, cwd=folder, env=environment))


def test_java(nasty: Path) -> None:
    need("java", "mvn")
    with project("nasty-java") as root:
        folder = copy_of("java", nasty, root)
        real = ["make", "--no-print-directory", "-C", ROOT / "sdks" / "java", "target/libraries.classpath"]
        run(*real, cwd=ROOT)
        classpath = (ROOT / "sdks" / "java" / "target" / "libraries.classpath").read_text("utf-8").strip()
        generated = sorted((folder / "src" / "generated").rglob("*.java"))
        generated += sorted((folder / "adapter" / "src" / "generated").rglob("*.java"))
        sources = [*generated, *sorted((folder / "src" / "main" / "java").rglob("*.java"))]
        sources += sorted((folder / "adapter" / "src" / "java").rglob("*.java"))
        options = [
            "-proc:none",
            "-Xlint:all,-exports,-requires-automatic,-missing-explicit-ctor",
            "-Werror",
            "-d",
        ]
        (folder / "libraries.classpath").write_text(classpath, "utf-8")
        with build(folder, "java --version") as needed:
            if needed:
                run("javac", *options, folder / "classes", "-cp", classpath, *sources, cwd=folder)


def test_csharp(nasty: Path) -> None:
    need("dotnet")
    with project("nasty-csharp") as root:
        folder = copy_of("csharp", nasty, root)
        # Layout alone depends on names and prose; the rules of style are tested with the real SDK.
        layout = ("dotnet", "format", "whitespace", "src/Mq9", "--verify-no-changes", "--no-restore")
        with build(folder, "dotnet --version") as needed:
            if needed:
                run("python3", folder / "tools" / "public_api.py", cwd=folder)
                run("dotnet", "build", "adapter", "-c", "Release", "-v", "quiet", "--nologo", cwd=folder)
                run(*layout, cwd=folder)
