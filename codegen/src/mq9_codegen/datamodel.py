"""Python models by datamodel-code-generator, from the JSON Schemas of the resolved model, in memory."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from mq9_codegen.model import Spec
from mq9_codegen.names import cased
from mq9_codegen.problems import SpecError
from mq9_codegen.schemas import Options, models_schema
from mq9_codegen.target import Target

_OUTPUTS = {"struct": "msgspec.Struct", "dataclass": "dataclasses.dataclass"}


def render_models(spec: Spec, target: Target, options: Mapping[str, Any]) -> str:
    """Renders models.

    Args:
        spec: The protocol.
        target: The target, for messages about wrong options.
        options: `models` (see `schemas.models_schema`), `output` (`struct` or `dataclass`), `bounds`, `docs`, `nullable` (booleans), `base_class`
            (a dotted name), `doc` (the module's docstring).
    """
    known = {"models", "output", "bounds", "docs", "nullable", "base_class", "doc", "extra"}
    for key in options:
        if key not in known:
            raise SpecError(
                [
                    target.document.problem(
                        ("files",),
                        f"unknown option '{key}' of the renderer datamodel",
                        "one of " + ", ".join(sorted(known)),
                    )
                ]
            )
    schema = models_schema(
        spec,
        options.get("models", "objects"),
        Options(options.get("bounds", False), options.get("docs", True), options.get("nullable", True)),
    )
    schema["$defs"] = {cased(name, "pascal"): body for name, body in schema["$defs"].items()}
    text = re.sub(
        r'"#/\$defs/([a-z0-9_]+)"', lambda m: f'"#/$defs/{cased(m.group(1), "pascal")}"', json.dumps(schema)
    )
    body = _generate(text, options.get("output", "struct"), options.get("base_class", ""))
    doc = options.get("doc", "Models of the protocol.")
    return f'"""{doc}"""\n\n{body}'


@functools.cache
def _generate(schema: str, output: str, base_class: str) -> str:
    import datamodel_code_generator as generator  # noqa: PLC0415 - costs time that only this renderer has to pay
    from datamodel_code_generator.enums import DataModelType, InputFileType  # noqa: PLC0415
    from datamodel_code_generator.format import Formatter, PythonVersion  # noqa: PLC0415

    extra: dict[str, Any] = {}
    if base_class:
        extra["base_class"] = base_class
    if output == "dataclass":
        extra["dataclass_arguments"] = {"frozen": True, "slots": True, "kw_only": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = generator.generate(
            schema,
            input_file_type=InputFileType.JsonSchema,
            input_filename="spec",
            output_model_type=DataModelType(_OUTPUTS[output]),
            target_python_version=PythonVersion.PY_310,
            disable_timestamp=True,
            use_standard_collections=True,
            use_union_operator=True,
            use_schema_description=True,
            use_field_description=False,
            use_title_as_name=False,
            use_annotated=True,
            snake_case_field=False,
            custom_file_header="",
            skip_root_model=True,
            formatters=[Formatter.RUFF_FORMAT, Formatter.RUFF_CHECK],
            **extra,
        )
    if not isinstance(result, str):
        raise TypeError("datamodel-code-generator wrote more than one module")
    return result.strip("\n") + "\n"
