"""Writes `distillctl_timm/models.json`, what the package knows of timm's networks without importing timm:

    uv run python plugins/distillctl-timm/tests/make_table.py

It takes ten minutes: every network is built once, without values. `test_timm_table.py` compares samples with the installed timm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from distillctl_timm.anatomy import anatomy
from distillctl_timm.pretrained import described

TABLE = Path(__file__).parents[1] / "distillctl_timm" / "models.json"


def table(names: list[str]) -> dict[str, Any]:
    """The table of these networks; what is the same for many stands once, in a list, and is named by its place there."""
    stages: list[Any] = []
    inputs: list[Any] = []
    models: dict[str, Any] = {}
    for name in names:
        try:
            found = anatomy(name)
        except ValueError as error:
            print(error)
            continue
        weights = {tag: place(inputs, row) for tag, row in described(name).items()}
        models[name] = [place(stages, dict(found.stages)), found.classifier, found.parameters, found.size, int(found.fixed), weights]
    return {"timm": timm.__version__, "stages": stages, "inputs": inputs, "models": models}


def place(rows: list[Any], row: Any) -> int:
    """Where a row stands, put there if it is new."""
    if row not in rows:
        rows.append(row)
    return rows.index(row)


def text(data: dict[str, Any]) -> str:
    """One line for each network, so that a change of one is seen as that."""
    parts = [f'"timm": {json.dumps(data["timm"])}']
    for key, (opening, closing) in (("stages", "[]"), ("inputs", "[]"), ("models", "{}")):
        value = data[key]
        rows = value if opening == "[" else [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in value.items()]
        lines = ",\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        parts.append(f'"{key}": {opening}\n{lines}\n{closing}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(text(table(timm.list_models())), encoding="utf-8")
    print(f"{TABLE} written")
