"""Lists the public API of the crate: `public_api.py FILE` writes it, `--check FILE` compares.

What `cargo rustdoc` knows in its JSON form, one line an item, is what a user can name. rustdoc writes that
form only where unstable options are allowed: tools/rustdoc_json.sh allows them for rustdoc alone, so that
what it needs of the dependencies is what the linter has already compiled.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent


def rustdoc() -> dict[str, Any]:
    """The crate's documentation as JSON."""
    command = ["cargo", "rustdoc", "--quiet", "--locked", "--lib", "-p", "mq9", "--"]
    command += ["-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"]
    environment = {**os.environ, "RUSTDOC": str(FOLDER / "tools" / "rustdoc_json.sh")}
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    target = Path(os.environ["CARGO_TARGET_DIR"])
    return dict(json.loads((target / "doc" / "mq9.json").read_text("utf-8")))


class Lister:
    """Writes items as Rust does, with paths shortened to their last name."""

    def __init__(self, crate: dict[str, Any]) -> None:
        self.index = crate["index"]
        self.lines: set[str] = set()

    def type(self, kind: Any) -> str:
        """A type."""
        if kind is None:
            return "()"
        if isinstance(kind, str):
            return kind
        ((name, value),) = kind.items()
        if name in {"generic", "primitive"}:
            return str(value)
        if name == "resolved_path":
            return self.path(value)
        if name == "borrowed_ref":
            lifetime = f"{value['lifetime']} " if value["lifetime"] else ""
            return f"&{lifetime}{'mut ' if value['is_mutable'] else ''}{self.type(value['type'])}"
        if name == "tuple":
            return f"({', '.join(self.type(item) for item in value)})"
        if name == "slice":
            return f"[{self.type(value)}]"
        if name == "array":
            return f"[{self.type(value['type'])}; {value['len']}]"
        if name == "impl_trait":
            return f"impl {self.bounds(value)}"
        if name == "dyn_trait":
            return "dyn " + " + ".join(self.path(item["trait"]) for item in value["traits"])
        if name == "qualified_path":
            return f"{self.type(value['self_type'])}::{value['name']}"
        return name

    def path(self, path: dict[str, Any]) -> str:
        """A path with its arguments."""
        name = str(path.get("path") or path.get("name")).rpartition("::")[2]
        arguments = path.get("args")
        if not arguments:
            return name
        if "parenthesized" in arguments:
            inner = arguments["parenthesized"]
            output = f" -> {self.type(inner['output'])}" if inner["output"] else ""
            return f"{name}({', '.join(self.type(item) for item in inner['inputs'])}){output}"
        inner = arguments["angle_bracketed"]
        parts = [self.argument(item) for item in inner["args"]]
        for item in inner["constraints"]:
            binding = item["binding"]
            if "equality" in binding:
                parts.append(f"{item['name']} = {self.argument(binding['equality'])}")
            else:
                parts.append(f"{item['name']}: {self.bounds(binding['constraint'])}")
        return f"{name}<{', '.join(parts)}>" if parts else name

    def argument(self, item: Any) -> str:
        """An argument between angle brackets."""
        if isinstance(item, str):
            return item
        ((name, value),) = item.items()
        if name == "type":
            return self.type(value)
        return str(value["expr"] if isinstance(value, dict) else value)

    def bounds(self, bounds: list[Any]) -> str:
        """Bounds with plus signs between."""
        return " + ".join(
            self.path(b["trait_bound"]["trait"]) if "trait_bound" in b else str(b.get("outlives"))
            for b in bounds
        )

    def generics(self, generics: dict[str, Any]) -> tuple[str, str]:
        """Parameters, and what has to hold for them."""
        params = []
        for param in generics["params"]:
            kind = param["kind"]
            if "type" in kind and not kind["type"]["is_synthetic"]:
                bounds = self.bounds(kind["type"]["bounds"])
                params.append(f"{param['name']}: {bounds}" if bounds else param["name"])
            elif "const" in kind:
                params.append(f"const {param['name']}: {self.type(kind['const']['type'])}")
        where = [
            f"{self.type(item['bound_predicate']['type'])}: {self.bounds(item['bound_predicate']['bounds'])}"
            for item in generics["where_predicates"]
            if "bound_predicate" in item
        ]
        return f"<{', '.join(params)}>" if params else "", f" where {', '.join(where)}" if where else ""

    def function(self, name: str, function: dict[str, Any]) -> str:
        """A function's signature."""
        signature = function["sig"]
        inputs = [f"{param}: {self.type(kind)}" for param, kind in signature["inputs"]]
        output = f" -> {self.type(signature['output'])}" if signature["output"] else ""
        params, where = self.generics(function["generics"])
        asynchronous = "async " if function["header"]["is_async"] else ""
        return f"{asynchronous}fn {name}{params}({', '.join(inputs)}){output}{where}"

    def add(self, place: str, text: str, item: dict[str, Any]) -> None:
        """Adds a line."""
        attributes = [str(a) for a in item.get("attrs", []) if "non_exhaustive" in str(a)]
        self.lines.add(f"{'#[non_exhaustive] ' if attributes else ''}{place}{text}")

    def module(self, item: dict[str, Any], place: str) -> None:
        """Lists what a module holds."""
        for number in item["inner"]["module"]["items"]:
            self.item(self.index[str(number)], place)

    def item(self, item: dict[str, Any], place: str, name: str = "") -> None:
        """Lists an item that is public."""
        if item["visibility"] != "public":
            return
        name = name or item["name"] or ""
        ((kind, inner),) = item["inner"].items()
        if kind == "use":
            found = self.index.get(str(inner["id"]))
            if found is None or found["crate_id"] != 0:
                self.add(place, f"use {inner['source']}", item)
            elif inner["is_glob"]:
                self.module(found, place)
            else:
                self.item(found, place, inner["name"])
        elif kind == "module":
            self.add(place, f"mod {name}", item)
            self.module(item, f"{place}{name}::")
        elif kind == "constant":
            self.add(place, f"const {name}: {self.type(inner['type'])}", item)
        elif kind == "function":
            self.add(place, self.function(name, inner), item)
        elif kind == "type_alias":
            self.add(
                place, f"type {name}{self.generics(inner['generics'])[0]} = {self.type(inner['type'])}", item
            )
        elif kind in {"struct", "enum", "trait"}:
            self.add(place, f"{kind} {name}", item)
            inside = f"{place}{name}::"
            fields = inner["kind"] if kind == "struct" else None
            if isinstance(fields, dict) and "plain" in fields:
                for number in fields["plain"]["fields"]:
                    field = self.index[str(number)]
                    if field["visibility"] == "public":
                        self.add(
                            inside, f"{field['name']}: {self.type(field['inner']['struct_field'])}", field
                        )
            for number in inner.get("variants", []):
                variant = self.index[str(number)]
                tuple_fields = variant["inner"]["variant"]["kind"]
                shape = "(..)" if isinstance(tuple_fields, dict) else ""
                self.add(inside, f"{variant['name']}{shape}", variant)
            for number in inner.get("items", []):
                method = self.index[str(number)]
                if "function" in method["inner"]:
                    self.add(inside, self.function(method["name"], method["inner"]["function"]), method)
            for number in inner.get("impls", inner.get("implementations", [])):
                self.implementation(self.index[str(number)], place + name)

    def implementation(self, item: dict[str, Any], name: str) -> None:
        """Lists an implementation: methods, or the trait."""
        inner = item["inner"]["impl"]
        if inner["is_synthetic"] or inner["blanket_impl"]:
            return
        if inner["trait"] is not None:
            self.lines.add(f"impl {self.path(inner['trait'])} for {self.type(inner['for']) or name}")
            return
        for number in inner["items"]:
            method = self.index[str(number)]
            if method["visibility"] == "public" and "function" in method["inner"]:
                self.add(f"{name}::", self.function(method["name"], method["inner"]["function"]), method)


def main() -> int:
    """Writes or compares the list."""
    crate = rustdoc()
    lister = Lister(crate)
    lister.module(crate["index"][str(crate["root"])], "mq9::")
    text = "\n".join(sorted(lister.lines)) + "\n"
    path = FOLDER / sys.argv[-1]
    if "--check" not in sys.argv:
        path.write_text(text, "utf-8")
        return 0
    known = path.read_text("utf-8") if path.exists() else ""
    diff = list(
        difflib.unified_diff(known.splitlines(), text.splitlines(), path.name, "now", lineterm="", n=0)
    )
    if diff:
        print("\n".join(diff), "\nthe public API differs from api.txt: `make api` writes it", file=sys.stderr)
    return int(bool(diff))


if __name__ == "__main__":
    sys.exit(main())
