"""Opens files of weights that anybody may have made, without ever building an object that a file describes.

`opening` looks at the first bytes; `safetensors_files` reads what has no pickle in it. A torch file is opened by a process of its own
(`child`, with limits on memory, time and what it may write), which takes the weights out of whatever mapping holds them
(`torch_files`, `contents`) and writes them as safetensors; `conversion` reads those and keeps them in the cache.
"""

from __future__ import annotations

from distillctl.weights.opening import open_file
from distillctl.weights.reading import read_file

__all__ = ["open_file", "read_file"]
