"""The report of one run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillctl.analysis.calibration import reliability
from distillctl.analysis.curves import Curve, Panel, meaningful, number, panels
from distillctl.analysis.differing import Pictures, differences, read_pictures
from distillctl.analysis.per_class import accuracies, commonest, confusions, same_images
from distillctl.analysis.records import RunRecord
from distillctl.errors import DataError
from distillctl.files import read_json
from distillctl.pages.charts import chart, charts
from distillctl.pages.markup import Markup, details, element, join, paragraph, preformatted, section, table
from distillctl.pages.page import image, page
from distillctl.rundir.answers import Answers, answers_file, read_answers
from distillctl.text import counted, duration, magnitude, milliseconds

PAIRS = 20
"""Pairs of classes that are told."""
CLASSES = 40
"""Classes up to which all are shown at once; of more, those with most gain and most loss."""
_SIDES = ("student", "teacher", "control")


def run_page(run: RunRecord, control: RunRecord | None = None) -> str:
    """The page of a run. control: the run that learnt from labels alone and else is the same."""
    answers = _answers(run, control)
    classes = class_names(run.path)
    return page(
        run.path.name,
        _head(run),
        section("Figures", _figures(run, control)),
        section("Curves", charts(panels(run, control)) or paragraph("No epoch is finished yet.")),
        *_by_answers(run, answers, classes),
        section("Cost", _costs(run)),
        section("Profile", details("Every value that the run was trained with", preformatted(_resolved(run)))),
    )


def class_names(path: Path) -> Sequence[str]:
    """Names of the classes of a run, as its student has them; empty where it has none yet."""
    with suppress(OSError, ValueError):
        found = read_json(path / "model.json")
        if isinstance(found, dict) and isinstance(names := found.get("classes"), list):
            return [str(name) for name in names]
    return ()


def _head(run: RunRecord) -> Markup:
    taught = f"{run.teacher} → {run.student}" if run.teacher else run.student
    facts = {
        "state": "finished" if run.finished else f"not finished, {run.epoch} of {counted(run.epochs, 'epoch')}",
        "models": taught,
        "method": run.method,
        "data": ": ".join(filter(None, (run.data, str(run.info.get("data", ""))))),
        "seed": run.seed,
        "best epoch": f"{run.best_epoch} of {run.epochs}" if run.best_epoch else "",
        "begun": "" if run.created is None else f"{run.created:%Y-%m-%d %H:%M} UTC",
        "device": run.environment.get("device", ""),
        "directory": run.path,
    }
    return table(("", ""), [(name, value) for name, value in facts.items() if value != ""], class_="words")


def _figures(run: RunRecord, control: RunRecord | None) -> Markup:
    """Teacher, student and control side by side, on one split."""
    split = run.split
    teachers = found if isinstance(found := run.result.get("teachers"), dict) else {}
    columns: dict[str, Mapping[str, Any]] = {
        **{f"teacher {name}": figures for name, figures in teachers.items() if isinstance(figures, dict)},
        "teachers" if teachers else "teacher": found if isinstance(found := run.result.get("teacher"), dict) else {},
        f"student, epoch {run.best_epoch}": run.figures(split) if split else {},
        "last epoch": run.figures(split, "last") if split and run.best_epoch != _last_epoch(run) else {},
        "control": control.figures(split) if control is not None and split == control.split else {},
    }
    columns = {name: figures for name, figures in columns.items() if figures}
    if not columns:
        return paragraph("There are no figures yet.")
    student = run.figures(split)
    beside = columns.get("control", {})
    rows = []
    for name, words in run.names.items():
        values = [meaningful(run, name, figures.get(name)) for figures in columns.values()]
        if all(value is None for value in values):
            continue
        mine, theirs = meaningful(run, name, student.get(name)), meaningful(run, name, beside.get(name))
        gain = [] if not beside else ["" if mine is None or theirs is None else difference(run, name, mine - theirs)]
        rows.append((words, *("" if value is None else run.show(name, value) for value in values), *gain))
    sentences = [f"On {split}, which has {counted(int(count), 'image')}." if (count := number(student.get("count"))) else f"On {split}."]
    if (agreement := number(run.result.get("agreement"))) is not None:
        sentences.append(f"Student and teacher give the same answer to {agreement:.2%} of the images.")
    if (chance := number(run.result.get("chance"))) is not None:
        sentences.append(f"Guessing reaches {run.show(run.metric, chance)}.")
    if control is None and run.method != "none":
        sentences.append("There is no control: a finished run of the same profile with `--method none` beside it.")
    elif control is not None:
        sentences.append(f"The control learnt from labels alone: {control.path.name}.")
    head = ("", *columns, *(["gain over the control"] if beside else []))
    return join([table(head, rows), paragraph(" ".join(sentences))])


def difference(run: RunRecord, name: str, value: float) -> str:
    """A difference of two figures; one of percentages is in points."""
    shown = run.show(name, abs(value))
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{shown.removesuffix('%')} points" if shown.endswith("%") else f"{sign}{shown}"


def _last_epoch(run: RunRecord) -> int:
    found = run.result.get("last")
    return int(found.get("epoch", 0)) if isinstance(found, dict) else 0


def _answers(run: RunRecord, control: RunRecord | None) -> dict[str, Answers]:
    """What student, teacher and control answered to the same images, as far as it was kept."""
    found = {}
    files = {"student": answers_file(run.path, run.split), "teacher": answers_file(run.path, run.split, "teacher")}
    if control is not None:
        files["control"] = answers_file(control.path, run.split)
    for name, file in files.items():
        with suppress(DataError):
            found[name] = read_answers(file)
    if "student" not in found:
        return {}
    return {name: one for name, one in found.items() if same_images(found["student"], one)}


def _by_answers(run: RunRecord, answers: Mapping[str, Answers], classes: Sequence[str]) -> Iterator[Markup]:
    """What needs the answers to single images."""
    if "student" not in answers:
        hint = f"`distillctl eval {run.path}` keeps them, for images that have one class each."
        why = hint if run.finished else "The run is not finished."
        yield section("Classes, calibration and images", paragraph(f"The answers to single images are not there. {why}"))
        return
    highest = max(int(max(one.label.max(), one.classes.max())) if len(one.label) else 0 for one in answers.values())
    names = [*classes, *(str(i) for i in range(len(classes), highest + 1))]
    yield section("Classes", _classes(answers, names))
    yield section("Taken for each other", _confusions(answers, names))
    yield section("Calibration", _calibration(answers))
    yield section("Where student and teacher differ most", _differing(run, answers, names))


def _classes(answers: Mapping[str, Answers], names: Sequence[str]) -> Markup:
    """Accuracy of each class, and the gain over the control, or where there is none over the teacher."""
    found = {name: accuracies(one, len(names)) for name, one in answers.items()}
    against = "control" if "control" in found else "teacher" if "teacher" in found else ""
    gains = found["student"] - found[against] if against else found["student"]
    counts = [int((answers["student"].label == i).sum()) for i in range(len(names))] if len(names) <= CLASSES else []
    order = sorted((i for i in range(len(names)) if not math.isnan(gains[i])), key=lambda i: (-gains[i], i))
    sides = [name for name in _SIDES if name in found]
    head = ("class", *(["images"] if counts else []), *sides, *([f"gain over the {against}", ""] if against else []))
    largest = max((abs(float(gains[i])) for i in order), default=0.0) or 1.0

    def row(i: int) -> tuple[object, ...]:
        bar = [] if not against else [_signed(float(gains[i])), _bar(float(gains[i]), largest)]
        return names[i], *([counts[i]] if counts else []), *(f"{found[name][i]:.1%}" for name in sides), *bar

    if len(order) <= CLASSES:
        return table(head, map(row, order))
    half = CLASSES // 2
    between = details(f"{len(order) - 2 * half} classes between", table(head, map(row, order[half:-half])))
    return join([table(head, map(row, order[:half])), between, table(head, map(row, order[-half:]))])


def _signed(share: float) -> str:
    text = f"{share * 100:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _bar(value: float, largest: float) -> Markup:
    kind = "up" if value > 0 else "down"
    bar = element("span", "", class_=f"bar {kind}", style=f"--width:{abs(value) / largest * 8:.2f}rem") if value else ""
    return element("td", bar, class_="bars")


def _confusions(answers: Mapping[str, Answers], names: Sequence[str]) -> Markup:
    found = {name: confusions(answers[name]) for name in _SIDES if name in answers}
    pairs = commonest(found["student"], PAIRS)
    if not pairs:
        return paragraph("The student answers to every image rightly.")
    rows = [
        (f"{names[one.label]} → {names[one.taken]}", *(counts.get((one.label, one.taken), 0) for counts in found.values())) for one in pairs
    ]
    few = f"The {len(pairs)} pairs with most images of {len(found['student'])}." if len(pairs) < len(found["student"]) else ""
    return join([table(("class → taken for", *found), rows), *([paragraph(few)] if few else [])])


def _calibration(answers: Mapping[str, Answers]) -> Markup:
    lines, rows = [], []
    for name in _SIDES:
        if name in answers:
            one = answers[name]
            found = reliability(one.probabilities[:, 0], one.right)
            weight = (found.count / max(1, len(one.label))).tolist()
            lines.append(Curve(name, found.confidence.tolist(), found.accuracy.tolist(), weight=weight))
            sure = float(one.probabilities[:, 0].mean(dtype="float64"))
            rows.append((name, f"{found.error:.4f}", f"{sure:.2%}", f"{one.right.mean():.2%}"))
    told = paragraph(
        "Confidence is the largest probability of an answer. Below the diagonal a network is more confident than it is right. "
        "The expected calibration error is the mean distance from it, over 15 bins of equal width; a large point stands for many images."
    )
    panel = Panel("Accuracy by confidence", lines, percent=True)
    drawn = chart(panel, x="confidence", x_percent=True, diagonal=True)
    head = ("", "calibration error", "mean confidence", "accuracy")
    return join([element("div", drawn, class_="charts"), table(head, rows), told])


def _differing(run: RunRecord, answers: Mapping[str, Answers], names: Sequence[str]) -> Markup:
    if "teacher" not in answers:
        return paragraph("The teacher's answers are not there." if run.teacher else "The run has no teacher.")
    student, teacher = answers["student"], answers["teacher"]
    apart = differences(student, teacher)
    mean = f"The two answers are {apart.mean():.3f} apart in the mean over {counted(len(apart), 'image')}, from 0 (alike) to 1."
    try:
        pictures = read_pictures(run.path)
    except DataError:
        pictures = Pictures("", (), ())
    rows = {int(index): row for row, index in enumerate(student.index)}
    shown = [
        _picture(rows[index], file, apart[rows[index]], student, teacher, names)
        for index, file in zip(pictures.index, pictures.files, strict=True)
        if pictures.split == run.split and index in rows
    ]
    missing = (
        ""
        if shown
        else " Pictures of the images are not there: a training writes them at its end, and `distillctl eval --against-teacher` afterwards."
    )
    return join([paragraph(mean + missing), element("div", join(shown), class_="pictures")])


def _picture(row: int, file: bytes, apart: float, student: Answers, teacher: Answers, names: Sequence[str]) -> Markup:
    label = names[student.label[row]]
    lines = []
    for who, answers in (("student", student), ("teacher", teacher)):
        right = "right" if answers.right[row] else "wrong"
        said = f"{names[answers.classes[row, 0]]} {answers.probabilities[row, 0]:.0%}"
        lines.append(join([f"{who}: ", element("span", said, class_=right)]))
    told = [label, *lines, element("small", f"image {student.index[row]}, {apart:.2f} apart")]
    return element("figure", join([image(file, f"{label}, image {student.index[row]}"), element("figcaption", join(told, "<br>"))]))


def _costs(run: RunRecord) -> Markup:
    costs = run.info.get("costs")
    costs = costs if isinstance(costs, dict) else {}
    sides = [name for name in ("student", "teacher", "methods") if isinstance(costs.get(name), dict)]
    forwards: Mapping[str, Any] = found if isinstance(found := costs.get("forwards"), dict) else {}
    values = {
        "parameters": [_number(costs[side], "parameters", "{:,.0f}") for side in sides],
        "MACs of an image": [magnitude(found) if (found := number(costs[side].get("macs"))) else "" for side in sides],
        "ms of a forward": [milliseconds(found / 1000) if (found := number(costs[side].get("ms"))) else "" for side in sides],
        "images forward": [_number(forwards, side, "{:,.0f}") for side in sides],
    }
    rows = [(name, *cells) for name, cells in values.items() if any(cells)]
    facts = [f"{duration(run.seconds)} of training and evaluations"] if run.seconds else []
    if (images := number(costs.get("images"))) is not None:
        facts.append(f"{images:,.0f} training images seen")
    if (peak := number(costs.get("peak_memory"))) is not None:
        facts.append(f"{peak / 2**20:,.0f} MiB at the peak")
    if not rows and not facts:
        return paragraph("The costs are written when a run is finished.")
    where = next((str(costs[side].get("device", "")) for side in sides if costs[side].get("device")), "")
    facts += [f"a forward is of one image in float32 on {where}"] if where else []
    return join([*([table(("", *sides), rows)] if rows else []), *([paragraph("; ".join(facts) + ".")] if facts else [])])


def _number(values: Mapping[str, Any], key: str, form: str) -> str:
    found = number(values.get(key))
    return "" if found is None else form.format(found)


def _resolved(run: RunRecord) -> str:
    try:
        return (run.path / "resolved.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
