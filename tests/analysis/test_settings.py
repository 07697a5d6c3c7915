"""What differs between runs, and what only seems to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import Facts, differing, key_of
from distillctl.errors import ProfileError
from distillctl.rundir.directory import RunDirectory


def run(seed: int = 0, *, method: str = "kd", device: str = "cpu", **more: Any) -> RunRecord:
    """tables of a profile, and under `info` what `run.json` says."""
    info = {"state": "finished", "method": method, "packages": {"torch": "2"}, **more.pop("info", {})}
    tables = {"student": {"name": "resnet8", "dropout": 0.0}, "train": {"epochs": 3}, **more}
    made = RunRecord(Path(f"{seed}{method}{device}{more}{info}"), info, {"seed": seed, "method": {"name": method}, **tables})
    made.__dict__["environment"] = {"device": device, "python": "3.12"}
    return made


def keys(*runs: RunRecord) -> dict[str, list[str]]:
    return {one.key: list(one.values) for one in differing([(one, Facts.of(one)) for one in runs])}


def test_runs_that_differ_in_their_seed_alone_do_not_differ() -> None:
    overrides = [{"profile": "t.toml", "overrides": {"seed": seed}} for seed in (0, 1)]
    assert keys(run(0, teacher=overrides[0]), run(1, teacher=overrides[1])) == {}


def test_settings_versions_devices_processes_and_changes() -> None:
    other = {"packages": {"torch": "3"}, "processes": 2, "changes": [{"changes": ["the data"]}]}
    found = keys(run(), run(device="H200", train={"epochs": 3, "precision": "bf16"}, info=other))
    assert found == {
        "train.precision": ["not set", "bf16"],
        "package torch": ["2", "3"],
        "device": ["cpu", "H200"],
        "processes": ["1", "2"],
        "accepted changes": ["not set", "the data"],
    }


def test_a_package_that_one_of_them_does_not_use_is_no_difference() -> None:
    assert keys(run(), run(info={"packages": {"torch": "2", "distillctl-dkd": "1"}})) == {}


def test_a_control_has_no_teacher_and_no_options_of_a_method() -> None:
    kd = {"name": "kd", "temperature": 4.0}
    assert keys(run(method="none"), run(teacher={"name": "resnet32"}, method_=0)) == {"method": ["none", "kd"], "method_": ["not set", "0"]}
    one = RunRecord(Path("a"), {"method": "kd"}, {"method": kd, "teacher": {"name": "a"}})
    other = RunRecord(Path("b"), {"method": "kd"}, {"method": {**kd, "temperature": 2.0}, "teacher": {"name": "b"}})
    none = RunRecord(Path("c"), {"method": "none"}, {"method": {"name": "none"}})
    assert keys(one, other, none) == {"method": ["kd", "none"], "method.temperature": ["4", "2"], "teacher.name": ["a", "b"]}


def test_options_that_only_another_student_has_follow_from_its_name() -> None:
    assert keys(run(), run(student={"name": "vgg8", "width": 2})) == {"student.name": ["resnet8", "vgg8"]}
    assert keys(run(), run(student={"name": "resnet8"})) == {"student.dropout": ["0", "not set"]}


def test_data_are_compared_between_runs_of_one_seed() -> None:
    """A seed may carve the splits; another listing of the same seed is other data."""

    def carved(seed: int, listing: str, method: str = "kd") -> RunRecord:
        return run(seed, method=method, info={"data_listing": {"test": listing}, "teacher_sha256": f"{seed}" * 20})

    assert "data: test" not in keys(carved(0, "a"), carved(1, "b"))
    assert keys(carved(0, "a"), carved(1, "b"), carved(1, "c"))["data: test"] == ["b", "c"]
    weights = [run(0, info={"teacher_sha256": letter * 20}) for letter in "ab"]
    assert keys(*weights, run(method="none")) == {"method": ["kd", "none"], "teacher's weights": ["a" * 12, "b" * 12]}


def test_a_teachers_run_is_what_it_is_but_for_its_seed(tmp_path: Path) -> None:
    paths = []
    for seed, width in ((0, 1), (1, 1), (0, 2)):
        path = tmp_path / f"teacher-{seed}-{width}"
        resolved = f'seed = {seed}\n[student]\nname = "resnet32"\nwidth = {width}\n'
        RunDirectory.create(path, profile=b"", resolved=resolved, environment={}, state={"name": "big", "digest": ""})
        paths.append(path)
    taught = [run(teacher={"run": str(path)}) for path in paths]
    assert keys(*taught[:2]) == {}
    (values,) = keys(*taught).values()
    assert [value.partition("-")[0] for value in values] == ["big", "big"]
    assert keys(taught[0], run(teacher={"run": "gone"})).keys() == {"teacher.run"}


def test_a_key_by_the_word_that_somebody_writes() -> None:
    runs = [(one, Facts.of(one)) for one in (run(), run(train={"epochs": 9}, dataset={"name": "digits"}, optimizer={"name": "sgd"}))]
    for word, key in {"method": "method", "epochs": "train.epochs", "torch": "package torch", "device": "device"}.items():
        assert key_of(word, runs) == key
    assert (key_of("student", runs), key_of("data", runs)) == ("student.name", "dataset.name")
    with pytest.raises(ProfileError, match=r"`name` may mean `student\.name`"):
        key_of("name", runs)
    with pytest.raises(ProfileError, match=r"no run has a setting `trian\.epochs`") as caught:
        key_of("trian.epochs", runs)
    assert caught.value.problems[0].hint == "did you mean `train.epochs`?"
