"""One step of a run, without a Python branch on data and without a wait for the device: the teacher once, then every learner."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from distillctl.api.method import Batch, Progress
from distillctl.data.hashing import DRAWS, MIXING, STEP, hash_index, mix
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.learner import Learner
from distillctl.engine.memory import explained_shortage
from distillctl.engine.objective import Looks
from distillctl.engine.step_graph import StepGraph
from distillctl.engine.teacher import LiveTeacher, LiveTeachers
from distillctl.models.forward_errors import explained_forward


class Step:
    """The step of one part of an experiment, called once a batch. Making it makes the models ready for that part.

    Every step seeds torch's global generators from (seed, step): whatever a method or a dropout draws is the same after a
    resume, on any machine with the same torch.
    """

    def __init__(self, experiment: Experiment, part: Part | None = None) -> None:
        self.experiment = experiment
        self.part = experiment.main if part is None else part
        device = experiment.device
        self.learners = [
            Learner(experiment, objective, self.part, find=partial(self._culprits, number))
            for number, objective in enumerate(experiment.objectives)
        ]
        self.progress = Progress(torch.zeros((), device=device), torch.zeros((), device=device))
        self._first = True
        self.total_steps = self.part.epochs * experiment.loader.steps
        self._before = self.part.begin * experiment.loader.steps
        self._norms = tuple(dict.fromkeys(norm for learner in self.learners for norm in learner.objective.teacher_norms))
        # The same draws in all processes give every image what it would draw in one; dropout has to differ.
        self._draws = experiment.processes.rank if any(learner.draws for learner in self.learners) else 0
        if experiment.settings.compiled and isinstance(experiment.teacher, LiveTeacher | LiveTeachers):
            experiment.teacher.compile()
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index])
        self.graph: StepGraph | None = None
        if experiment.settings.cuda_graph != "off" and all(learner.leaves_out for learner in self.learners):
            self.graph = StepGraph(self._compute, self.learners, stated=experiment.settings.cuda_graph == "on")

    @property
    def learner(self) -> Learner:
        """The learner of a run that has one."""
        (only,) = self.learners
        return only

    def begin(self, step: int) -> None:
        """Sets generators, progress and learning rates for the step of this part, counted from 0."""
        experiment = self.experiment
        own = (self._draws,) if self._draws else ()
        seed = mix(experiment.settings.seed, STEP, self._before + step, *own)
        for generator in self._generators:  # `torch.manual_seed` asks for all kinds of devices, every time
            generator.manual_seed(seed)
        self.progress.epoch.fill_(step // experiment.loader.steps + 1)
        fraction = step / self.total_steps
        self.progress.fraction.fill_(fraction)
        rate = self.part.schedule(fraction)
        for learner in self.learners:
            learner.set_rate(rate)

    def look(self, batch: Batch) -> Looks:
        """What the teacher sees in the batch, for all learners."""
        teacher = self.experiment.teacher
        return {} if teacher is None or not self._norms else teacher.look(batch, self._norms)

    def __call__(self, batch: Batch, step: int) -> None:
        """Trains on one batch; `step` counts within the part, from 0.

        Raises:
            RunError: a number was not finite, and the weights are as before the step; or a model raised.
            MachineError: memory ran out.
        """
        students = [("the student ", one.objective.student.spec, one.objective.student) for one in self.learners]
        models = [*students, *(("the teacher ", network.spec, network) for network in self.experiment.networks)]
        # Once a model has worked, and wherever processes talk in the middle of a forward, a RuntimeError is about something else.
        but = () if self._first and self.experiment.processes.count == 1 else (RuntimeError,)
        methods = {name: method for one in self.learners for name, method in one.objective.methods.items()}
        explained = explained_forward(batch.images.shape[1:], *models, but=but, methods=methods)
        with explained_shortage(self.experiment, self.learners), explained:
            self.begin(step)
            batch = self._seeded(self._mixed(batch, step), step)
            if self.graph is None:
                self._compute(batch, step)
            else:
                self.graph(batch, step)
            for learner in self.learners:
                learner.follow(step, batch)
        self._first = False

    def _compute(self, batch: Batch, step: int) -> None:
        """All that a step sends to the device between the batch and the new weights; what can be captured and sent again."""
        for learner in self.learners:
            learner.finite_check.begin()
        pieces = self._pieces(batch)
        for number, piece in enumerate(pieces, start=1):
            looks = self.look(piece)
            for learner in self.learners:
                learner.learn(step, piece, looks, self.progress, last=number == len(pieces))
        for learner in self.learners:
            learner.update(step, batch)

    def _culprits(self, number: int, step: int, batch: Batch) -> list[str]:
        """Goes through a step again that was not taken: names of the parameters whose gradients are not finite.

        Several processes do not: those that found nothing would have to go along.
        """
        if self.experiment.processes.count > 1:
            return []
        learner = self.learners[number]
        self.begin(step)
        learner.finite_check.begin()
        for piece in self._pieces(batch):
            learner.learn(step, piece, self.look(piece), self.progress, last=True)
        return learner.not_finite()

    def _mixed(self, batch: Batch, step: int) -> Batch:
        mixing = self.experiment.settings.mixing
        if mixing is None:
            return batch
        rows = self.experiment.loader.share.rows(list(range(batch.total or batch.count)))
        return mixing(batch, mix(self.experiment.settings.seed, MIXING, self._before + step), rows)

    def _seeded(self, batch: Batch, step: int) -> Batch:
        if not self.experiment.task.draws:
            return batch
        return replace(batch, seeds=hash_index(batch.index, self.experiment.settings.seed, DRAWS, self._before + step))

    def first_piece(self, batch: Batch) -> Batch:
        """The first of the parts in which a batch of this process is computed, ready for the networks, as if it were alone."""
        piece = self._pieces(self._seeded(batch, 0))[0]
        return replace(piece, start=0, total=0, whole=0)

    def _pieces(self, batch: Batch) -> list[Batch]:
        """The parts of this process's images that are computed one after the other."""
        whole = batch.total or batch.count
        result, at = [], 0
        for piece in self.experiment.loader.share.pieces(whole):
            rows = slice(at, at + piece.end - piece.start)
            at = rows.stop
            targets = None if batch.targets is None else batch.targets[rows]
            soft = None if batch.soft is None else batch.soft[rows]
            seeds = None if batch.seeds is None else batch.seeds[rows]
            own = (batch.images[rows], batch.labels[rows], batch.index[rows])
            result.append(Batch(*own, piece.before, piece.total, whole, targets, soft, seeds))
        return result

    def check(self) -> None:
        """Waits for what is still to be read of past steps; called before anything is evaluated or saved.

        Raises:
            RunError: a number was not finite.
        """
        for learner in self.learners:
            learner.check()
