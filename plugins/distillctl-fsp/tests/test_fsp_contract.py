from distillctl.testing import MethodContract, make_setup
from distillctl.testing.tensors import GEOMETRIES
from distillctl_fsp.plugin import SPEC

STAGES = {"student_stages": ["stages"], "teacher_stages": ["stages"]}  # the made-up networks have no stem


class TestFSP(MethodContract):
    """In its phase, with pairs of equal width; all others are refused."""

    spec = SPEC
    options = STAGES
    phase = "init"
    refuses = frozenset(GEOMETRIES) - {"same"}

    def setup(self, geometry="same"):
        return super().setup(geometry)


class TestFSPJoint(MethodContract):
    """In the main part, with maps of any size: the teacher is given as many channels as the student."""

    spec = SPEC
    options = {**STAGES, "init_epochs": 0, "pool": "max"}
    refuses = frozenset({"fewer_stages"})

    def setup(self, geometry="student_maps_larger"):
        ours, theirs = (
            {name: shape for name, shape in shapes.items() if name in ("stage1", "stage2", "stage3")}
            for shapes in (GEOMETRIES[geometry].student, GEOMETRIES[geometry].teacher)
        )
        theirs = {name: (ours.get(name, shape)[0], *shape[1:]) for name, shape in theirs.items()}
        return make_setup(ours, theirs, self.num_classes, self.num_data)
