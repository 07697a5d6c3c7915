"""The files are read back by TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillctl.testing import TrackerContract
from distillctl.testing.trackers import RECORDS, REPORT


class TestContract(TrackerContract):
    spec = "tensorboard"


def read(folder: Path) -> Mapping[str, list[tuple[int, float]]]:
    """Name → (step, value) of all that is valid."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {name: [(event.step, event.value) for event in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def test_a_whole_run_is_read_back(tmp_path):
    contract = TestContract()
    contract.whole_run(contract.build(), tmp_path)
    found = read(tmp_path / "tensorboard")
    assert found["val/top1"] == [(18, 0.5), (27, 0.75)]
    assert found["terms/ft.paraphraser"] == [(9, 1.5)]
    assert found["step/total"] == [(3, 2.5), (12, 2.5), (21, 2.5)]  # the third of nine batches of each epoch
    assert [value for _, value in found["epoch"]] == pytest.approx([1 / 3, 1, 4 / 3, 2, 7 / 3, 3])
    assert found["result/best/top1"] == [(27, 0.75)]
    assert [step for step, _ in found["teacher/top1"]] == [27]
    text = EventAccumulator(str(tmp_path / "tensorboard"))
    text.Reload()
    assert "| method.name | `kd` |" in text.Tensors("profile/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_run_that_goes_on_has_every_epoch_once(tmp_path):
    """It was killed in its third epoch, and its second was not told."""
    contract = TestContract()
    straight = contract.build()
    contract.whole_run(straight, tmp_path / "straight")
    first = contract.build()
    first.begin(contract.start(tmp_path / "stopped"))
    first.batch(replace(REPORT, part="ft.paraphraser"))
    first.epoch(RECORDS[0])
    first.batch(REPORT)
    first.batch(replace(REPORT, epoch=2))
    contract.whole_run(contract.build(), tmp_path / "stopped", finished=2)
    contract.whole_run(contract.build(), tmp_path / "stopped", finished=2)
    assert read(tmp_path / "stopped" / "tensorboard") == read(tmp_path / "straight" / "tensorboard")


def test_one_that_is_switched_on_late_has_the_epochs_of_before(tmp_path):
    contract = TestContract()
    contract.whole_run(contract.build(), tmp_path, finished=2)
    assert read(tmp_path / "tensorboard")["val/top1"] == [(18, 0.5), (27, 0.75)]


def test_runs_in_a_folder_of_ones_own(tmp_path):
    class Elsewhere(TrackerContract):
        spec, options = "tensorboard", {"folder": str(tmp_path / "curves")}

    Elsewhere().whole_run(Elsewhere().build(), tmp_path / "a")
    assert read(tmp_path / "curves" / "a")["val/top1"][-1] == (27, 0.75)
