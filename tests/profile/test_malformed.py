"""Profiles that are wrong: each gives a `ProfileError` with one clear problem for each thing that is wrong, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from distillctl import ProfileError

BOM = b"\xef\xbb\xbf"

# id: (tables to change or bytes, one expected sentence or hint for each problem)
TYPES = {
    "integer as string": ({"train": 'epochs = "ten"'}, ['`train.epochs` must be an integer, not the string "ten"']),
    "integer as number": ({"train": "epochs = 2.0"}, ["`train.epochs` must be an integer, not the number 2.0"]),
    "integer as boolean": ({"train": "epochs = true"}, ["`train.epochs` must be an integer, not the boolean true"]),
    "integer as list": ({"train": "epochs = [1]"}, ["`train.epochs` must be an integer, not a list"]),
    "integer as date": ({"train": "epochs = 2024-01-01"}, ["`train.epochs` must be an integer, not the date 2024-01-01"]),
    "zero epochs": ({"train": "epochs = 0"}, ["`train.epochs` must be at least 1, not 0"]),
    "negative batch": ({"train": "epochs = 1\nbatch_size = -4"}, ["`train.batch_size` must be at least 1, not -4"]),
    "share of one": ({"train": "epochs = 1\nlabel_smoothing = 1.0"}, ["`train.label_smoothing` must be below 1, not 1.0"]),
    "infinite": ({"train": "epochs = 1\nclip_grad_norm = inf"}, ["`train.clip_grad_norm` must be a finite number, not inf"]),
    "not a number": ({"optimizer": "lr = nan"}, ["`optimizer.lr` must be"]),
    "rates by depth without stages": (
        {"student": 'name = "small"', "optimizer": "head_lr_scale = 10.0\nlayer_decay = 0.75"},
        [
            "`small`, which declares no classifier",
            "`optimizer.layer_decay` does not work with .* declares no stages",
        ],
    ),
    "no stages to freeze": (
        {"student": 'name = "small"\ncheckpoint = "teacher.pth"\nfreeze = "stem"'},
        ["the model `small` declares no stages that could be frozen"],
    ),
    "zero rate": ({"optimizer": "lr = 0"}, ["`optimizer.lr` must be above 0, not 0"]),
    "choice": (
        {"train": 'epochs = 1\nprecision = "bf_16"'},
        ['`train.precision` must be one of `fp32`, `bf16`, `fp16`, `auto`, not "bf_16"\n.*did you mean `bf16`'],
    ),
    "choice as boolean": ({"train": "epochs = 1\ncompile = true"}, ["`train.compile` must be one of `auto`, `off`, `on`, not true"]),
    "integer or word": (
        {"train": 'epochs = 1\nworkers = "many"'},
        ['`train.workers` must be an integer or "auto" \\(at least 0\\), not the string "many"'],
    ),
    "negative of integer or word": ({"train": "epochs = 1\nworkers = -1"}, ["`train.workers` must be .*at least 0"]),
    "number or table": (
        {"method": 'name = "kd"\ntemperature = "hot"'},
        ["`method.temperature` must be a number or a table.*not the string"],
    ),
    "bound in a union": (
        {"method": 'name = "kd"\ntemperature = -1'},
        ["`method.temperature` must be .*at least 0.001.*not the integer -1"],
    ),
    "table in a union": (
        {"method": 'name = "kd"\ntemperature = {teacher = 0, stud = 2}'},
        [
            "`method.temperature.teacher` must be at least 0.001",
            "`method.temperature.student` is missing",
            "unknown key `stud` in \\[method.temperature\\]",
        ],
    ),
    "entry of a list": ({"dataset": 'name = "toy"\nroot = "x"\nsizes = [32, "a"]'}, ["`dataset.sizes.1` must be an integer"]),
    "list as integer": (
        {"dataset": 'name = "toy"\nroot = "x"\nsizes = 32'},
        ["`dataset.sizes` must be a list of integers, not the integer 32"],
    ),
    "path as integer": ({"dataset": 'name = "toy"\nroot = 3'}, ["`dataset.root` must be a path, not the integer 3"]),
    "name as integer": ({"student": "name = 8"}, ["`student.name` must be a string, not the integer 8"]),
    "seed as string": ({"top": 'seed = "1"'}, ["`seed` must be an integer, not the string"]),
    "seed too large": ({"top": "seed = 4294967296"}, ["`seed` must be between 0 and 4294967295"]),
    "seed negative": ({"top": "seed = -1"}, ["`seed` must be between 0 and 4294967295, not -1"]),
    "plugin's bound": ({"dataset": 'name = "toy"\nroot = "x"\nval_fraction = 1'}, ["`dataset.val_fraction` must be below 1"]),
    "plugin's own validator": ({"method": 'name = "dk"\nlow = 5'}, ["method `dk` is not valid: `low` must not be above `high`"]),
    "milestone beyond the run": (
        {"train": 'epochs = 2\n[schedule]\nname = "step"\nmilestones = [150]'},
        ["`schedule.milestones` is not valid: milestones are shares of the run"],
    ),
    "falling milestones": ({"train": 'epochs = 2\n[schedule]\nname = "step"\nmilestones = [0.7, 0.5]'}, ["milestones must rise"]),
}
KEYS = {
    "misspelt key": (
        {"train": "epochs = 2\nbatchsize = 3"},
        ["unknown key `batchsize` in \\[train\\]\n.*did you mean `batch_size`\\? allowed are"],
    ),
    "misspelt option": (
        {"method": 'name = "kd"\ntemprature = 3'},
        ["unknown option `temprature` for method `kd`\n.*did you mean `temperature`\\? `distillctl show kd` lists all options"],
    ),
    "misspelt core key of a plugin": ({"method": 'name = "kd"\nwieght = 3'}, ["unknown option `wieght`.*\n.*did you mean `weight`"]),
    "model without options": ({"student": 'name = "small"\ndepth = 3'}, ["unknown option `depth` for model `small`"]),
    "misspelt table": ({"train": "epochs = 2\n[optimiser]\nlr = 1"}, ["unknown table `optimiser`\n.*did you mean `optimizer`"]),
    "misplaced key": ({"top": "epochs = 2"}, ["unknown key `epochs`\n.*`epochs` belongs in \\[train\\]"]),
    "name missing": ({"dataset": 'root = "x"'}, ["`dataset.name` is missing"]),
    "option missing": ({"dataset": 'name = "toy"'}, ["`dataset.root` is missing\n.*Folder of the images"]),
    "epochs missing": ({"train": "batch_size = 3"}, ["`train.epochs` is missing"]),
    "train missing": ({"train": None}, ["the table \\[train\\] is missing"]),
    "tables missing": ({"train": None, "dataset": None, "student": None}, ["\\[dataset\\]", "\\[student\\]", "\\[train\\]"]),
    "table as value": ({"top": "train = 3", "train": None}, ["`train` must be a table, \\[train\\]"]),
    "table as array": ({"train": "[[train]]\nepochs = 3"}, ["`train` must be a table"]),
    "method as string": ({"top": 'method = "kd"', "method": None}, ["`method` must be a table.*\n.*write `\\[method\\]`"]),
    "method as mixed list": ({"top": 'method = [{name = "kd"}, 3]', "method": None}, ["`method` must be a table"]),
    "empty key": ({"train": 'epochs = 2\n"" = 3'}, ["unknown key ``"]),
    "escape in a key": ({"train": 'epochs = 2\n"\\u001b[31m" = 3'}, ["unknown key `\\\\x1b\\[31m`"]),
    "many at once": (
        {"top": "sed = 1", "train": "epochs = 0\nema = 2\nnope = 1", "method": 'name = "kd"\ntemperature = 0'},
        ["unknown key `sed`", "temperature", "`train.epochs`", "`train.ema`", "`nope`"],
    ),
}
NAMES = {
    "unknown model": ({"student": 'name = "smal"'}, ["no model is called `smal`\n.*did you mean `small`"]),
    "ambiguous model": ({"student": 'name = "vgg13"'}, ["the model name `vgg13` is ambiguous\n.*`one/vgg13` or `two/vgg13`"]),
    "unknown data set": ({"dataset": 'name = "toys"\nroot = "x"'}, ["no data set is called `toys`"]),
    "unknown method": ({"method": 'name = "kdd"'}, ["no method is called `kdd`"]),
    "unknown optimizer": ({"optimizer": 'name = "adam"'}, ["no optimizer is called `adam`\n.*`adamw`"]),
    "package to install": ({"method": 'name = "mgd"'}, ["no method is called `mgd`\n.*pip install .*distillctl-mgd"]),
    "broken package": (
        {"method": 'name = "crd"'},
        ["no method is called `crd`\n.*`distillctl-crd` is installed but broken: ImportError: no module named triton"],
    ),
    "options that do not load": ({"method": 'name = "lost"'}, ["`lost` cannot be loaded from `distillctl_test_missing:Options`"]),
    "unknown name and other problems": (
        {"method": 'name = "kdd"\nweight = -1', "teacher": None},
        ["`kdd`", "`method.weight` must be at least 0"],
    ),
    "option of another optimizer": ({"optimizer": 'name = "adamw"\nmomentum = 0.9'}, ["unknown option `momentum` for optimizer `adamw`"]),
    "unknown weights": ({"teacher": 'name = "big"\nweights = "V3"'}, ["model `big` knows no weights called `V3`\n.*there are `V1`, `V2`"]),
    "weights of a model without": ({"student": 'name = "small"\nweights = "V1"'}, ["model `small` has no pretrained weights"]),
}
TEACHERS = {
    "no teacher": ({"teacher": None}, ["the method `kd` needs a \\[teacher\\]\n.*`run`.*`checkpoint`.*`weights`.*`profile`"]),
    "no way": (
        {"teacher": 'name = "big"'},
        ["\\[teacher\\] does not say where its weights come from\n.*`run`.*`checkpoint`.*`weights`.*`profile`"],
    ),
    "two ways": ({"teacher": 'name = "big"\nrun = "runs/done"\ncheckpoint = "teacher.pth"'}, ["\\[teacher\\] has `run` and `checkpoint`"]),
    "no name": ({"teacher": 'checkpoint = "teacher.pth"'}, ["`teacher.name` is missing"]),
    "no name for weights": ({"teacher": 'weights = "V1"'}, ["`teacher.name` is missing"]),
    "no file": ({"teacher": 'name = "big"\ncheckpoint = "techer.pth"'}, ["there is no file `techer.pth`\n.*did you mean `teacher.pth`"]),
    "no folder": ({"teacher": 'name = "big"\ncheckpoint = "weights/t.pth"'}, ["there is no file.*\n.*the folder `weights` does not exist"]),
    "directory as file": ({"teacher": 'name = "big"\ncheckpoint = "runs/done"'}, ["`runs/done` is a directory, not a file"]),
    "no run": ({"teacher": 'run = "runs/doen"'}, ["there is no run directory `runs/doen`\n.*`runs/done`"]),
    "unfinished run": ({"teacher": 'run = "runs/begun"'}, ["the run `runs/begun` is not finished"]),
    "folder of runs": ({"teacher": 'run = "runs"'}, ["`runs` is not a run directory: it has no `run.json`"]),
    "run of a missing package": (
        {"teacher": 'run = "runs/foreign"'},
        ["no model is called `cifar/resnet20`\n.*pip install .*distillctl-cifar"],
    ),
    "file as run": ({"teacher": 'run = "teacher.pth"'}, ["`teacher.pth` is a file, not a run directory"]),
    "no profile": ({"teacher": 'profile = "teach.toml"'}, ["there is no profile `.*teach.toml`\n.*teacher.toml"]),
    "itself": ({"teacher": 'profile = "profile.toml"'}, ["leads back to a profile"]),
    "name with run": ({"teacher": 'name = "big"\nrun = "runs/done"'}, ["`teacher.name` has no effect with `teacher.run`"]),
    "option with profile": (
        {"teacher": 'profile = "teacher.toml"\ndropout = 0.5'},
        ["`teacher.dropout` has no effect with `teacher.profile`"],
    ),
    "overrides without profile": (
        {"teacher": 'name = "big"\ncheckpoint = "teacher.pth"\noverrides = {"train.epochs" = 2}'},
        ["`teacher.overrides` has no effect with `teacher.checkpoint`"],
    ),
    "wrong override": (
        {"teacher": 'profile = "teacher.toml"\noverrides = {"train.epochs" = 0, "train..x" = 1}'},
        ["`train..x` is no dotted key", "`train.epochs` must be at least 1"],
    ),
    "null byte in a path": ({"teacher": 'name = "big"\ncheckpoint = "a\\u0000b"'}, ["is no(t a path| file)"]),
    "endless path": ({"student": f'name = "small"\ncheckpoint = "{"x" * 5000}"'}, ["longer than a path can be"]),
    "student with two beginnings": (
        {"student": 'name = "big"\nweights = "V1"\ncheckpoint = "teacher.pth"'},
        ["`student.weights` and `student.checkpoint` cannot both be given"],
    ),
    "teacher that nobody needs": ({"method": None}, ["\\[teacher\\] has no effect with the method `none`"]),
    "teacher of a method that needs none": ({"method": 'name = "alone"'}, ["\\[teacher\\] has no effect with the method `alone`"]),
    "a rate beyond all numbers": (
        {"train": 'epochs = 1\n[schedule]\nname = "cosine"\nmin_lr = 1e308\nwarmup_lr = 1e308'},
        ["`schedule.min_lr` must be at most 1000, not 1e\\+308", "`schedule.warmup_lr` must be at most 1000"],
    ),
}
EFFECTS = {
    "milestones without step": (
        {"train": 'epochs = 1\n[schedule]\nname = "cosine"\nmilestones = [0.5]'},
        ["`schedule.milestones` has no effect"],
    ),
    "gamma without step": (
        {"train": "epochs = 1\n[schedule]\ngamma = 0.5"},
        ['`schedule.gamma` has no effect without `schedule.name = "step"`'],
    ),
    "floor without cosine": ({"train": "epochs = 1\n[schedule]\nmin_lr = 0.5"}, ["`schedule.min_lr` has no effect"]),
    "rate without warm-up": ({"train": "epochs = 1\n[schedule]\nwarmup_lr = 0.5"}, ["`schedule.warmup_lr` has no effect"]),
    "step without milestones": ({"train": 'epochs = 1\n[schedule]\nname = "step"'}, ["`schedule.milestones` is missing"]),
    "ramp without average": ({"train": "epochs = 1\nema_ramp = 5"}, ["`train.ema_ramp` has no effect without `train.ema`"]),
    "cycles without cosine": ({"train": "epochs = 1\n[schedule]\ncycles = 3.0"}, ["`schedule.cycles` has no effect"]),
    "kind of no cycles": ({"train": 'epochs = 1\n[schedule]\nname = "cosine"\ncycle = "wave"'}, ["`schedule.cycle` has no effect"]),
    "two label losses": ({"train": "epochs = 1\nfocal = 2.0\npoly = 1.0"}, ["`train.poly` has no effect with `train.focal`"]),
    "share of no mixing": (
        {"train": "epochs = 1\nmix_share = 0.5"},
        ["`train.mix_share` has no effect without `train.mixup`"],
    ),
    "mixed images for a memory": (
        {"train": "epochs = 1\ncutmix = 1.0", "method": 'name = "remembers"'},
        ["`remembers` does not work with `train.cutmix`: it takes every image for one of the data set's"],
    ),
    "scales without several": (
        {"train": 'epochs = 1\n[evaluate]\ntta = "five_crop"\ntta_scales = [2]'},
        ["`evaluate.tta_scales` has no effect"],
    ),
    "resize with scales": (
        {"train": 'epochs = 1\n[evaluate]\ntta = "multi_scale"\ntta_resize = 4'},
        ["`evaluate.tta_resize` has no effect"],
    ),
    "resize without crops": ({"train": 'epochs = 1\n[evaluate]\ntta = "flip"\ntta_resize = 40'}, ["`evaluate.tta_resize` has no effect"]),
    "weight of the control": ({"teacher": None, "method": 'name = "none"\nweight = 0.5'}, ["`method.weight` has no effect"]),
    "control beside a method": (
        {"method": '[[method]]\nname = "none"\n[[method]]\nname = "feat"'},
        ["`none` has no effect beside other methods"],
    ),
    "inner of no wrapper": ({"method": 'name = "kd"\n[method.inner]\nname = "dk"'}, ["`method.inner` has no effect on `kd`"]),
    "inner without temperature": (
        {"method": 'name = "wrap"\n[method.inner]\nname = "feat"'},
        ["`wrap` cannot wrap `feat`.*\n.*`dk`, `kd`"],
    ),
    "inner that is a wrapper": ({"method": 'name = "wrap"\n[method.inner]\nname = "wrap"'}, ["`wrap` cannot wrap `wrap`"]),
    "inner of another kind": (
        {"method": 'name = "around"\n[method.inner]\nname = "feat"'},
        ["`around` cannot wrap `feat`.*\n.*`dk`, `kd`"],
    ),
    "a wrapper's inner temperature": (
        {"method": 'name = "wrap"\n[method.inner]\nname = "around"\ntemperature = 2.0\n[method.inner.inner]\nname = "kd"'},
        ["`method.inner.temperature` has no effect under `wrap`"],
    ),
    "a wrapper's temperature around one that finds it": (
        {"method": 'name = "around"\ntemperature = 2.0\n[method.inner]\nname = "wrap"'},
        ["`method.temperature` has no effect around `wrap`"],
    ),
    "inner of an inner method": (
        {"method": 'name = "wrap"\n[method.inner.inner]\nname = "kd"'},
        ["`method.inner.inner` has no effect on `kd`, which wraps no other method"],
    ),
    "inner temperature": (
        {"method": 'name = "wrap"\n[method.inner]\ntemperature = 2'},
        ["`method.inner.temperature` has no effect under `wrap`"],
    ),
    "inner weight": ({"method": 'name = "wrap"\n[method.inner]\nweight = 2'}, ["`method.inner.weight` has no effect"]),
    "inner task weight": ({"method": 'name = "wrap"\n[method.inner]\ntask_weight = 2'}, ["`method.inner.task_weight` has no effect"]),
    "inner as string": ({"method": 'name = "wrap"\ninner = "kd"'}, ["`method.inner` must be a table"]),
    "inner with a wrong option": (
        {"method": 'name = "wrap"\n[method.inner]\nname = "dk"\nbeta = 0'},
        ["`method.inner.beta` must be above 0"],
    ),
    "inner unknown": ({"method": 'name = "wrap"\n[method.inner]\nname = "dkk"'}, ["no method is called `dkk`"]),
    "methods that disagree": (
        {"method": '[[method]]\nname = "kd"\n[[method]]\nname = "feat"'},
        ["the methods disagree on the weight of the label loss: `kd` wants 0.1 and `feat` wants 1\n.*state `task_weight` in one"],
    ),
    "task weight stated twice": (
        {"method": '[[method]]\nname = "kd"\ntask_weight = 1\n[[method]]\nname = "feat"\ntask_weight = 2'},
        ["`task_weight` is stated twice with different values"],
    ),
    "nothing to train": ({"method": 'name = "kd"\nweight = 0\ntask_weight = 0'}, ["all weights are 0, so that nothing is trained"]),
    "nothing to train by the control": (
        {"teacher": None, "method": 'name = "none"\ntask_weight = 0'},
        ["all weights are 0, so that nothing is trained"],
    ),
    "options of a plugin that are of another class": (
        {"method": 'name = "odd"'},
        ["`distillctl_test_options:NoOptions`, the options of `odd`, is not a subclass of `distillctl.Options`"],
    ),
    "key of another table": ({"train": "epochs = 2\nlr = 0.1"}, ["unknown key `lr` in \\[train\\]"]),
    "option of another table": ({"student": 'name = "big"\nepochs = 3'}, ["unknown option `epochs` for model `big`"]),
    "second of several methods": (
        {"method": '[[method]]\nname = "dk"\n[[method]]\nname = "feat"\nnope = 2'},
        ["unknown option `nope` for method `feat`"],
    ),
}
FILES = {
    "empty": (b"", ["the profile `profile.toml` is empty"]),
    "blank": (b" \n\n", ["is empty"]),
    "byte order mark": (BOM + b"seed = 1\n", ["starts with a byte order mark"]),
    "UTF-16": ("seed = 1\n".encode("utf-16"), ["starts with a byte order mark"]),
    "Latin-1": (b"seed = 1\n# caf\xe9\n", ["is not text in UTF-8"]),
    "binary": (bytes(range(256)) * 8, ["is a binary file"]),
    "null byte": (b"seed = 1\0\n", ["is a binary file"]),
    "too large": (b"#" * (1 << 18) + b"\n", ["is larger than 256 KiB"]),
    "dotted key of 100 kB": (b"a." * 50_000 + b"a = 1\n", ["a key has more than 16 parts"]),
    "header of 100 kB": (b"[" + b"a." * 50_000 + b"a]\n", ["a key has more than 16 parts"]),
    "key of 100 kB": (b"a" * 100_000 + b" = 1\n", ["a key is longer than 256 characters"]),
    "quoted key of 100 kB": (b'"' + b"a" * 100_000 + b'" = 1\n', ["a key is longer than 256 characters"]),
    "40,000 keys": (b"".join(b"[a%i.b.c.d]\n" % i for i in range(10_000)), ["there are more than 20000 keys and entries"]),
    "10,000 nested brackets": (b"a = " + b"[" * 10_000 + b"]" * 10_000 + b"\n", ["brackets are nested more than 16 deep"]),
    "10,000 open brackets": (b"[" * 10_000, ["brackets are nested more than 16 deep"]),
    "10,000 nested tables": (b"a = " + b"{a=" * 10_000 + b"\n", ["brackets are nested more than 16 deep"]),
    "number of 5,000 digits": (b"seed = " + b"9" * 5_000 + b"\n", ["a value without quotes is longer than 64 characters"]),
    "hexadecimal number of 5,000 digits": (
        b"[train]\nepochs = 0x" + b"f" * 5_000 + b"\n",
        ["a value without quotes is longer than 64 characters"],
    ),
    "no value": (b"seed =\n", ["this is not valid TOML"]),
    "no quotes": (b"[student]\nname = resnet8\n", ["not valid TOML: invalid value\n.*strings stand in quotes"]),
    "open string": (b'[student]\nname = "resnet8\n', ["not valid TOML"]),
    "open multi-line string": (b'[student]\nname = """resnet8\n', ["not valid TOML"]),
    "open table": (b"[student\nname = 1\n", ["not valid TOML"]),
    "key twice": (b"seed = 1\nseed = 2\n", ["not valid TOML"]),
    "table twice": (b"[train]\nepochs = 1\n[train]\n", ["not valid TOML"]),
    "old Mac line ends": (b"seed = 1\r[train]\repochs = 1\r", ["not valid TOML"]),
    "YAML": (b"train:\n  epochs: 3\n", ["not valid TOML"]),
    "JSON": (b'{"train": {"epochs": 3}}\n', ["not valid TOML"]),
    "Windows path": (b'[dataset]\nroot = "C:\\data\\x"\n', ["not valid TOML"]),
}
ALL = {**TYPES, **KEYS, **NAMES, **TEACHERS, **EFFECTS, **FILES}


@pytest.mark.parametrize("case", ALL)
def test_each_problem_is_told_once(case, read, text):
    content, expected = ALL[case]
    with pytest.raises(ProfileError) as caught:
        read(content if isinstance(content, bytes) else text(**content))
    told = [f"{p.message}\n{p.hint}" for p in caught.value.problems]
    assert len(told) == len(expected), told
    for sentence in expected:
        assert sum(bool(re.search(sentence, t)) for t in told) == 1, (sentence, told)
    for problem in caught.value.problems:
        assert not problem.message.endswith(".")
        assert "\n" not in problem.message
        assert problem.message.isprintable()
        assert len(problem.message) < 6000
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        "[schedule]\nmilestones = [" + '"a",' * 15_000 + "]\n",
        "".join(f"key{i} = 1\n" for i in range(15_000)),
        "".join(f"[a{i}.b.c.d.e.f.g.h.i.j.k]\n" for i in range(1_500)),
    ],
    ids=["entries", "keys", "tables"],
)
def test_thousands_of_problems_are_not_all_looked_for(read, content):
    """The time that they take grows with the square of their number."""
    with pytest.raises(ProfileError) as caught:
        read(content)
    assert len(caught.value.problems) == 101
    assert "more than 100 problems" in caught.value.problems[-1].message


def test_a_long_name_is_cut(read, text):
    with pytest.raises(ProfileError) as caught:
        read(text(student=f'name = "{"r" * 100_000}"'))
    assert len(str(caught.value)) < 10_000


def test_there_are_enough_of_them():
    assert len(ALL) >= 60


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"train": "batch_size = 3\n\nepochs = 0"}, "profile.toml:20, [train]"),
        ({"train": "batch_size = 3"}, "profile.toml:17, [train]"),
        ({"top": "seed = -1"}, "profile.toml:1"),
        ({"method": '[[method]]\nname = "dk"\n[[method]]\nname = "feat"\nweight = -2'}, "profile.toml:18, [[method]]"),
        ({"method": 'name = "wrap"\n[method.inner]\nname = "dk"\nbeta = 0'}, "profile.toml:18, [method.inner]"),
        ({"method": 'name = "kd"\ntemperature = {student = 2, teacher = 0}'}, "profile.toml:16, [method.temperature]"),
        ({"train": None}, "profile.toml"),
        ({"top": "train.epochs = 0", "train": None}, "profile.toml:1, [train]"),
        ({"top": 'train = {batch_size = 4, epochs = 0}\n', "train": None}, "profile.toml:1, [train]"),
        ({"dataset": 'name = "toy"\nroot = """\nepochs = 0\n"""\nsizes = [\n  1,\n  2.5,\n]'}, "profile.toml:10, [dataset]"),
        ({"teacher": 'profile = "bad.toml"'}, "bad.toml:2, [train]"),
        ({"teacher": 'profile = "teacher.toml"\noverrides = {"train.epochs" = 0}'}, "profile.toml:12, [teacher.overrides]"),
    ],
)  # fmt: skip
def test_places(read, text, folder, changes, where):
    (folder / "bad.toml").write_text(text(top="[train]\nepochs = 0", train=None, teacher=None, method=None))
    with pytest.raises(ProfileError) as caught:
        read(text(**changes))
    (problem,) = caught.value.problems
    assert problem.where.replace(f"{folder}/", "") == where


def test_other_arguments(read):
    for arguments, message, where in (
        ({"method": "kdd"}, "no method is called `kdd`", "--method kdd"),
        ({"teacher": "runs/none"}, "there is no run directory", "--teacher runs/none"),
        ({"teacher": "none.toml"}, "there is no profile", "--teacher none.toml"),
        ({"teacher": "none.pth"}, "there is no file", "--teacher none.pth"),
        ({"seed": -3}, "`seed` must be between", "--seed -3"),
        ({"method": "none", "teacher": "runs/done"}, "[teacher] has no effect", "--teacher runs/done"),
    ):
        with pytest.raises(ProfileError) as caught:
            read(**arguments)
        (problem,) = caught.value.problems
        assert message in problem.message
        assert problem.where == where


def test_a_path_that_is_no_text(read):
    with pytest.raises(ProfileError, match=r"a value is not text in UTF-8: .*f\\udce4"):
        read(overrides=["dataset.root=f\udce4"])


def test_files_that_are_none(read, folder, registry):
    (folder / "profile.toml").write_text("seed = 1")
    for name, message, hint in (
        ("profil.toml", "there is no profile `profil.toml`", "did you mean `profile.toml`"),
        ("none/profile.toml", "there is no profile", "the folder `none` does not exist"),
        ("runs", "`runs` is a directory", ".toml"),
        ("x" * 400, "cannot be read", ""),
        ("teacher.pth/a.toml", "cannot be read", ""),
    ):
        from distillctl.profile.reading import load

        with pytest.raises(ProfileError) as caught:
            load(Path(name), registry=registry)
        (problem,) = caught.value.problems
        assert message in problem.message
        assert hint in problem.hint


def test_the_right_profile_is_right(read, text):
    """Without this, every test above could pass for a wrong reason."""
    assert read(text()).resolved
    assert tomllib.loads(text())["train"] == {"epochs": 2}
