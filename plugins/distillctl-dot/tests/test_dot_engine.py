"""`dot` in the engine: beside `sgd`, through a whole run, a resumed one, and under a gradient scaler."""

import pytest
import torch

from distillctl.api.tracker import Tracker
from distillctl.build.data import build_task
from distillctl.build.experiment import assemble
from distillctl.build.models import build_teacher
from distillctl.commands.train import train
from distillctl.engine.gradient_pair import GradientPair
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_cifar.models import resnet8
from distillctl_dot.optimizer import DISTILLATION, DOT, TASK

PROFILE = """
[dataset]
name = "digits"
limit = 160
[student]
name = "resnet8"
[teacher]
name = "resnet8"
checkpoint = "teacher.pt"
allow_untrained = true
{methods}
[optimizer]
{optimizer}
[train]
batch_size = 32
epochs = 2
"""
KD = '[method]\nname = "kd"\n'
KD_AND_MGD = '[[method]]\nname = "mgd"\nweight = 0.001\ntask_weight = 0.5\n[[method]]\nname = "kd"\n'
DOT_TABLE = 'name = "dot"\nlr = 0.02\n'
SGD_TABLE = 'name = "sgd"\nlr = 0.02\n'


class Ear(Tracker):
    """Keeps the records of a run."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def epoch(self, record):
        self.epochs.append(record)


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def profile(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    torch.save(resnet8(num_classes=10).state_dict(), "teacher.pt")

    def make(methods, optimizer, **changes):
        path = tmp_path / "profile.toml"
        path.write_text(PROFILE.format(methods=methods, optimizer=optimizer))
        return load(path, registry=registry, overrides=[f"{key}={value}" for key, value in changes.items()])

    return make


@pytest.fixture
def stepped(registry):
    """Trains for some steps and gives the step with its experiment."""
    made = []

    def run(profile, steps=5):
        task = build_task(profile, registry)
        experiment = assemble(profile, task, build_teacher(profile, registry, task), torch.device("cpu"))
        made.append(experiment)
        step = Step(experiment)
        for number, batch in zip(range(steps), experiment.loader.epoch(0), strict=False):
            step(batch, number)
        return step, experiment

    yield run
    for experiment in made:
        experiment.close()


@pytest.mark.parametrize("methods", [KD, KD_AND_MGD], ids=["kd", "kd+mgd"])
@pytest.mark.parametrize("decay", ["all", "weights"])
def test_without_delta_the_weights_are_those_of_sgd(methods, decay, profile, stepped):
    tail = f'decay = "{decay}"\nweight_decay = 0.01\n'
    _, ours = stepped(profile(methods, f"{DOT_TABLE}delta = 0.0\n{tail}"))
    _, theirs = stepped(profile(methods, SGD_TABLE + tail))
    other, moved = dict(theirs.objective.named_parameters()), 0
    for name, p in ours.objective.named_parameters():
        torch.testing.assert_close(p, other[name], rtol=1e-5, atol=1e-5)
        moved += 1
    assert moved == len(other) > 20


def test_delta_changes_the_weights(profile, stepped):
    _, with_delta = stepped(profile(KD, DOT_TABLE))
    _, without = stepped(profile(KD, f"{DOT_TABLE}delta = 0.0\n"))
    pairs = zip(with_delta.model.parameters(), without.model.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) > 1e-3


def test_sides_of_student_and_generator(profile, stepped):
    """MGD reads the last map: its generator has the methods' side alone, and the classifier both, through KD."""
    step, experiment = stepped(profile(KD_AND_MGD, DOT_TABLE), steps=2)
    state = step.learner.optimizer.state
    own = {id(p) for p in experiment.objective.methods.parameters()}
    assert own
    for p in experiment.objective.parameters():
        if p.requires_grad:
            assert set(state[p]) == ({DISTILLATION} if id(p) in own else {TASK, DISTILLATION})
    step, experiment = stepped(profile('[method]\nname = "mgd"\nweight = 0.001\n', DOT_TABLE), steps=1)
    classifier = experiment.model.get_submodule(experiment.student.spec.classifier)
    assert all(set(step.learner.optimizer.state[p]) == {TASK} for p in classifier.parameters())


def test_a_run_that_was_stopped_goes_on_exactly(profile, registry, tmp_path):
    class Stops(Ear):
        def epoch(self, record):
            raise KeyboardInterrupt("of the test")

    chosen = profile(KD_AND_MGD, DOT_TABLE)
    straight = Ear()
    summary = train(chosen, registry, straight, out=tmp_path / "straight", device="cpu").summary
    assert [record["epoch"] for record in straight.epochs] == [1, 2]
    assert set(straight.epochs[0]["terms"]) == {"task", "kd", "mgd"}
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        train(chosen, registry, Stops(), out=tmp_path / "stopped", device="cpu")
    assert train(chosen, registry, Ear(), out=tmp_path / "stopped", device="cpu").summary == summary
    a, b = (torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True) for name in ("straight", "stopped"))
    assert all(torch.equal(a["student"][k], b["student"][k]) for k in a["student"])
    states = [one["optimizer"]["state"] for one in (a, b)]
    assert states[0].keys() == states[1].keys()
    assert {key for state in states[0].values() for key in state} == {TASK, DISTILLATION}
    assert all(torch.equal(states[0][i][k], states[1][i][k]) for i in states[0] for k in states[0][i])


@pytest.mark.parametrize("side", ["task", "distillation"])
def test_a_skipped_step_leaves_weights_and_both_sums(side):
    """As with fp16: gradients come unscaled, and a step with one that is not finite is left out."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = DOT([{"params": [weight]}], lr=0.1, momentum=0.9, delta=0.075, weight_decay=0.0)
    pair, scaler = GradientPair(optimizer), torch.amp.GradScaler("cpu", init_scale=8.0)
    pair.backward(scaler.scale((weight * 3).sum()), scaler.scale((weight * weight).sum()))
    scaler.step(pair)
    scaler.update()
    pair.zero_grad()
    torch.testing.assert_close(weight.data, torch.tensor([1.0 - 0.1 * 5, 2.0 - 0.1 * 7]))
    kept = {key: value.clone() for key, value in optimizer.state[weight].items()}
    before = weight.detach().clone()
    bad, good = (weight * float("inf")).sum(), weight.sum()
    pair.backward(*((bad, good) if side == "task" else (good, bad)))
    scaler.step(pair)
    scaler.update()
    assert torch.equal(weight, before)
    assert all(torch.equal(optimizer.state[weight][key], value) for key, value in kept.items())
