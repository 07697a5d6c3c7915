"""`TrackerContract`: what every tracker must keep.

class TestNotebook(TrackerContract):
spec = "notebook"            # as it is registered
options = {"path": "notes.txt"}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from distillctl.api.tracker import RunStart, StepReport, Tracker
from distillctl.plugin.registry import Registry, load_class
from distillctl.testing.cases import options_of
from distillctl.testing.tensors import make_task

_MAIN: dict[str, Any] = {
    "phase": "main",
    "lr": 0.05,
    "total": 2.5,
    "terms": {"task": 2.0, "kd": 0.5},
    "train_top1": 0.4,
    "methods": {},
    "images_per_second": 100.0,
    "seconds": 2.0,
}
RECORDS: Sequence[Mapping[str, Any]] = (
    {
        "phase": "ft.paraphraser",
        "epoch": 1,
        "lr": 0.1,
        "total": 1.5,
        "terms": {"ft.paraphraser": 1.5},
        "methods": {},
        "images_per_second": 200.0,
        "seconds": 1.0,
    },
    {**_MAIN, "epoch": 1, "val": {"top1": 0.5, "top5": 1.0, "mpa": 0.5, "loss": 1.25, "count": 20}},
    {**_MAIN, "epoch": 2, "val": {"top1": 0.75, "top5": 1.0, "mpa": 0.75, "loss": 1.0, "count": 20}},
)
"""Lines of `metrics.jsonl`: an epoch of a phase, and two of the main part."""
REPORT = StepReport("main", 1, 3, 9, 2.5, {"task": 2.0, "kd": 0.5}, {"top1": 0.25}, 300, 50.0, 0.05)


class TrackerContract:
    """Inherit from it, name it `Test…` and set `spec`.

    spec: the tracker's name, registered by an installed package.
    options: values of its options.
    """

    spec: ClassVar[str]
    options: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture
    def tracker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
        """A new tracker, in a folder of its own."""
        monkeypatch.chdir(tmp_path)
        return self.build()

    def build(self) -> Tracker:
        """A tracker, as a run builds it."""
        spec = Registry.load().trackers.get(self.spec)
        return load_class(spec, Tracker, "tracker")(options_of(spec, **self.options))

    def start(self, folder: Path, finished: int = 0) -> RunStart:
        """A run of three epochs, some of which are finished."""
        folder.mkdir(parents=True, exist_ok=True)
        task, parts, records = make_task(), (("ft.paraphraser", 1), ("main", 2)), RECORDS[:finished]
        resolved = {"seed": 0, "method": {"name": "kd"}}
        return RunStart(
            folder,
            "quickstart",
            resolved,
            "digits",
            "resnet8",
            "kd",
            parts,
            9,
            "cpu",
            task.metric,
            task.names,
            task.show,
            records,
            "0123456789abcdef",
        )

    def whole_run(self, tracker: Tracker, folder: Path, finished: int = 0) -> None:
        """All that a run tells, from its beginning or from where it goes on."""
        tracker.note("teacher: digits_teacher.toml")
        tracker.teacher("test", {"top1": 0.9, "top5": 1.0, "mpa": 0.9, "loss": 0.3, "count": 20}, "90.00%")
        tracker.begin(self.start(folder, finished))
        for record in RECORDS[finished:]:
            tracker.batch(replace(REPORT, part=record["phase"], epoch=record["epoch"]))
            tracker.epoch(record)
        tracker.end({"split": "test", "chosen_on": "val", "best": {"epoch": 2, "top1": 0.75}})
        tracker.close()

    def test_a_whole_run(self, tracker: Tracker, tmp_path: Path) -> None:
        """Every call works, phases and evaluations included."""
        self.whole_run(tracker, tmp_path / "run")

    def test_a_run_that_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that was stopped goes on with another tracker, which gets the records of before."""
        monkeypatch.chdir(tmp_path)
        first = self.build()
        first.begin(self.start(tmp_path / "run"))
        first.epoch(RECORDS[0])
        first.close()
        self.whole_run(self.build(), tmp_path / "run", finished=1)

    def test_a_run_that_fails_at_once(self, tracker: Tracker) -> None:
        """`close` is the last call, even if nothing came before it."""
        tracker.close()

    def test_it_changes_nothing(self, tracker: Tracker, tmp_path: Path) -> None:
        """Neither what it is handed nor the state of the generators."""
        before, state = copy.deepcopy(RECORDS), torch.get_rng_state()
        self.whole_run(tracker, tmp_path / "run")
        assert before == RECORDS, "a record was changed"
        assert torch.equal(torch.get_rng_state(), state), "it draws from the generator of the run"
