"""timm's pretrained weights: what their configurations say, and the files on this machine. Nothing here uses the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from distillctl import DataError, Options, cache_folder
from distillctl_timm.table import DEFAULT

_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a repository of the hub may hold, the better one first."""


def tags(name: str) -> list[str]:
    """The names of a network's weights, timm's default first."""
    found = [tag for known in timm.list_pretrained(f"{name}.*") for arch, _, tag in [known.partition(".")] if arch == name]
    first = getattr(get_pretrained_cfg(name), "tag", None)
    return sorted(found, key=lambda tag: (tag != first, tag))


def described(name: str) -> dict[str, list[Any]]:
    """Tag → mean, std, size, crop, interpolation and licence of its weights, timm's default first."""
    rows: dict[str, list[Any]] = {}
    for tag in tags(name):
        cfg = _configuration(name, tag)
        rows[tag] = [list(cfg.mean), list(cfg.std), cfg.input_size[-1], cfg.crop_pct, cfg.interpolation, cfg.license or ""]
    return rows


def _configuration(name: str, tag: str) -> Any:
    """What timm knows of these weights; they are among its tags."""
    return get_pretrained_cfg(f"{name}.{tag}")


def load_weights(name: str, weights: str, options: Options | None = None) -> dict[str, Tensor]:
    """The state dict of pretrained weights, in the layout of the installed timm.

    name: a network of timm. weights: a tag of it, or `default` for the first of its tags. options: of the network that the weights are
    for: with an `image_size`, timm resamples position embeddings.

    Raises:
        DataError: timm knows no such weights; or their file is not on this machine (the hint says where it belongs); or it is damaged.
    """
    known = tags(name)
    tag = known[0] if weights == DEFAULT and known else weights
    if tag not in known:
        hint = f"timm {timm.__version__} has {', '.join(known)}" if known else "name a file by `checkpoint`"
        raise DataError(f"`{name}` has no weights called `{weights}`", hint=hint)
    path = file_of(name, tag)
    try:
        # By timm itself, which knows the layouts of older files and of their authors.
        source: dict[str, Any] = {"pretrained_cfg": tag, "pretrained_cfg_overlay": {"file": str(path)}}
        model = timm.create_model(name, pretrained=True, img_size=getattr(options, "image_size", None), **source)
    except Exception as error:  # torch's, safetensors' and timm's readers raise whatever they stumble over
        raise DataError(f"the weights `{tag}` of `{name}` cannot be read: {error}", where=str(path)) from error
    return dict(model.state_dict())


def file_of(name: str, tag: str) -> Path:
    """The file of these weights, in our own folder, the cache of the Hugging Face hub, or torch's.

    Raises:
        DataError: it is in none of them.
    """
    from huggingface_hub import try_to_load_from_cache

    cfg = _configuration(name, tag)
    ours = (cache_folder() or Path(".distillctl")) / "timm"
    places = [ours / f"{name}.{tag}{ending}" for ending in (".safetensors", ".pth", ".bin")]
    hub = str(cfg.hf_hub_id or "")
    if hub:
        names = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else _FILES
        cached = [try_to_load_from_cache(hub, file) for file in names]
        places += [Path(file) for file in cached if isinstance(file, str)]
    elif cfg.url:
        places.append(Path(torch.hub.get_dir(), "checkpoints", cfg.url.rpartition("/")[2]))
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        get = f"`hf download {hub} {_FILES[0]}` fetches it where there is a network" if hub else f"it is published at {cfg.url}"
        raise DataError(
            f"the weights `{tag}` of `{name}` are not on this machine, and nothing is downloaded",
            hint=f"{get}; or put its file at {places[0]}",
        )
    return found
