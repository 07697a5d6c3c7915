from distillctl.testing import MethodContract
from distillctl_reviewkd.plugin import SPEC


class TestReviewKD(MethodContract):
    spec = SPEC


class TestReviewKDOfActivatedStages(MethodContract):
    """Stages alone, after their ReLU, with fewer channels in the middle."""

    spec = SPEC
    options = {"teacher_stages": ["stages"], "pooled": False, "mid_channels": 5}
