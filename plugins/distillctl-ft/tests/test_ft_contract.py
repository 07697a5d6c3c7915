from distillctl.testing import MethodContract
from distillctl_ft.plugin import SPEC


class TestFT(MethodContract):
    spec = SPEC


class TestFTParaphraser(MethodContract):
    """The phase before the main part: an autoencoder of the teacher's map, without the student."""

    spec = SPEC
    phase = "paraphraser"
    phase_has_student = False


class TestFTFull(MethodContract):
    """Whole factors, squared differences, no batch normalisation, an earlier stage."""

    spec = SPEC
    options = {"factor": "full", "p2": 2.0, "batch_norm": False, "student_stage": "stage2", "teacher_stage": "stage2"}
