"""The search of a sweep: Optuna proposes values and is told a figure on the validation split. Its journal is in the sweep's folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any

from distillctl.analysis.comparison import lower_is_better
from distillctl.commands.sweep import Cell, Plan
from distillctl.commands.sweep_runner import Listed
from distillctl.errors import PluginError, ProfileError
from distillctl.profile.sweep import Axis, Range, rounded
from distillctl.profile.writing import value_text

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.log"


def require() -> None:
    """Checks that there is Optuna.

    Raises:
        PluginError: there is not.
    """
    if find_spec("optuna") is None:
        raise PluginError("`--optimize` needs `optuna`, which is not installed", hint="`pip install 'distillctl[optuna]'`")


def check_metric(made: Plan) -> None:
    """Checks that the data have a validation split, and the task the figure. Loads torch and the data.

    Raises:
        ProfileError: they have not.
    """
    from distillctl.build.data import inspected_task

    _, task, _ = inspected_task(made.profile, made.registry)
    metric = made.sweep.optimize
    if task.data.val is None:
        hint = "a search that looks at the test split finds what fits that one: set aside a validation split in [dataset]"
        raise ProfileError(f"`--optimize` needs a validation split, and {made.profile.path.name} has none", where="--optimize", hint=hint)
    if metric not in task.names:
        known = ", ".join(f"`{name}`" for name in task.names)
        raise ProfileError(f"no figure is called `{metric}`", where="--optimize", hint=f"there are {known}")


class Search:
    """Runs of a search, a trial at a time: the next is proposed when all runs of the last are given out.

    A trial is told when the runs of all its seeds are finished. One that has failed stays open, and the same command tries it again.
    """

    def __init__(self, made: Plan) -> None:
        self._plan = made
        self._controls = Listed(made.cells)
        self._open: dict[int, list[Cell]] = {}
        self._left: list[Cell] = []

    @cached_property
    def _study(self) -> Study:
        """Opened when the sweep has its folder for itself."""
        return _study(self._plan)

    @cached_property
    def _unfinished(self) -> list[FrozenTrial]:
        """Trials that earlier commands have left open."""
        return [trial for trial in self._study.trials if not trial.state.is_finished()]

    def next(self) -> Cell | None:
        """The next run of an open trial, or of a new one."""
        study = self._study  # before anything is trained: the one that is there may be another search
        if (cell := self._controls.next()) is not None:
            return cell
        while not self._left:
            trial = self._trial(study)
            if trial is None:
                return None
            cells = self._plan.cells_of({key: _suggest(trial, key, axis) for key, axis in self._plan.sweep.grid.items()})
            self._open[trial.number] = cells
            self._left = list(reversed(cells))
        return self._left.pop()

    def done(self, cell: Cell, finished: bool) -> None:
        """Tells Optuna the figure of each trial whose runs are all finished."""
        for number, cells in list(self._open.items()):
            if cell in cells and all(one.finished for one in cells) and not any(one in self._left for one in cells):
                del self._open[number]
                self._study.tell(number, fmean(self._figure(one) for one in cells))

    def _trial(self, study: Study) -> Trial | None:
        """One that an earlier command has left open, or a new one; None if there are enough."""
        import optuna

        left = self._unfinished.pop(0) if self._unfinished else None
        number = len(study.trials) if left is None else left.number
        if left is None and number >= self._plan.sweep.trials:
            return None
        # A seed of its own for every trial: a search that goes on proposes what it would have proposed without a stop.
        study.sampler = optuna.samplers.TPESampler(seed=self._plan.profile.seed + number)
        return study.ask() if left is None else optuna.Trial(study, left._trial_id)

    def _figure(self, cell: Cell) -> float:
        record = cell.record
        assert record is not None
        return record.figures("val")[self._plan.sweep.optimize]


def _study(made: Plan) -> Study:
    """The search as it is kept in the folder; only one command at a time works there, which holds its lock.

    Raises:
        ProfileError: another search is kept there.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = made.folder / JOURNAL
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # of a command that was killed; Optuna would wait for it
    metric = made.sweep.optimize
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="minimize" if lower_is_better(metric) else "maximize",
        load_if_exists=True,
    )
    space: Mapping[str, Any] = {"metric": metric, "seeds": list(made.seeds), "grid": {k: _written(a) for k, a in made.sweep.grid.items()}}
    if study.user_attrs.get("search", space) != space:
        message = f"`{made.folder}` holds a search for another figure, or with other values or seeds"
        raise ProfileError(message, where="--optimize", hint="name another folder; more `--trials` go on with the one that is there")
    study.set_user_attr("search", space)
    return study


def _written(axis: Axis) -> list[str]:
    return [str(axis)] if isinstance(axis, Range) else [value_text(value) for value in axis]


def _suggest(trial: Trial, key: str, axis: Axis) -> Any:
    if not isinstance(axis, Range):
        texts = _written(axis)
        return axis[texts.index(trial.suggest_categorical(key, texts))]
    if axis.whole:
        return trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log)
    return rounded(trial.suggest_float(key, axis.low, axis.high, log=axis.log))
