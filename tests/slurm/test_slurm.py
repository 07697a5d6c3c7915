"""Jobs of a cluster: what may be asked for, what is handed to SLURM, and real jobs of submitit's local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distillctl.cli.app import command_for
from distillctl.errors import MachineError, PluginError, ProfileError, RunError
from distillctl.plugin.registry import Registry
from distillctl.slurm.job import TrainingJob, last_lines
from distillctl.slurm.parameters import Resources, read_minutes, read_resources
from distillctl.slurm.request import Request
from distillctl.slurm.submission import Submitted, require, submit
from distillctl.slurm.waiting import wait

pytestmark = pytest.mark.posix

PROFILE = """
seed = 3
[dataset]
name = "digits"
limit = 300
augment = "crop_flip"
[student]
name = "resnet8"
dropout = 0.1
[optimizer]
name = "sgd"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = {epochs}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "profile.toml").write_text(PROFILE.format(epochs=16))
    return tmp_path


def request(**values: object) -> Request:
    made = Request("profile.toml", device="cpu", **values)  # type: ignore[arg-type]
    return replace(made, digest=made.load(Registry.load()).digest)


def until(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def children(pid: int | str) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def epochs_of(run: str) -> int:
    try:
        return int(json.loads(Path(run, "run.json").read_text())["epoch"])
    except (OSError, ValueError):
        return 0


# -- what may be asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 2), ("2:00", 2), ("4:00:00", 240), ("0:00:01", 1), ("1-12", 2160), ("1-1:30", 1530), ("2-0:0:30", 2881)],
)
def test_time_limits_are_read_in_slurms_forms(text: str, minutes: int) -> None:
    assert read_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "1h", "-5", "1:2:3:4", "1.5", "0:00", "٣"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="`time` must be minutes"):
        read_resources([f"time={text}"])


def test_names_of_submitit_and_of_sbatch_mean_the_same() -> None:
    for names in (
        ("timeout_min", "gpus_per_node", "name"),
        ("time", "gpus-per-node", "job-name"),
        ("slurm_time", "slurm_gpus_per_node", "name"),
    ):
        assert read_resources([f"{name}={value}" for name, value in zip(names, ("60", "2", "kd"), strict=True)]) == Resources(
            60, None, 2, {"gpus_per_node": "2", "job_name": "kd"}
        )


def test_values_become_what_the_executor_takes() -> None:
    pairs = ["mem_gb=1.5", "cpus_per_task=8", "exclusive=true", "reservation=night", "setup=module load cuda", "setup=ulimit -n 4096"]
    assert read_resources([*pairs, "signal_delay_s=300"]) == Resources(
        None,
        300,
        None,  # what `setup` sets up is not known
        {
            "mem": "1536M",
            "cpus_per_task": 8,
            "exclusive": True,
            "setup": ["module load cuda", "ulimit -n 4096"],
            "additional_parameters": {"reservation": "night"},
        },
    )


@pytest.mark.parametrize(("pair", "count"), [("gpus_per_node=a100:4", 4), ("gpus=2", 2), ("gres=gpu:2", None), ("partition=gpu", 0)])
def test_the_number_of_gpus_is_known(pair: str, count: int | None) -> None:
    assert read_resources([pair]).gpus == count


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["partitoin=gpu"], "no parameter is called `partitoin`.*did you mean `partition`"),
        (["zzz=1"], "known are `account`, "),
        (["gpu"], "`gpu` is not KEY=VALUE"),
        (["=5"], "is not KEY=VALUE"),
        (["account=a", "slurm_account=b"], "`account` is given twice"),
        (["nodes=2"], "a training runs on one node"),
        (["ntasks_per_node=4"], "cannot be set.*--nproc"),
        (["output=x.log"], "cannot be set.*--logs"),
        (["gpus_per_node=two"], "`gpus_per_node` must be a number of GPUs"),
        (["cpus_per_task=0"], "`cpus_per_task` must be a whole number from 1, not `0`"),
        (["mem=lots"], "`mem` must be a size"),
        (["mem=4G", "mem_gb=4"], "say the same"),
        (["partition="], "`partition` must be a text"),
        (["account=a\ntouch b"], "cannot be printed"),
        (["time=1", "signal_delay_s=60"], "`signal_delay_s` is 60, but `time` is only 60 seconds"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(ProfileError, match=f"(?s){message}"):
        read_resources(pairs)


def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(ProfileError) as raised:
        read_resources(["partitoin=a", "time=x", "nodes=3"])
    assert len(raised.value.problems) == 3


# -- what is trained ---------------------------------------------------------------------------------------------------


SHARED = ("profile", "set_", "method", "teacher", "seed", "track", "out", "device", "nproc", "accept_change")


def test_train_understands_the_arguments_of_a_request() -> None:
    made = Request("-p.toml", ("train.epochs=2", "dataset.name=a b"), "kd", "runs/t", 7, Path("-out"), "cuda:1", 4, True, ("csv", "-b"))
    command, *arguments = made.arguments()
    context = command_for(command).make_context(command, ["train", *arguments])
    train = context.command.get_command(context, "train")
    values = train.make_context("train", arguments).params
    assert {name: values[name] for name in SHARED} == {
        "profile": "-p.toml",
        "track": ["csv", "-b"],
        "set_": ["train.epochs=2", "dataset.name=a b"],
        "method": "kd",
        "teacher": "runs/t",
        "seed": 7,
        "out": Path("-out"),
        "device": "cuda:1",
        "nproc": 4,
        "accept_change": True,
    }


def test_a_job_refuses_a_profile_that_has_changed(folder: Path) -> None:
    made = request()
    made.check_unchanged(Registry.load())
    Path("profile.toml").write_text(PROFILE.format(epochs=17))
    with pytest.raises(ProfileError, match="changed since this job was submitted"):
        made.check_unchanged(Registry.load())


# -- SLURM's side, with its commands replaced by ones that note what they are given ------------------------------------------


@pytest.fixture
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `sbatch`, which counts its jobs and keeps their scripts, `srun` and `squeue`."""
    tools = folder / "tools"
    tools.mkdir()
    count = f"n=$(ls {tools}/*.job 2>/dev/null | wc -l)"
    sbatch = f'{count}; cp "$1" {tools}/$((n + 1)).job; env > {tools}/environment\necho Submitted batch job $((n + 1))'
    for name, text in {"sbatch": sbatch, "srun": "exit 1", "squeue": f"cat {tools}/state"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def test_the_script_of_a_job_says_what_was_asked_for(cluster: Path) -> None:
    asked = read_resources(["time=4:00:00", "partition=gpu; touch x", "gpus-per-node=2", "setup=module load cuda", "licenses=a"])
    job = submit(request(), "kd-0123", asked, logs=Path("my logs"))
    assert (job.id, job.cancel) == ("1", "scancel 1")
    assert job.logs == (Path("my logs/1_0_log.out").absolute(), Path("my logs/1_0_log.err").absolute())
    script = (cluster / "1.job").read_text()
    lines = script.splitlines()
    for line in (
        "--time=240",
        "--partition='gpu; touch x'",
        "--gpus-per-node=2",
        "--licenses=a",
        "--job-name=kd-0123",
        "--requeue",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--signal=USR2@120",
    ):
        assert f"#SBATCH {line}" in lines
    assert "module load cuda" in lines
    assert lines[-1].endswith(f"{sys.executable} -u -m submitit.core._submit '{Path('my logs').absolute()}'")
    assert not Path("x").exists()


NEW_LINE = "evil\ntouch PWNED #"


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("name", "logs"), [(NEW_LINE, "logs"), ("a\x1b[2J", "logs"), ("a", NEW_LINE), ("a", "logs\udcff")])
def test_a_name_that_would_begin_a_line_of_the_script_is_refused(cluster: Path, name: str, logs: str, local: bool) -> None:
    with pytest.raises(ProfileError, match="characters that cannot be printed") as raised:
        submit(request(), name, Resources(60), logs=Path(logs), local=local)
    assert raised.value.problems[0].message.isprintable()
    assert not list(cluster.glob("*.job"))


def test_a_folder_that_would_begin_a_line_of_the_script_is_refused(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = request()
    (Path.cwd() / NEW_LINE).mkdir()
    monkeypatch.chdir(NEW_LINE)
    with pytest.raises(ProfileError, match="characters that cannot be printed"):
        submit(made, "a", Resources(60), logs=cluster / "logs")


def test_the_folder_of_logs_is_this_users_alone(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results in it are unpickled."""
    before = os.umask(0o002)
    try:
        submit(request(), "a", Resources(60), logs=Path("new/logs"))
    finally:
        os.umask(before)
    assert Path("new/logs").stat().st_mode & 0o777 == 0o700
    for mode in (0o720, 0o702, 0o777):
        Path("new/logs").chmod(mode)
        with pytest.raises(MachineError, match="may be written to by other users") as raised:
            submit(request(), "a", Resources(60), logs=Path("new/logs"))
        assert "chmod go-w new/logs" in raised.value.problems[0].hint
    Path("new/logs").chmod(0o755)
    submit(request(), "a", Resources(60), logs=Path("new/logs"))
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(MachineError, match="belongs to another user"):
        submit(request(), "a", Resources(60), logs=Path("new/logs"))
    Path("file").touch()
    with pytest.raises(MachineError, match="cannot be made"):
        submit(request(), "a", Resources(60), logs=Path("file"))


def test_a_job_that_is_submitted_from_a_job_inherits_nothing_of_it(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    submit(request(), "a", Resources(60))
    assert "SLURM_NTASKS=8" in (cluster / "environment").read_text(), "a user's own default"
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SBATCH_ACCOUNT", "RANK", "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "5")
    submit(request(), "a", Resources(60))
    seen = {line.partition("=")[0] for line in (cluster / "environment").read_text().splitlines()}
    assert seen & {"SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_CONF", "SBATCH_ACCOUNT", "RANK", "SUBMITIT_EXECUTOR"} == {
        "SLURM_CONF",
        "SBATCH_ACCOUNT",
    }
    assert os.environ["RANK"] == "5"


def test_a_job_has_a_time_limit(cluster: Path) -> None:
    with pytest.raises(ProfileError, match="no time limit"):
        submit(request(), "a", Resources())


def test_the_training_saves_before_the_time_is_over(cluster: Path) -> None:
    for asked, signal_line, grace in (
        (Resources(60), "USR2@120", 100),
        (Resources(60, 300), "USR2@300", 280),
        (Resources(1), "USR2@30", 15),
    ):
        job = submit(request(), "a", asked)
        assert f"#SBATCH --signal={signal_line}" in (cluster / f"{job.id}.job").read_text().splitlines()
        function = job.handle.submission().function
        assert (function.grace, function.folder) == (grace, Path.cwd())
        assert job.handle.submission()._timeout_countdown == 20


def test_what_sbatch_says_is_told(cluster: Path) -> None:
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gup' >&2; exit 1\n")
    with pytest.raises(MachineError, match="SLURM refuses the job: sbatch: error: invalid partition specified: gup"):
        submit(request(), "a", Resources(60))


def test_a_machine_without_slurm_or_submitit_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(MachineError, match="--local"):
        require(local=False)
    require(local=True)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(PluginError, match=r"distillctl\[slurm\]"):
        require(local=True)


@pytest.mark.parametrize(
    ("squeue", "state"),
    [
        ("echo CANCELLED", "cancelled"),
        ("echo TIMEOUT", "timeout"),
        ("echo Invalid job id specified >&2; exit 1", "completed"),
        ("", "completed"),
    ],
)
def test_a_job_that_slurm_ended_has_failed(cluster: Path, squeue: str, state: str) -> None:
    job = submit(request(), "a", Resources(60))
    (cluster / "squeue").write_text(f"#!/bin/sh\necho >> {cluster}/asked\n{squeue}\n")
    with pytest.raises(RunError, match=rf"left no result \({state}\)"):
        wait([job], every=0.05)
    assert len((cluster / "asked").read_text().splitlines()) == 2, "asked again before it is believed"


def test_a_job_that_is_requeued_has_not_ended(cluster: Path) -> None:
    job = submit(request(), "a", Resources(60))
    states = "PREEMPTED PENDING RUNNING COMPLETING FAILED"
    (cluster / "squeue").write_text(
        f"#!/bin/sh\nset -- {states}\nn=$(cat {cluster}/n 2>/dev/null || echo 0); echo $((n + 1)) > {cluster}/n\n"
        '[ $n -ge 5 ] && echo FAILED || eval "echo \\${$((n + 1))}"\n'
    )
    with pytest.raises(RunError, match="failed"):
        wait([job], every=0.05)
    assert (cluster / "n").read_text().strip() == "5"


def test_the_last_lines_are_those_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    begin = log.stat().st_size
    assert last_lines(log, begin) == ""
    log.write_text("before\n" + "".join(f"{n}\n" for n in range(50)))
    assert last_lines(log, begin).splitlines() == [str(n) for n in range(20, 50)]
    assert last_lines(tmp_path / "none", 0) == ""


# -- real jobs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def local(folder: Path) -> Iterator[Callable[[Request], Submitted]]:
    """Submits to this machine; what still runs at the end is ended."""
    jobs: list[Submitted] = []

    def start(made: Request, **values: object) -> Submitted:
        jobs.append(submit(made, "job", Resources(), local=True, logs=Path("logs"), **values))  # type: ignore[arg-type]
        return jobs[-1]

    yield start
    for job in jobs:
        if job.handle.state == "RUNNING":
            for task in children(job.id):
                os.kill(task, signal.SIGKILL)
        until(lambda job=job: job.handle.state != "RUNNING", "the job ends")  # type: ignore[misc]


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_happened(local: Callable[[Request], Submitted]) -> None:
    straight = subprocess.Popen(
        [sys.executable, "-m", "distillctl", *replace(request(), out=Path("straight")).arguments()], stdout=subprocess.DEVNULL
    )
    job = local(request(out=Path("preempted")))
    until(lambda: epochs_of("preempted") >= 5, "five epochs")
    (task,) = children(job.id)
    (training,) = children(task)
    os.kill(task, signal.SIGUSR2)  # as a batch system does before the time is over
    wait([job])
    assert not alive(training)
    assert straight.wait(180) == 0
    log = job.logs[0].read_text()
    assert "Requeued job" in log
    assert "which are saved" in job.logs[1].read_text()
    assert "Job completed successfully" in log
    assert epochs_of("preempted") == 16
    assert Path("preempted/student.safetensors").read_bytes() == Path("straight/student.safetensors").read_bytes()


@pytest.mark.slow
def test_a_training_whose_job_is_killed_saves(local: Callable[[Request], Submitted]) -> None:
    job = local(request(out=Path("killed")))
    until(lambda: epochs_of("killed") >= 2, "two epochs")
    (task,) = children(job.id)
    (training,) = children(task)
    os.kill(training, signal.SIGUSR2)  # some batch systems send it to every process of a job
    os.kill(task, signal.SIGKILL)
    until(lambda: not alive(training), "the training ends")
    assert "which are saved" in job.logs[1].read_text()


@pytest.mark.slow
def test_a_job_of_two_processes_is_requeued_and_ends_as_if_nothing_had_happened(local: Callable[[Request], Submitted]) -> None:
    made = replace(request(out=Path("two")), nproc=2)
    job = local(made)
    until(lambda: epochs_of("two") >= 3, "three epochs")
    (task,) = children(job.id)
    both = children(task)
    assert len(both) == 2, "the job starts the processes itself"
    os.kill(task, signal.SIGUSR2)
    wait([job])
    assert not any(alive(training) for training in both)
    assert "Requeued job" in job.logs[0].read_text()
    assert job.logs[1].read_text().count("which are saved") == 1
    command = [sys.executable, "-m", "distillctl", *replace(made, out=Path("straight")).arguments()]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=180, check=False).returncode == 0
    assert Path("two/student.safetensors").read_bytes() == Path("straight/student.safetensors").read_bytes()


@pytest.mark.slow
def test_a_cancelled_job_ends_its_training_and_is_not_requeued(local: Callable[[Request], Submitted]) -> None:
    job = local(request())
    until(lambda: children(job.id) and children(children(job.id)[0]), "the training starts")
    (training,) = children(children(job.id)[0])
    subprocess.run(job.cancel, shell=True, check=True)
    with pytest.raises(RunError, match="the job was asked to terminate"):
        wait([job])
    assert not alive(training)
    assert "Requeued" not in job.logs[0].read_text()


@pytest.mark.slow
def test_a_job_that_fails_tells_why_and_is_not_requeued(local: Callable[[Request], Submitted]) -> None:
    wrong = local(replace(request(), device="cuda:99"))
    changed = local(replace(request(), digest="another"))
    with pytest.raises(RunError) as raised:
        wait([wrong, changed])
    problems = {problem.where: problem for problem in raised.value.problems}
    assert problems[f"job {wrong.id}"].message == "the training ended with exit code 3"
    assert "the end of its log:\nerror: this machine has no CUDA device" in problems[f"job {wrong.id}"].hint
    assert problems[f"job {changed.id}"].message.startswith("`profile.toml` changed since this job was submitted")
    assert "Requeued" not in wrong.logs[0].read_text()


def test_a_job_in_a_folder_that_a_node_does_not_have_says_so(folder: Path) -> None:
    job = TrainingJob(request(), folder / "gone", grace=1, patience=0)
    with pytest.raises(MachineError, match=r"`.*gone` cannot be entered on .*: no such file"):
        job()
