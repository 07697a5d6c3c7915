"""The contract must fail for broken methods: each breach below is caught by the test named beside it."""

import inspect
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distillctl import Method, MethodSpec, Options, Preset, RunError, Wants
from distillctl.testing import MethodContract, light_imports


class Good(Method):
    """Squared distance of the projected last maps, mean over the batch and all elements. For tests."""

    compiles = True

    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.projection = nn.Conv2d(setup.student.channels("last"), setup.require_teacher().channels("last"), 1)
        self.register_buffer("count", torch.zeros(()))

    @classmethod
    def wants(cls, options):
        return Wants(student=("last",), teacher=("last",))

    def target(self, teacher):
        return teacher["last"].detach()

    def value(self, student, target):
        return (F.adaptive_avg_pool2d(self.projection(student), 1) - F.adaptive_avg_pool2d(target, 1)).square().mean()

    def forward(self, batch, student, teacher, progress):
        return self.value(student["last"], self.target(teacher))

    def after_step(self):
        self.count += 1


class Attached(Good):
    def target(self, teacher):
        return teacher["last"]


class Summed(Good):
    def value(self, student, target):
        return super().value(student, target) * len(student)


class Ordered(Good):
    def value(self, student, target):
        return super().value(student[:3], target[:3])


class NotScalar(Good):
    def value(self, student, target):
        return super().value(student, target)[None]


class Half(Good):
    autocast = True

    def value(self, student, target):
        return (self.projection(student) - F.adaptive_avg_pool2d(target, student.shape[-2:])).mean()


class Root(Good):
    """Naive norm: its gradient is NaN at zero."""

    def value(self, student, target):
        return self.projection(student).square().mean() * 0 + student.square().sum((1, 2, 3)).sqrt().mean()


class ViewOnly(Good):
    def value(self, student, target):
        return super().value(student, target) + student.view(len(student), -1).mean() * 0


class ForgottenBuffer(Good):
    """State that the state dict does not know."""

    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.seen = torch.zeros(())

    def forward(self, batch, student, teacher, progress):
        return super().forward(batch, student, teacher, progress) * (1 + self.seen)

    def after_step(self):
        self.seen = self.seen + 1


class LostParameter(Good):
    def parameter_groups(self):
        return [{"params": [self.projection.weight]}]


class IdleParameter(Good):
    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.idle = nn.Parameter(torch.ones(2))


class HoldsTheStudent(Good):
    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.student = setup.student.model


class WritesIntoFeatures(Good):
    def forward(self, batch, student, teacher, progress):
        teacher["last"].mul_(0.5)
        return super().forward(batch, student, teacher, progress)


class WantsTooMuch(Good):
    @classmethod
    def wants(cls, options):
        return Wants(student=("last", "stage1"), teacher=("last",))


class BranchesOnTheEpoch(Good):
    """A Python branch on a tensor breaks the graph."""

    def forward(self, batch, student, teacher, progress):
        value = super().forward(batch, student, teacher, progress)
        return value * 2 if progress.epoch > 1 else value


class CountsInPython(Good):
    """A Python number that changes becomes part of the graph."""

    calls = 0

    def forward(self, batch, student, teacher, progress):
        self.calls += 1
        return super().forward(batch, student, teacher, progress) * (1 + 0 * self.calls)


class RandomButDeclaredFixed(Good):
    def value(self, student, target):
        return super().value(student * (torch.rand_like(student) > 0.5), target)


class CapturedBadly(Good):
    """Multiplies its loss, or what it keeps, by something that a CUDA graph cannot take, or that a replay has wrong."""

    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.calls, self.seen = 0, []
        self.generator = torch.Generator()

    def forward(self, batch, student, teacher, progress):
        self.calls += 1
        value = super().forward(batch, student, teacher, progress)
        return value * self.factor(value, student["last"])


class ReadsAValue(CapturedBadly):
    def factor(self, value, student):
        return float(value)


class ReadsAValueInTheBackward(CapturedBadly):
    def factor(self, value, student):
        value.register_hook(lambda gradient: gradient * gradient.item())
        return 1


class ReadsAfterTheStep(Good):
    def after_step(self):
        self.count += float(self.count)


class PicksByMask(CapturedBadly):
    def factor(self, value, student):
        return student[student > 0].mean()


class CountsClasses(CapturedBadly):
    def factor(self, value, student):
        return student.argmax(1).unique().sum()


class Inverts(CapturedBadly):
    def factor(self, value, student):
        return torch.linalg.inv(torch.eye(3, device=value.device)).sum()


class BringsAList(CapturedBadly):
    def factor(self, value, student):
        return torch.tensor([1.0, 2.0], device=value.device).sum()


class RepeatsByATensor(CapturedBadly):
    def factor(self, value, student):
        counts = torch.ones(3, dtype=torch.int64, device=value.device)
        return torch.ones(3, device=value.device).repeat_interleave(counts).sum()


class HasItsOwnGenerator(CapturedBadly):
    def factor(self, value, student):
        return torch.rand((), generator=self.generator)


class MakesItOnTheCPU(CapturedBadly):
    def factor(self, value, student):
        return torch.ones(2).to(value.device).sum()


class MixesWithTheCPU(CapturedBadly):
    def factor(self, value, student):
        return torch.ones(())


class NumberOfTheStep(CapturedBadly):
    def factor(self, value, student):
        return 1 + 1 / self.calls


class ShapeOfTheStep(CapturedBadly):
    def factor(self, value, student):
        return value.new_ones(self.calls).sum()


class GrowsByTheStep(CapturedBadly):
    def factor(self, value, student):
        self.seen.append(value.detach())
        return torch.stack(self.seen).sum()


class LongerInTheEnd(Good):
    calls = 0

    def after_step(self):
        self.calls += 1
        self.count += 1
        if self.calls > 2:
            self.count.abs_()


class RefusesBadly(Good):
    def __init__(self, options, setup):
        if setup.student.shapes["last"][0] == 16:
            raise RunError("cannot")
        super().__init__(options, setup)


class BadOptions(Options):
    silent: int = 1
    weight: float = 1.0
    """Clashes with a core key."""


def spec_of(implementation, **values):
    return MethodSpec(
        **{
            "name": "made_up",
            "kind": "features",
            "summary": "for tests",
            "paper": "nobody, arXiv 0000.00000",
            "formula": "L",
            "implementation": f"made_up:{implementation.__name__}",
            **values,
        }
    )


@pytest.fixture(autouse=True)
def _module(monkeypatch):
    """The methods above, importable as the module `made_up`."""
    monkeypatch.setitem(__import__("sys").modules, "made_up", inspect.getmodule(Good))


def run(test, implementation, *arguments, **attributes):
    """Runs one test of the contract; `arguments` are its parameters."""
    case = type("Case", (MethodContract,), {"spec": spec_of(implementation), **attributes})()
    getattr(case, test)(*arguments)


CHECKS = [
    ("test_terms_are_finite_scalars", 7),
    ("test_same_seed_same_value_and_inputs_untouched",),
    ("test_duplicated_batch",),
    ("test_permuted_batch",),
    ("test_memory_layout_does_not_matter", "channels_last"),
    ("test_shapes_of_all_kinds", "narrower"),
    ("test_gradients_are_finite", 7),
    ("test_teacher_gets_no_gradient",),
    ("test_degenerate_features", "zero_rows", "student"),
    ("test_student_equal_to_teacher",),
    ("test_half_precision_features", torch.bfloat16),
    ("test_large_features", torch.float32, 1e4),
    ("test_parameter_groups",),
    ("test_training_changes_every_parameter",),
    ("test_state_dict_resumes_exactly",),
    ("test_compiles_once_for_all_epochs",),
    ("test_a_captured_step_can_be_replayed",),
    ("test_a_captured_step_stays_on_the_device",),
    ("test_spec_agrees_with_the_class",),
    ("test_options_are_described_and_strict",),
    ("test_presets_are_valid",),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check[0])
def test_a_good_method_passes(check):
    run(check[0], Good, *check[1:], spec=spec_of(Good, capturable=True))


BREACHES = [
    (Attached, "detach the teacher's", "test_teacher_gets_no_gradient"),
    (Summed, "not close", "test_duplicated_batch"),
    (Ordered, "`permutation_invariant = True` is not true", "test_permuted_batch"),
    (NotScalar, r"torch.Size\(\[1\]\) != \(\)", "test_terms_are_finite_scalars", 7),
    (Half, "in float32", "test_half_precision_features", torch.bfloat16),
    (Root, "the gradient of last is not finite", "test_degenerate_features", "zero_rows", "student"),
    (ForgottenBuffer, "what the state dict does not hold", "test_state_dict_resumes_exactly"),
    (LostParameter, "belongs into `parameter_groups`", "test_parameter_groups"),
    (LostParameter, r"did not move \['projection.bias'\]", "test_training_changes_every_parameter"),
    (IdleParameter, r"no gradient reaches \['idle'\]", "test_gradients_are_finite", 7),
    (HoldsTheStudent, "out of the method's submodules", "test_parameter_groups"),
    (WritesIntoFeatures, "the same seed gives another value", "test_same_seed_same_value_and_inputs_untouched"),
    (WantsTooMuch, r"wanted but without a gradient: \['stage1'\]", "test_gradients_are_finite", 7),
    (RandomButDeclaredFixed, "not close", "test_duplicated_batch"),
    (RandomButDeclaredFixed, "`permutation_invariant = True` is not true", "test_permuted_batch"),
]


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: f"{breach[0].__name__}-{breach[2]}")
def test_a_breach_is_caught(breach):
    implementation, message, test, *arguments = breach
    with pytest.raises(AssertionError, match=message):
        run(test, implementation, *arguments)


REPLAYED, ON_DEVICE = "test_a_captured_step_can_be_replayed", "test_a_captured_step_stays_on_the_device"


@pytest.mark.parametrize(
    ("implementation", "test", "message"),
    [
        (ReadsAValue, REPLAYED, "`_local_scalar_dense` waits"),
        (ReadsAValue, ON_DEVICE, "`_local_scalar_dense` waits"),
        (ReadsAValueInTheBackward, REPLAYED, "`_local_scalar_dense` waits"),
        (ReadsAfterTheStep, REPLAYED, "`_local_scalar_dense` waits"),
        (ReadsAfterTheStep, ON_DEVICE, "`_local_scalar_dense` waits"),
        (PicksByMask, REPLAYED, "`index` by a mask"),
        (CountsClasses, REPLAYED, "`_unique2` waits"),
        (Inverts, REPLAYED, "`_linalg_check_errors` waits"),
        (BringsAList, REPLAYED, "`lift_fresh` makes a tensor of Python's data"),
        (RepeatsByATensor, REPLAYED, "`repeat_interleave` waits"),
        (HasItsOwnGenerator, REPLAYED, "`rand` draws from a generator"),
        (MakesItOnTheCPU, ON_DEVICE, "`_to_copy` has tensors on cpu and cuda"),
        (MixesWithTheCPU, ON_DEVICE, "`mul` has tensors on cpu and cuda"),
        (NumberOfTheStep, REPLAYED, r"changes from .* 1\.5\), \{\}\) to .* 1\.33"),
        (ShapeOfTheStep, REPLAYED, r"changes from .*\[2\].* to .*\[3\]"),
        (GrowsByTheStep, REPLAYED, "changes from"),
        (LongerInTheEnd, REPLAYED, r"changes from (\d+) operations to"),
    ],
)
def test_a_capture_that_would_fail_or_lie_is_caught(implementation, test, message):
    with pytest.raises(AssertionError, match=f"^`capturable`: .*{message}"):
        run(test, implementation, spec=spec_of(implementation, capturable=True))
    run(test, implementation)  # which does not declare it


def test_a_wrapper_is_captured_with_its_inner_method_alone(monkeypatch):
    outer, inner = spec_of(ReadsAValue, capturable=True), spec_of(Good, capturable=True)
    for test in (REPLAYED, ON_DEVICE):
        monkeypatch.setattr(MethodContract, "build", lambda case, setup: ReadsAValue(None, setup))
        run(test, ReadsAValue, spec=outer, inner_spec=spec_of(Good))
        with pytest.raises(AssertionError, match="waits"):
            run(test, ReadsAValue, spec=outer, inner_spec=inner)


def test_a_view_of_a_layout_is_caught():
    with pytest.raises(RuntimeError, match="view"):
        run("test_memory_layout_does_not_matter", ViewOnly, "channels_last")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_branch_on_the_epoch_is_caught():
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent branching"):
        run("test_compiles_once_for_all_epochs", BranchesOnTheEpoch)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_recompilation_is_caught():
    with pytest.raises(AssertionError, match="graphs"):
        run("test_compiles_once_for_all_epochs", CountsInPython)


def test_a_refusal_must_be_declared_and_clear():
    with pytest.raises(RunError, match=r"cannot$"):
        run("test_shapes_of_all_kinds", RefusesBadly, "narrower")
    with pytest.raises(AssertionError, match="Regex"):
        run("test_shapes_of_all_kinds", RefusesBadly, "narrower", refuses=frozenset({"narrower"}))


def test_declared_exceptions_must_be_true():
    """`None` and `False` are no way to switch a test off."""
    with pytest.raises(AssertionError, match="duplication_factor"):
        run("test_duplicated_batch", Good, duplication_factor=None)
    with pytest.raises(AssertionError, match="`permutation_invariant = False` is not true"):
        run("test_permuted_batch", Good, permutation_invariant=False)


@pytest.mark.parametrize(
    ("test", "values", "message"),
    [
        ("test_spec_agrees_with_the_class", {"kind": "wrapper", "inner": "kd"}, r"an inner method: \(False, True, True\)"),
        ("test_spec_agrees_with_the_class", {"takes_temperature": True}, "`takes_temperature`"),
        ("test_spec_agrees_with_the_class", {"gives_head": True}, "`gives_head` tells"),
        ("test_spec_agrees_with_the_class", {"formula": ""}, "prints the formula"),
        ("test_presets_are_valid", {"presets": (Preset(dataset="cifar100", values={"weight": 2.0}),)}, "without a source"),
        ("test_presets_are_valid", {"presets": (Preset(values={"weight": 2.0}, source="paper"),)}, "without a condition"),
        ("test_options_are_described_and_strict", {"options": "made_up:BadOptions"}, r"without a description: \['BadOptions.silent'\]"),
    ],
)
def test_a_wrong_declaration_is_caught(test, values, message):
    with pytest.raises(AssertionError, match=message):
        run(test, Good, spec=spec_of(Good, **values))


def test_a_preset_with_an_unknown_option_is_caught():
    preset = Preset(dataset="cifar100", values={"betta": 2.0}, source="paper")
    with pytest.raises(ValueError, match="betta"):
        run("test_presets_are_valid", Good, spec=spec_of(Good, presets=(preset,)))


DECLARES = """
{imports}
from distillctl import MethodSpec
def register_method():
    return MethodSpec(name="made_up", kind="logits", summary="for tests", implementation="a:B", options="{options}")
"""


@pytest.mark.parametrize(
    ("imports", "options", "message"),
    [
        ("", "", ""),
        ("", "heavy_options:Options", "^the module of the options imports torch\n"),
        ("import torch", "", "^listing the methods imports torch\n"),
        ("import pydantic", "", "^listing the methods imports pydantic\n"),
        ("import no_such_module", "", "No module named 'no_such_module'"),
    ],
)
@pytest.mark.slow
def test_a_heavy_plugin_module_is_caught(tmp_path, monkeypatch, imports, options, message):
    (tmp_path / "heavy.py").write_text(DECLARES.format(imports=imports, options=options))
    (tmp_path / "heavy_options.py").write_text("import torch\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(light_imports, "_found", {})
    with pytest.raises(AssertionError, match=message) if message else nullcontext():
        run("test_plugin_module_is_light_and_registers_the_spec", Good, plugin_module="heavy")
