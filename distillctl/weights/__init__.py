"""Opens files of weights that anybody may have made, without ever building an object that a file describes.

`opening` looks at the first bytes; `safetensors_files` reads what has no pickle in it; `torch_files` lets torch read its own files, after
`claims` has compared what they claim with what they have. `contents` finds the mapping that holds the weights, and `state_dict`
knows the names that programs give them.
"""

from __future__ import annotations

from distillctl.weights.opening import open_file
from distillctl.weights.reading import read_file

__all__ = ["open_file", "read_file"]
