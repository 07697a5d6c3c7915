"""Reads the weights of a model from files that people have, whatever program wrote them, and puts them into a model.

How a file is opened safely, and which of its mappings holds the weights, is the subject of `distillctl.weights`; here it is names:
prefixes, old names, and what to say when weights and model do not fit.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from distillctl.errors import DataError
from distillctl.text import counted
from distillctl.weights import find_in_file
from distillctl.weights.contents import Side, is_plain, not_plain
from distillctl.weights.renaming import COUNTER, WRAPPERS, Renaming, renamings

_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Buffers that are not part of a model: of programs that count operations, and of torch's `AveragedModel`."""

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads of GoogLeNet and Inception v3 that only their own training uses."""

_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
"""Names in files of older torchvision versions, and what they became."""


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """As `find_weights`, the tensors alone."""
    return find_weights(path)[0]


def find_weights(path: Path | str, key: str = "", side: Side = "student") -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a model in a file, by name, on the CPU, halves as float32; and notes on where in the file they were.

    Reads safetensors and torch files: bare state dicts; `{"model": …}`, `{"state_dict": …}` and the like; checkpoints of a whole
    distiller; our own checkpoints. Prefixes of wrappers are taken off the names, and `num_batches_tracked`, which files from before
    PyTorch 0.4.1 lack, is filled in with 0.

    key: where the weights are, if that is stated: `state_dict_ema`, `model.teacher`. side: whose weights are taken of a distiller's.

    Raises:
        DataError: no such file, not a file of weights, damaged, or holding objects that are not read.
    """
    found = find_in_file(Path(path), key, side)
    state = {name: value for name, value in found.tensors.items() if name.rpartition(".")[2] not in _COUNTERS}
    state, parts = _strip(state, side)
    state = {name: _to_float(value) for name, value in state.items()}
    for name in list(state):
        counter = name.removesuffix("running_var") + COUNTER
        if name.endswith("running_var") and counter not in state:
            state[counter] = torch.zeros((), dtype=torch.int64)
    notes = []
    if found.place and not key:
        beside = f", which also has {' and '.join(f'`{name}`' for name in found.others)}: `{side}.key` chooses" if found.others else ""
        notes.append(f"the weights are `{found.place}` of the file{beside}")
    if len(parts) > 1:
        notes.append(f"the weights are those of `{parts[0]}.` in the file, which also has `{parts[1]}.`: `{side}.key` chooses")
    return state, notes


def torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames what older torchvision versions called differently, and leaves out heads that only their training used."""
    return {_new_name(name): value for name, value in state.items() if not name.startswith(_AUXILIARY)}


def _new_name(name: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _strip(state: dict[str, Tensor], side: Side) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Takes wrappers off the names; of a distiller's parts that of the wanted side remains. The parts that there were, that one first."""
    found: tuple[str, ...] = ()
    changed = bool(state)  # of nothing, all names have every prefix
    while changed:
        changed = False
        for prefix in (f"{part}." for part in WRAPPERS):
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                changed = True
        order = ("teacher", "student") if side == "teacher" else ("student",)
        parts = [part for part in order if any(name.startswith(f"{part}.") for name in state)]
        for above in {} if parts else dict.fromkeys(name.partition(".")[0] for name in state):  # `model.teacher.` beside `model.student.`
            if all(any(name.startswith(f"{above}.{part}.") for name in state) for part in ("student", "teacher")):
                state, parts = {name.removeprefix(f"{above}."): value for name, value in state.items()}, list(order)
        if parts:
            front = f"{parts[0]}."
            other = "student" if parts[0] == "teacher" else "teacher"
            both = any(name.startswith(f"{other}.") for name in state)
            found = found or ((parts[0], other) if both else (parts[0],))
            state, changed = {name.removeprefix(front): value for name, value in state.items() if name.startswith(front)}, True
    return state, found


def _to_float(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() and value.element_size() < 4 else value


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    classifier: str = "",
    allow_new_classifier: bool = False,
    replaceable: Sequence[str] = (),
) -> list[str]:
    """Puts weights into a model: all of them, or none and an error.

    what: names the model in messages, such as "student `vgg8`".
    classifier: path of the model's last layer; if empty, the one module whose tensors differ only in the number of classes.
    allow_new_classifier: leave the classifier as it is where the file has none, or one for other classes.
    replaceable: paths of modules that are left as they are where the file has them in another shape.

    Returns:
        Notes on what was done to make them fit, each a sentence without a full stop.

    Raises:
        DataError: they do not fit, or are not finite; the message counts what is missing, unknown or of another shape.
    """
    target = model.state_dict()
    state, kept = _keep(state, target, replaceable)
    fitted, notes = _fit_names(state, target, classifier, body=allow_new_classifier, what=what)
    if allow_new_classifier:
        notes += _leave_out_classifier(fitted, target, classifier)
    notes += kept
    _check(fitted, target, what, classifier)
    ready = OrderedDict((name, fitted[name]) for name in target)
    # Versions of module layouts; some modules (MNASNet) refuse weights without. The names are today's by now.
    ready._metadata = target._metadata  # type: ignore[attr-defined]
    model.load_state_dict(ready)
    return notes


def _keep(state: Mapping[str, Tensor], target: Mapping[str, Tensor], modules: Sequence[str]) -> tuple[Mapping[str, Tensor], list[str]]:
    """The state with the model's own tensors in place of those of these modules that have another shape, and a note on each."""
    own = {
        name: target[name]
        for name in target
        if name.rpartition(".")[0] in modules and name in state and state[name].shape != target[name].shape
    }
    return {**state, **own}, [
        f"the file's `{name}` of shape {tuple(state[name].shape)} was left out for the own of {tuple(value.shape)}, which starts untrained"
        for name, value in own.items()
    ]


def _fit_names(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], classifier: str, *, body: bool, what: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the model's names, as far as that is certain. body: the classifier may be missing or of another shape.

    Raises:
        DataError: two sets of weights in the file fit.
    """
    ways, own = renamings(state, target, classifier), f"{classifier}."
    headless = not ways and body and classifier
    if headless:
        ways = renamings(state, {name: value for name, value in target.items() if not name.startswith(own)}, "")
    if len(ways) > 1:
        one, other, *_ = (f"`{way.prefix}`" for way in ways)
        raise DataError(
            f"two sets of weights in the file fit {what}: those whose names begin with {one} and those with {other}",
            hint="`key` beside `checkpoint` says which: the part of the names before the model's own",
        )
    if not ways:
        result, notes = dict(state), []
    else:
        (way,) = ways
        result = {name: state[there] for name, there in way.names.items()}
        if headless:  # what the file has in place of the classifier, of which more is to be said
            rest = [name for name in way.left_out if name.startswith(way.prefix + own)]
            result |= {name.removeprefix(way.prefix): state[name] for name in rest}
            way = replace(way, left_out=tuple(name for name in way.left_out if name not in rest))
        notes = _notes(way, classifier)
    for name in [name for name in result if name not in target]:
        if (new := _new_name(name)) in target and new not in result:
            result[new] = result.pop(name)
        elif name.startswith(_AUXILIARY) or name.endswith(COUNTER):
            del result[name]
    for name in target:
        if name.endswith(COUNTER):
            result.setdefault(name, torch.zeros_like(target[name]))
    return result, notes


def _notes(way: Renaming, classifier: str) -> list[str]:
    """What was done to the names, and what was left out."""
    notes = [f"the prefix `{way.prefix}` was taken off the names of the file"] if way.prefix else []
    heads = {there.rpartition(".")[0] for name, there in way.names.items() if classifier and name.startswith(f"{classifier}.")}
    notes += [f"the file's `{place}` is the classifier `{classifier}`" for place in heads if not f".{place}".endswith(f".{classifier}")]
    if rest := [name for name in way.left_out if not name.startswith(_AUXILIARY)]:
        were = "was" if len(rest) == 1 else "were"
        notes.append(f"{counted(len(rest), 'tensor')} of the file that the model does not have {were} left out (first `{rest[0]}`)")
    return notes


def _leave_out_classifier(state: dict[str, Tensor], target: Mapping[str, Tensor], classifier: str) -> list[str]:
    """Replaces the classifier's tensors in `state` by the model's own where they do not fit."""
    if not classifier:
        owners = {name.rpartition(".")[0] for name in target if name in state and state[name].shape != target[name].shape}
        classifier = owners.pop() if len(owners) == 1 else ""
        if not classifier or not _only_classes_differ(state, target, classifier):
            return []
    prefix = classifier + "."
    own = [name for name in target if name.startswith(prefix)]
    if all(name in state and state[name].shape == target[name].shape for name in own):
        return []
    others = [name for name in state if name.startswith(prefix)]
    weight = state.get(prefix + "weight")
    for name in others:
        del state[name]
    state.update({name: target[name] for name in own})
    if not others:
        return [f"the file has no classifier `{classifier}`: it starts untrained"]
    classes = f" for {weight.shape[0]} classes" if weight is not None and weight.ndim else ""
    return [f"the file's classifier `{classifier}`{classes} was left out: it starts untrained"]


def _only_classes_differ(state: Mapping[str, Tensor], target: Mapping[str, Tensor], classifier: str) -> bool:
    own = [name for name in target if name.startswith(classifier + ".")]
    return bool(own) and all(name in state and state[name].ndim and state[name].shape[1:] == target[name].shape[1:] for name in own)


def _check(state: Mapping[str, Tensor], target: Mapping[str, Tensor], what: str, classifier: str) -> None:
    missing = [name for name in target if name not in state]
    unknown = [name for name in state if name not in target]
    different = [name for name in target if name in state and state[name].shape != target[name].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of its {len(target)} tensors are missing (first `{missing[0]}`)")
    if unknown:
        problems.append(f"{len(unknown)} of the file's are unknown to it (first `{unknown[0]}`)")
    if different:
        shapes = f"{tuple(state[different[0]].shape)} in the file, {tuple(target[different[0]].shape)} in the model"
        problems.append(f"{len(different)} {'has' if len(different) == 1 else 'have'} another shape (first `{different[0]}`: {shapes})")
    if problems:
        raise DataError(
            f"the weights do not fit {what}: {', '.join(problems)}", hint=_hint(state, target, missing, unknown, different, classifier)
        )
    odd = next((name for name in target if not _fits(state[name], target[name])), None)
    if odd is not None:
        raise not_plain(f"for {what} are not all plain numbers that it can take", f"`{odd}`", state[odd])
    wild = next((name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()), None)
    if wild is not None:
        raise DataError(f"the weights for {what} are not all finite numbers (first `{wild}`)", hint="the run that wrote them diverged")


def _fits(value: Tensor, target: Tensor) -> bool:
    """Whether a tensor can be copied without loss of meaning: integers would pass for weights, and complex ones lose a part."""
    return is_plain(value) and (value.is_floating_point() if target.is_floating_point() else not value.is_complex())


def _hint(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], missing: list[str], unknown: list[str], different: list[str], classifier: str
) -> str:
    """What is probably the matter."""
    owner = classifier or (different[0].rpartition(".")[0] if different else "")
    if not missing and not unknown and _only_classes_differ(state, target, owner) and all(n.startswith(owner + ".") for n in different):
        made = f"the file was made for {state[different[0]].shape[0]} classes, the model has {target[different[0]].shape[0]}"
        return f"{made}: train it on these first, by a profile whose [student] starts from the file, which leaves out its classifier"
    for here, there, text in ((unknown, missing, "taken off the file's names"), (missing, unknown, "put before the file's names")):
        wanted = set(there)
        dots = ((name, dot.end()) for name in here for dot in re.finditer(r"\.", name))
        prefixes = Counter(name[:at] for name, at in dots if name[at:] in wanted)
        for prefix, count in prefixes.most_common(1):
            if 2 * count > max(len(here), len(there)):
                return f"{count} of {len(there)} names would match with the prefix `{prefix}` {text}"
    real = [name for name in target if not name.endswith(COUNTER)]  # counters are filled in and fit anything
    fitting = sum(name in state and state[name].shape == target[name].shape for name in real)
    return "" if 2 * fitting > len(real) else f"are they of another architecture? {fitting} of {len(real)} tensors fit"
