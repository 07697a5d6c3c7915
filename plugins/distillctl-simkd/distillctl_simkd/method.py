"""SimKD: the student takes over the teacher's classifier, and learns nothing but to project its last map onto the teacher's.

    L = mean (P(f_s) − f_t)²,    z_s = W_t · mean_hw P(f_s) + b_t

f_s (B, C_s, H, W): `student[student_stage]`, averaged to the teacher's size first where it is larger; P: the `projector`, whose output is
`student["head.projector"]`; f_t (B, C_t, H, W): `teacher[teacher_stage]`, detached, averaged to the student's size where that is
smaller; W_t, b_t: the teacher's classifier, frozen. z_s is what training and evaluation see as the student's logits.

Chen, Mei, Zhang, Wang, Feng, Chen, "Knowledge Distillation with the Reused Teacher Classifier", CVPR 2022, arXiv 2203.14001.

Where we differ: heights and widths are compared one by one; and a teacher whose classifier does not receive the average of the map is
refused when the run is assembled.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from distillctl import Batch, Features, Head, Method, Progress, RunError, Setup, Wants
from distillctl_simkd.losses import projection_loss
from distillctl_simkd.modules import projector, reused_classifier
from distillctl_simkd.options import SimKDOptions


class SimKD(Method):
    """mean (P(f_s) − f_t)², arXiv 2203.14001. One term.

    Reduction: mean over all elements; feeding a batch twice leaves it as it is. Zero where the projected map is the teacher's, and then
    the student's logits are the teacher's. The projector is trained, the classifier's copy never changes, and the student's own
    classifier is replaced: the deployed student has both.

    Raises:
        RunError: a stage is not a feature map (C, H, W), the student declares no classifier, or the teacher's classifier is not a Linear
            layer that receives the average of `teacher_stage`.
    """

    def __init__(self, options: SimKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        teacher = setup.require_teacher()
        channels, *size = setup.student.feature_map(options.student_stage, "simkd")
        teacher_channels, *teacher_size = teacher.feature_map(options.teacher_stage, "simkd")
        if setup.student.classifier is None:
            raise RunError(
                f"`simkd` puts the teacher's classifier in place of the student's, but `{setup.student.name}` declares none",
                hint="take a student whose `distillctl show` page names a classifier",
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        smaller = (min(size[0], teacher_size[0]), min(size[1], teacher_size[1]))
        if smaller != tuple(size):
            layers["resize"] = nn.AdaptiveAvgPool2d(smaller)
        layers["projector"] = projector(channels, teacher_channels, options.reduction)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten(1)
        dropped = getattr(setup.student.classifier, "p", 0.0)  # a classifier that drops a share of its inputs
        if dropped:
            layers["dropout"] = nn.Dropout(dropped)
        layers["classifier"] = reused_classifier(teacher, options.teacher_stage)
        self.layers = nn.Sequential(layers)

    @classmethod
    def wants(cls, options: SimKDOptions) -> Wants:
        """The student's map and its projection; the teacher's map, and what its classifier receives to compare it with."""
        return Wants(student=(options.student_stage, "head.projector"), teacher=(options.teacher_stage, "pooled"))

    def head(self) -> Head:
        """The projector, global average pooling, and the teacher's classifier."""
        return Head(feature=self.options.student_stage, layers=self.layers)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        return projection_loss(student["head.projector"], teacher[self.options.teacher_stage].detach())
