"""The core is not shaped by Python: operations in Go, Rust and TypeScript, compiled, run and formatted.

The targets are in `targets/`, what their code stands on (written by hand) in `support/`. A toolchain that is
missing shows as NOT RUN; with STRICT=1 in the environment that is a failure.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from codegen.tests.projects import CACHE, HERE, ROOT, build, mirror, need, project, run

from mq9_codegen.cli import main

SPECS = {"real": ROOT / "spec", "toy": HERE / "toyspec"}

pytestmark = pytest.mark.timeout(900)


def make(language: str, spec: Path, out: Path) -> Path:
    """A project: the support code, and what the target makes of a specification."""
    folder = out / language
    made = ("zz_generated_*", "generated", "node_modules", "dist", "target")
    mirror(HERE / "support" / language, folder, left_alone=made)
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


def vectors_of(folder: Path, pattern: str, mark: str) -> int:
    return sum(path.read_text("utf-8").count(mark) for path in folder.glob(pattern))


@pytest.mark.parametrize("spec", SPECS)
def test_go(spec: str) -> None:
    need("go", "gofmt")
    with project(f"languages-{spec}") as out:
        folder = make("go", SPECS[spec], out)
        assert run("gofmt", "-l", "-d", ".", cwd=folder) == ("", "")
        run("go", "vet", "./...", cwd=folder)
        output, _ = run("go", "test", "-v", "./...", cwd=folder)
        wanted = vectors_of(folder, "zz_generated_*_test.go", "\nfunc TestVector")
    assert output.count("--- PASS: TestVector") == wanted > 0
    assert "--- SKIP" not in output


@pytest.mark.parametrize("spec", SPECS)
def test_rust(spec: str) -> None:
    need("cargo", "rustfmt")
    with project(f"languages-{spec}") as out:
        folder = make("rust", SPECS[spec], out)
        files = sorted(str(path) for path in folder.glob("src/generated/*.rs"))
        run("rustfmt", "--edition", "2021", "--check", *files, cwd=folder)
        environment = {"CARGO_TARGET_DIR": str(CACHE / "cargo-target"), "RUST_BACKTRACE": "0"}
        output, _ = run("cargo", "test", "--locked", "--lib", cwd=folder, env=environment)
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
def test_typescript(node_modules: Path) -> None:
    for name, spec in SPECS.items():
        with project(f"languages-{name}") as out:
            folder = make("typescript", spec, out)
            if not (folder / "node_modules").is_symlink():
                (folder / "node_modules").symlink_to(node_modules)
            with build(folder, "node --version") as needed:
                if needed or not (folder / "dist").is_dir():
                    run(node_modules / ".bin" / "prettier", "--check", "src", cwd=folder)
                    run(node_modules / ".bin" / "tsc", cwd=folder)
            tests = sorted(path.name for path in folder.glob("dist/generated/*.test.js"))
            # All in one process: `node --test` starts one for each file.
            every = folder / "dist" / "every.test.js"
            every.write_text("".join(f'import "./generated/{name}";\n' for name in tests), "utf-8")
            output, _ = run("node", "--test-reporter=tap", every, cwd=folder)
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
def test_a_wrong_vector_fails_in_go(toy_copy: Path, old: str, new: str, message: str) -> None:
    need("go")
    path = toy_copy / "operations" / "class.import.yaml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with project("languages-wrong") as out:
        folder = make("go", toy_copy, out)
        with pytest.raises(AssertionError, match=rf"(?s)--- FAIL: TestVector.*{message}"):
            run("go", "test", "./...", cwd=folder)


def test_a_missing_toolchain_is_not_run_or_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRICT", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: nosuchprogram not installed"):
        need("nosuchprogram")
    monkeypatch.setenv("STRICT", "1")
    with pytest.raises(pytest.fail.Exception, match="NOT RUN: nosuchprogram not installed"):
        need("nosuchprogram")
