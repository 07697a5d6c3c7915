"""What an analysis leaves: tables as CSV, everything as JSON, pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from distillctl_tracin import ranks
from distillctl_tracin.request import Request
from distillctl_tracin.trace import FILE, Network, Traced

MOST_PAIRS = 1_000_000
"""Lines of `influence.csv`; of more pairs there are the arrays alone."""


def summary(traced: Traced, request: Request) -> dict[str, Any]:
    """For JSON: what was asked, what each network gave, the comparison as means over the training images, and a line for each of them."""
    pool, classes = len(traced.test), traced.run.run.task.data.classes
    return {
        **{key: _network(network) for key, network in traced.networks.items()},
        "layers": list(request.layers),
        "project": request.project,
        "split": traced.split,
        "test_images": pool,
        "notes": list(traced.notes),
        **({} if traced.other is None else {"overlap": overlap_rows(traced), "correlation": correlations(traced)}),
        "images": [
            {
                "train": index,
                "class": classes[label] if classes else label,
                **({} if traced.other is None else _likeness(traced, number)),
            }
            for number, (index, label) in enumerate(zip(traced.train, traced.labels[0], strict=True))
        ],
    }


def _network(network: Network) -> dict[str, Any]:
    return {
        "path": str(network.run.path),
        "model": network.run.spec.qualified,
        "rates": {str(epoch): rate for epoch, rate in network.rates.items()},
        "parameters": network.parameters,
        "seconds": round(network.seconds, 3),
        "ms_per_value": network.milliseconds,
        "epochs": {key: value for key, value in epoch_figures(network).items() if value is not None},
    }


def epoch_figures(network: Network) -> Mapping[str, float | None]:
    """Of the last checkpoint's epoch: the task's metric on training and evaluated images; and mean seconds of training and evaluation."""
    run, last = network.run, max(network.rates)
    metric, line = run.task.metric, run.records[last]
    evaluated = line.get("val") or line.get("test") or {}

    def seconds(key: str) -> float | None:
        found = [record[key] for record in run.records.values() if record.get(key)]
        return mean(found) if found else None

    return {
        "train": line.get(f"train_{metric}"),
        "val" if "val" in line else "test": evaluated.get(metric),
        "train_seconds": seconds("train_seconds"),
        "evaluation_seconds": seconds("evaluation_seconds"),
    }


def overlap_rows(traced: Traced) -> list[dict[str, Any]]:
    """A line for each k: means over the training images beside what chance gives for one, and how many are above or below its interval."""
    rows, pool = [], len(traced.test)
    for overlaps in zip(*(one.overlaps for one in traced.likeness), strict=True):
        law, scores = ranks.chance(overlaps[0].k, pool), [found.z(pool) for found in overlaps]
        rows.append(
            {
                "k": overlaps[0].k,
                "proponents": mean(found.proponents for found in overlaps),
                "opponents": mean(found.opponents for found in overlaps),
                "chance": law.expected,
                "chance_low": law.low,
                "chance_high": law.high,
                "z": None if None in scores else mean(score for score in scores if score is not None),
                "jaccard": mean(found.jaccard() for found in overlaps),
                "above": sum(found.proponents > law.high for found in overlaps),
                "below": sum(found.proponents < law.low for found in overlaps),
            }
        )
    return rows


def correlations(traced: Traced) -> dict[str, float | None]:
    """Means over the training images."""

    def middle(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if known else None

    return {
        "spearman": middle([one.spearman for one in traced.likeness]),
        "kendall": middle([one.kendall for one in traced.likeness]),
        "rank_biased_overlap": middle([one.rank_biased for one in traced.likeness]),
        "rank_biased_overlap_chance": ranks.rank_biased_by_chance(len(traced.test)),
    }


def _likeness(traced: Traced, number: int) -> dict[str, Any]:
    one, pool = traced.likeness[number], len(traced.test)
    return {
        "spearman": one.spearman,
        "kendall": one.kendall,
        "rank_biased_overlap": one.rank_biased,
        "overlap": [
            {"k": o.k, "proponents": o.proponents, "opponents": o.opponents, "z": o.z(pool), "jaccard": o.jaccard()} for o in one.overlaps
        ],
    }


def write_files(out: Path, traced: Traced, request: Request) -> list[str]:
    """Writes tables and JSON; names of all files that are there then."""
    found = summary(traced, request)
    (out / "tracin.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    names = [*(FILE[key] for key in traced.networks), "tracin.json"]
    if traced.run.values.size <= MOST_PAIRS:
        _write(out / "influence.csv", ["train", "train_label", traced.split, f"{traced.split}_label", *traced.networks], _pairs(traced))
        names.append("influence.csv")
    if traced.other is not None:
        pool, head = len(traced.test), ["train", "k", "proponents", "opponents", "chance", "chance_low", "chance_high", "z", "jaccard"]
        lines = []
        for index, one in zip(traced.train, traced.likeness, strict=True):
            for o in one.overlaps:
                law = ranks.chance(o.k, pool)
                lines.append([index, o.k, o.proponents, o.opponents, law.expected, law.low, law.high, o.z(pool), o.jaccard()])
        _write(out / "overlap.csv", head, lines)
        names.append("overlap.csv")
    return names


def _pairs(traced: Traced) -> Any:
    arrays = [network.values for network in traced.networks.values()]
    for i, (train, train_label) in enumerate(zip(traced.train, traced.labels[0], strict=True)):
        for j, (test, test_label) in enumerate(zip(traced.test, traced.labels[1], strict=True)):
            yield [train, train_label, test, test_label, *(values[i, j] for values in arrays)]


def _write(path: Path, head: Sequence[str], lines: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)
