# ruff: noqa: T201 - the commands talk to people.
"""The commands of `mq9-codegen`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mq9_codegen.load import Sources, load, shown_path
from mq9_codegen.model import Spec
from mq9_codegen.policy import check_policy, check_requirements
from mq9_codegen.problems import Problem, SpecError, nearest
from mq9_codegen.render import MARK, owned, plain, render, to_yaml
from mq9_codegen.resolve import Resolver
from mq9_codegen.target import BUILT_IN, Target, find_targets, load_target


def repository() -> Path:
    """The nearest folder above the working directory that has `spec/mq9.yaml`, else the working directory."""
    here = Path.cwd()
    return next(
        (folder for folder in (here, *here.parents) if (folder / "spec" / "mq9.yaml").is_file()), here
    )


def read_spec(root: Path, strict: bool = False) -> Spec:
    """Loads, checks and resolves a specification.

    Args:
        root: Its folder.
        strict: Whether a requirement that nothing checks is a mistake too.

    Raises:
        SpecError: With every mistake.
    """
    problems: list[Problem] = []
    sources = load(root, problems)
    if not problems:
        check_policy(sources, problems)
    checks: dict[str, tuple[str, ...]] = {}
    if not problems:
        notes: list[Problem] = []
        checks = check_requirements(sources, notes)
        problems.extend(notes if strict else ())
    if problems:
        raise SpecError(problems)
    return Resolver(sources, checks).resolve()


def _places(options: argparse.Namespace) -> tuple[Path, Path, dict[str, Path]]:
    root = repository()
    spec = options.spec or root / "spec"
    out = options.out or root
    return spec, out, find_targets([*options.targets, BUILT_IN])


def _chosen(options: argparse.Namespace) -> tuple[Spec, Path, list[Target]]:
    spec_folder, out, folders = _places(options)
    names = options.target or list(folders)
    for name in names:
        if name not in folders:
            raise SpecError(
                [
                    Problem(
                        "--target",
                        0,
                        f"there is no target '{name}'{nearest(name, folders)}",
                        "one of " + ", ".join(folders),
                    )
                ]
            )
    problems: list[Problem] = []
    chosen: list[Target] = []
    for name in names:
        try:
            chosen.append(load_target(folders[name]))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    return read_spec(spec_folder), out, chosen


_Rendered = tuple[dict[str, str], Sequence[Problem]]


def _render_one(spec: Spec, target: Target) -> _Rendered:
    try:
        return render(spec, target), []
    except SpecError as error:
        return {}, error.problems


def _rendered(spec: Spec, targets: list[Target]) -> list[_Rendered]:
    """Renders targets on all cores, in the order given: forked workers have the model already."""
    workers = min(os.cpu_count() or 1, len(targets))
    if workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        return [_render_one(spec, target) for target in targets]
    if any(output.renderer == "datamodel" for target in targets for output in target.files):
        from mq9_codegen.datamodel import load_generator  # noqa: PLC0415 - costs time

        load_generator()
    with multiprocessing.get_context("fork").Pool(workers, _take_over, (spec, targets)) as pool:
        return pool.map(_render_numbered, range(len(targets)), chunksize=1)


_work: tuple[Spec, list[Target]]
"""What a forked worker renders from."""


def _take_over(spec: Spec, targets: list[Target]) -> None:
    global _work  # noqa: PLW0603 - a worker's own
    _work = (spec, targets)


def _render_numbered(index: int) -> _Rendered:
    spec, targets = _work
    return _render_one(spec, targets[index])


def _render_all(spec: Spec, targets: list[Target]) -> Iterator[tuple[Target, dict[str, str]]]:
    problems: list[Problem] = []
    results: list[tuple[Target, dict[str, str]]] = []
    for target, (files, mistakes) in zip(targets, _rendered(spec, targets), strict=True):
        results.append((target, files))
        problems.extend(mistakes)
    if problems:
        raise SpecError(problems)
    # Two targets may share a root, never a file.
    seen: dict[str, str] = {}
    for target, files in results:
        for path in files:
            full = f"{target.out}/{path}"
            if seen.setdefault(full, target.name) != target.name:
                problems.append(
                    target.document.problem(
                        ("files",), f"writes '{full}', which target '{seen[full]}' writes too"
                    )
                )
    if problems:
        raise SpecError(problems)
    yield from results


def owned_files(target: Target, root: Path) -> set[str]:
    """The files on disk, below the target's `out`, in paths that the target owns."""
    result: set[str] = set()
    for pattern in target.owns:
        for path in root.glob(pattern + "/*" if pattern.endswith("**") else pattern):
            relative = path.relative_to(root).as_posix()
            if path.is_file() and "__pycache__" not in path.parts and owned(relative, pattern):
                result.add(relative)
    return result


def generate(options: argparse.Namespace) -> int:
    """Writes the files of all chosen targets."""
    spec, out, targets = _chosen(options)
    rendered = list(_render_all(spec, targets))
    foreign: list[Problem] = []
    orphans: list[Path] = []
    for target, files in rendered:
        root = out / target.out
        for name in sorted(owned_files(target, root) - set(files)):
            path = root / name
            if MARK.encode() in path.read_bytes():
                orphans.append(path)
            else:
                foreign.append(
                    Problem(
                        shown_path(path),
                        0,
                        f"stands in a place that target '{target.name}' owns, but is not generated",
                        "another place for it",
                    )
                )
    if foreign:
        raise SpecError(foreign)
    for path in orphans:
        path.unlink()
        print(f"removed {shown_path(path)}")
    for target, files in rendered:
        changed = 0
        for name, content in files.items():
            path = out / target.out / name
            data = content.encode("utf-8")
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                changed += 1
        print(f"{target.name}: {len(files)} files, {changed} changed")
    return 0


def check(options: argparse.Namespace) -> int:
    """Compares what would be generated with what is there."""
    spec, out, targets = _chosen(options)
    findings: list[str] = []
    for target, files in _render_all(spec, targets):
        root = out / target.out
        for name, content in files.items():
            path = root / name
            if not path.is_file():
                findings.append(f"{shown_path(path)}: is missing")
            elif path.read_bytes() != content.encode("utf-8"):
                findings.append(f"{shown_path(path)}: differs from what target '{target.name}' makes")
        findings.extend(
            f"{shown_path(root / name)}: is in a place that target '{target.name}' owns, but not made"
            for name in sorted(owned_files(target, root) - set(files))
        )
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} differences; `mq9-codegen generate` brings everything up to date")
        return 1
    print(f"{len(targets)} targets are up to date")
    return 0


def lint(options: argparse.Namespace) -> int:
    """Finds every mistake in the specification."""
    spec_folder, _, folders = _places(options)
    problems: list[Problem] = []
    for folder in folders.values():
        try:
            load_target(folder)
        except SpecError as error:
            problems.extend(error.problems)
    try:
        spec = read_spec(spec_folder, strict=True)
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from error
    if problems:
        raise SpecError(problems)
    musts = sum(requirement.level == "MUST" for requirement in spec.requirements)
    print(
        f"{len(spec.operations)} operations, {len(spec.vectors)} vectors, "
        f"{musts} MUSTs, every one with a check"
    )
    return 0


def _compact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items() if item not in (None, "", [], {})}
    return [_compact(item) for item in value] if isinstance(value, list) else value


def explain(options: argparse.Namespace) -> int:
    """Shows the resolved model of an operation."""
    spec_folder, _, folders = _places(options)
    spec = read_spec(spec_folder)
    names = [operation.name for operation in spec.operations]
    if options.operation != "spec" and options.operation not in names:
        raise SpecError(
            [
                Problem(
                    "explain",
                    0,
                    f"there is no operation '{options.operation}'{nearest(options.operation, names)}",
                    "one of " + ", ".join(names),
                )
            ]
        )
    subject = spec if options.operation == "spec" else spec.operation(options.operation)
    content = _compact(plain(subject))
    print("# None, empty texts and empty lists are left out here; a template sees them.")
    print(to_yaml(content))
    if options.target and options.operation != "spec":
        from mq9_codegen.render import Renderer  # noqa: PLC0415 - only here

        if options.target not in folders:
            raise SpecError(
                [
                    Problem(
                        "--target",
                        0,
                        f"there is no target '{options.target}'",
                        "one of " + ", ".join(folders),
                    )
                ]
            )
        renderer = Renderer(spec, load_target(folders[options.target]))
        operation = spec.operation(options.operation)
        target = renderer.target
        print(
            f"# in target {target.name}:\nmethod: {target.name_as('method', operation.method)}\nparameters:"
        )
        for parameter in operation.parameters:
            try:
                kind = renderer.type_text(parameter.type)
            except SpecError:
                kind = "(no type in this target)"
            print(f"  {target.name_as('parameter', parameter.name)}: {kind}")
    return 0


def targets(options: argparse.Namespace) -> int:
    """Lists the targets."""
    _, _, folders = _places(options)
    width = max((len(name) for name in folders), default=0)
    for name, folder in folders.items():
        target = load_target(folder)
        print(f"{name.ljust(width)}  {target.doc} ({target.out}/)")
    return 0


def new_target(options: argparse.Namespace) -> int:
    """Makes the skeleton of a new target."""
    from mq9_codegen.skeleton import make_skeleton  # noqa: PLC0415 - only here

    folder = (options.targets[0] if options.targets else BUILT_IN) / options.name
    for path in make_skeleton(folder):
        print(f"wrote {shown_path(path)}")
    return 0


def diff(options: argparse.Namespace) -> int:
    """Compares two versions of a specification."""
    from mq9_codegen.diff import run_diff  # noqa: PLC0415 - only here

    spec_folder, _, _ = _places(options)
    return run_diff(options, spec_folder)


__all__ = ["Sources", "check", "diff", "explain", "generate", "lint", "new_target", "read_spec", "targets"]
