"""Plain values as YAML that people can read: strings are quoted, keys are not."""

import json
from typing import Any


def to_yaml(value: Any, indent: int = 0) -> str:
    """Lines of block YAML for mappings, lists and scalars."""
    lines: list[str] = []
    pad = " " * indent
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner and isinstance(inner, dict | list):
                lines += [f"{pad}{key}:", to_yaml(inner, indent + 2).rstrip("\n")]
            else:
                lines.append(f"{pad}{key}: {json.dumps(inner, ensure_ascii=False)}")
    else:
        for inner in value:
            if inner and isinstance(inner, dict | list):
                lines.append(f"{pad}- {to_yaml(inner, indent + 2).strip()}")
            else:
                lines.append(f"{pad}- {json.dumps(inner, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
