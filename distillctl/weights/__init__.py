"""Opens files of weights that anybody may have made, without ever building an object that a file describes.

`opening` looks at the first bytes; `safetensors_files` reads what has no pickle in it; `torch_files` lets torch read its own files, after
`claims` has compared what they claim with what they have. `contents` finds the mapping that holds the weights, and `state_dict`
knows the names that programs give them.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from distillctl.errors import DataError
from distillctl.weights import safetensors_files, torch_files
from distillctl.weights.contents import Found, Side, shown, weights_in
from distillctl.weights.opening import is_safetensors

_NAME_LENGTH = 1000
"""Characters in the name of a tensor; modules nested thirty deep need 300."""


def read_file(path: Path) -> dict[str, Tensor]:
    """As `find_in_file`, the weights alone."""
    return find_in_file(path).tensors


def find_in_file(path: Path, key: str = "", side: Side = "student") -> Found:
    """The weights in a safetensors or torch file by name, dense and on the CPU, in the file's order and numeric types.

    key, side: which, where there are several; see `contents.weights_in`.

    Raises:
        DataError: no such file, not a file of weights, damaged, or holding objects that are not read.
    """
    found = weights_in(safetensors_files.read(path), path, key, side) if is_safetensors(path) else torch_files.read(path, key, side)
    for name in found.tensors:
        # Names stand in messages: one that moves the cursor of a terminal must not get there.
        if not name.isprintable() or len(name) > _NAME_LENGTH:
            raise DataError(f"`{path}` holds a tensor whose name is not plain text: {shown(name)}", hint="is the file damaged?")
    return found
