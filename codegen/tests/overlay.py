"""The real protocol with the nasty cases of the toy specification on top, for targets that need the real one.

All prose gets nasty prose appended, and the toy's operations, types, headers, codes and limits come along.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

NASTY = (
    'With */ and <T> and `Vec<T>` and {@x} and %s and "q" and \'\'\' and """ and /// and \\ and \\N'
    " and ${x} and {{ x }} and 漢字 and a ` too."
)


def _prose(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key in ("vectors", "call", "request", "reply", "result", "values", "codes"):
            return (
                value
                if key != "values"
                else {k: {**v, "doc": f"{v['doc']} {NASTY}"} for k, v in value.items()}
            )
        return {name: _prose(item, name) for name, item in value.items()}
    if isinstance(value, str) and key in ("doc", "summary", "deprecated"):
        return f"{value.strip()} {NASTY}"
    return value


def _read(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)


def _translate(text: str) -> str:
    text = text.replace("$toy.", "$mq9.AI.").replace("toy-", "mq9-")
    text = re.sub(r"retry: dedup", "retry: always", text)
    text = re.sub(r'since: "2\.[03]"', 'since: "1.0"', text)
    text = re.sub(r"\b(SDK|A|B|IMPORT|YIELD)-001", r"TOY\1-001", text)
    # A type that the real protocol's generated code has another meaning for.
    return text.replace("type: object,", "type: toy_object,").replace("list<object>", "list<toy_object>")


def overlay(real: Path, toy: Path, out: Path) -> Path:
    """Writes the mixed specification to `out`."""
    shutil.copytree(real, out, ignore=shutil.ignore_patterns("released"))
    for path in [*out.glob("*.yaml"), *out.glob("operations/*.yaml")]:
        _write(path, _prose(_read(path)))
    for path in toy.glob("operations/*.yaml"):
        (out / "operations" / path.name).write_text(_translate(path.read_text("utf-8")), "utf-8")
    types, extra = (
        _read(out / "types.yaml"),
        yaml.safe_load(_translate((toy / "types.yaml").read_text("utf-8"))),
    )
    extra["objects"]["toy_object"] = extra["objects"].pop("object")
    for section in ("scalars", "enums", "objects"):
        types[section] = {**extra[section], **types[section]}
    _write(out / "types.yaml", types)
    headers = _read(out / "headers.yaml")
    headers["sent"] |= yaml.safe_load(_translate((toy / "headers.yaml").read_text("utf-8")))["sent"]
    _write(out / "headers.yaml", headers)
    errors, more = _read(out / "errors.yaml"), _read(toy / "errors.yaml")
    errors["codes"] |= {name: code for name, code in more["codes"].items() if name not in errors["codes"]}
    errors["classify"] += more["classify"]
    _write(out / "errors.yaml", errors)
    _write(out / "limits.yaml", {**_read(out / "limits.yaml"), **_read(toy / "limits.yaml")})
    requirements = _read(out / "requirements.yaml")
    requirements["requirements"] |= {
        "TOYA-001": {"level": "MUST", "by": "broker", "text": "*/ <T> | a."},
        "TOYSDK-001": {"level": "MUST", "by": "sdk", "text": "Nasty."},
    }
    _write(out / "requirements.yaml", requirements)
    return out


def _write(path: Path, data: Any) -> None:
    text = yaml.dump(data, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False, width=1000)
    path.write_text(text, "utf-8")
