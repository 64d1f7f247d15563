"""The core is not shaped by Python: operations in Go, Rust and TypeScript, compiled, run and formatted.

The targets are in `targets/`, what their code stands on (written by hand) in `support/`. A toolchain that is
missing shows as NOT RUN; with STRICT=1 in the environment that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from mq9_codegen.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"
SPECS = {"real": ROOT / "spec", "toy": HERE / "toyspec"}

pytestmark = pytest.mark.timeout(900)


def need(*programs: str) -> None:
    """Fails under STRICT=1 if a program is missing, else shows that the test did not run."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"NOT RUN: {', '.join(missing)} not installed"
    if os.environ.get("STRICT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def make(language: str, spec: Path, out: Path) -> Path:
    """A project: the support code, and what the target makes of a specification."""
    folder = out / language
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "support" / language, folder)
    options = [
        "--target",
        language,
        "--targets",
        str(HERE / "targets"),
        "--spec",
        str(spec),
        "--out",
        str(out),
    ]
    assert main(["generate", *options]) == 0
    return folder


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    return done.stdout


def vectors_of(folder: Path, pattern: str, mark: str) -> int:
    return sum(path.read_text("utf-8").count(mark) for path in folder.glob(pattern))


@pytest.mark.parametrize("spec", SPECS)
def test_go(tmp_path: Path, spec: str) -> None:
    need("go", "gofmt")
    folder = make("go", SPECS[spec], tmp_path)
    assert run("gofmt", "-l", "-d", ".", cwd=folder) == ""
    run("go", "vet", "./...", cwd=folder)
    output = run("go", "test", "-v", "./...", cwd=folder)
    wanted = vectors_of(folder, "zz_generated_*_test.go", "\nfunc TestVector")
    assert output.count("--- PASS: TestVector") == wanted > 0
    assert "--- SKIP" not in output


@pytest.mark.parametrize("spec", SPECS)
def test_rust(tmp_path: Path, spec: str) -> None:
    need("cargo", "rustfmt")
    folder = make("rust", SPECS[spec], tmp_path)
    files = sorted(str(path) for path in folder.glob("src/generated/*.rs"))
    run("rustfmt", "--edition", "2021", "--check", *files, cwd=folder)
    environment = {"CARGO_TARGET_DIR": str(CACHE / "cargo-target"), "RUST_BACKTRACE": "0"}
    output = run("cargo", "test", "--locked", "--lib", cwd=folder, env=environment)
    wanted = vectors_of(folder, "src/generated/*_vectors.rs", "#[test]")
    assert wanted > 0
    assert f"test result: ok. {wanted} passed; 0 failed; 0 ignored" in output


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The pinned TypeScript and prettier, installed once."""
    need("node", "npm")
    folder = CACHE / "codegen-typescript"
    lock = HERE / "support" / "typescript" / "package-lock.json"
    installed = folder / "package-lock.json"
    if not installed.is_file() or installed.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", ".npmrc"):
            shutil.copy(lock.with_name(name), folder)
        shutil.copy(lock, folder / "package-lock.json.new")
        (folder / "package-lock.json.new").rename(folder / "package-lock.json")
        try:
            run("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
        except AssertionError:
            installed.unlink()
            raise
    return folder / "node_modules"


# One test for both specifications, because they share the installed packages.
def test_typescript(tmp_path: Path, node_modules: Path) -> None:
    for name, spec in SPECS.items():
        folder = make("typescript", spec, tmp_path / name)
        (folder / "node_modules").symlink_to(node_modules)
        run("npx", "--no-install", "prettier", "--check", "src", cwd=folder)
        run("npx", "--no-install", "tsc", cwd=folder)
        tests = sorted(str(path.relative_to(folder)) for path in folder.glob("dist/generated/*.test.js"))
        output = run("node", "--test", "--test-reporter=tap", *tests, cwd=folder)
        wanted = vectors_of(folder, "src/generated/*.test.ts", "\ntest(")
        assert wanted > 0
        assert f"# pass {wanted}\n# fail 0\n" in output
        assert "# skipped 0" in output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'json: {error: "", object: {id: 9007199254740993',
            'json: {error: "", object: {id: 9007199254740992',
            "result",
        ),
        ('ratio: -5, class: a.b, "quo', 'ratio: -6, class: a.b, "quo', "body"),
        ("field: self, code", "field: id, code", "invalid_argument"),
    ],
)
def test_a_wrong_vector_fails_in_go(tmp_path: Path, toy_copy: Path, old: str, new: str, message: str) -> None:
    need("go")
    path = toy_copy / "operations" / "class.import.yaml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    folder = make("go", toy_copy, tmp_path / "wrong")
    with pytest.raises(AssertionError, match=rf"(?s)--- FAIL: TestVector.*{message}"):
        run("go", "test", "./...", cwd=folder)


def test_a_missing_toolchain_is_not_run_or_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRICT", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: nosuchprogram not installed"):
        need("nosuchprogram")
    monkeypatch.setenv("STRICT", "1")
    with pytest.raises(pytest.fail.Exception, match="NOT RUN: nosuchprogram not installed"):
        need("nosuchprogram")
