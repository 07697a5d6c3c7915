"""Finds under which names a file has the tensors of a model, if there is only one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

WRAPPERS = ("module", "_orig_mod")
"""Parts that `DataParallel` and `torch.compile` put into names, in front or in the middle."""
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Renaming:
    """names: those of the model → those of the file. prefix: what stands before the names in the file. left_out: names of other tensors."""

    names: Mapping[str, str]
    prefix: str
    left_out: tuple[str, ...]


def renamings(state: Mapping[str, Tensor], target: Mapping[str, Tensor], classifier: str) -> list[Renaming]:
    """Every way to find all tensors of a model in a file, each with its shape; ways that lead to equal numbers are one.

    The names may have something in front, or lack what the model has in front of all of its own; `module` and `_orig_mod` may stand
    anywhere; the classifier may have another name, if only one module of the file could be it. Tensors beside them are left out, but not
    where they belong to modules that the model has too: then the file is of a larger model.
    """
    found: list[Renaming] = []
    for known in _spellings(state):
        for way in _ways(known, state, target, classifier):
            if not any(_equal(way, other, state) for other in found):
                found.append(way)
        if found:
            break
    return found


def _spellings(state: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """The names of the file as they are, and without the parts that wrappers put in."""
    yield {name: name for name in state}
    short = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in state}
    if len(short) == len(state) and short.keys() != state.keys():
        yield short


def _ways(known: Mapping[str, str], state: Mapping[str, Tensor], target: Mapping[str, Tensor], classifier: str) -> Iterator[Renaming]:
    needed = [name for name in target if not name.endswith(COUNTER)]
    head = [name for name in needed if classifier and name.startswith(f"{classifier}.")]
    body = [name for name in needed if name not in head]
    if not body:
        return
    longest = max(body, key=len)
    front = f"{body[0].partition('.')[0]}."
    for own in ("", front if all(name.startswith(front) for name in target) else ""):
        tail = longest[len(own) :]
        for prefix in [name[: -len(tail)] for name in known if name == tail or name.endswith(f".{tail}")]:
            names = {name: prefix + name[len(own) :] for name in target}
            if not all(_fits(known, names[name], state, target[name]) for name in body):
                continue
            if not all(_fits(known, names[name], state, target[name]) for name in head):
                if (place := _head(known, state, target, head, classifier, {names[name] for name in body})) is None:
                    continue
                names |= {name: f"{place}.{name.removeprefix(f'{classifier}.')}" for name in head}
            used = {name: names[name] for name in target if names[name] in known}
            rest = [name for name in known if name not in used.values() and not name.endswith(COUNTER)]
            parts = {name[len(own) :].partition(".")[0] for name in body}
            if not any(name.startswith(prefix) and name[len(prefix) :].partition(".")[0] in parts for name in rest):
                yield Renaming({name: known[there] for name, there in used.items()}, prefix, tuple(known[name] for name in rest))


def _fits(known: Mapping[str, str], name: str, state: Mapping[str, Tensor], target: Tensor) -> bool:
    return name in known and state[known[name]].shape == target.shape


def _head(
    known: Mapping[str, str], state: Mapping[str, Tensor], target: Mapping[str, Tensor], head: list[str], classifier: str, taken: set[str]
) -> str | None:
    """The one module of the file that has the tensors of the classifier."""
    leaves = {name.removeprefix(f"{classifier}."): target[name] for name in head}
    first = next(iter(leaves))
    places = [name.removesuffix(f".{first}") for name in known if name.endswith(f".{first}") and name not in taken]
    fitting = [place for place in places if all(_fits(known, f"{place}.{leaf}", state, value) for leaf, value in leaves.items())]
    return fitting[0] if len(fitting) == 1 else None


def _equal(one: Renaming, other: Renaming, state: Mapping[str, Tensor]) -> bool:
    return one.names.keys() == other.names.keys() and all(
        there == other.names[name] or torch.equal(state[there], state[other.names[name]]) for name, there in one.names.items()
    )
