"""What a temperature makes of a network's answers, and of the gradient of distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Softened:
    """Means over images of softmax(z / T).

    entropy: in nats, from 0 to ln C.
    others: the probability of all classes but the label.
    """

    temperature: float
    entropy: float
    others: float


@dataclass(frozen=True)
class Gradient:
    """The gradient of T² · KL(p ‖ q) by the student's logits, T · (q − p), with p of the teacher and q of the student, both at T
    (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

    size: its length, the mean over images.
    label, others: the shares of its squared length, over all images, on the label's logit and on the other ones. NaN where it is 0.
    """

    size: float
    label: float
    others: float


def softmax(logits: NDArray[np.floating], temperature: float) -> Array:
    """Probabilities of the classes by logits z / T, in float64: (N, C)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    found: Array = powers / powers.sum(1, keepdims=True)
    return found


def softened(logits: NDArray[np.floating], label: NDArray[np.int64], temperature: float) -> Softened:
    """What T makes of answers. logits: (N, C). label: (N,)."""
    shares = softmax(logits, temperature)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)  # 0 · ln 0 is 0
    own = shares[np.arange(len(label)), label]
    return Softened(temperature, float(-(shares * logs).sum(1).mean()), float(1 - own.mean()))


def gradient(teacher: NDArray[np.floating], student: NDArray[np.floating], label: NDArray[np.int64], temperature: float) -> Gradient:
    """How a student is pushed. teacher, student: logits, (N, C). label: (N,)."""
    pushed = temperature * (softmax(student, temperature) - softmax(teacher, temperature))
    squares = pushed**2
    own, whole = squares[np.arange(len(label)), label].sum(), squares.sum()
    share = float(own / whole) if whole > 0 else float("nan")
    return Gradient(float(np.sqrt(squares.sum(1)).mean()), share, 1 - share)


@dataclass(frozen=True)
class Shown:
    """An image whose answers are shown. label: empty where it is not known. file: PNG or JPEG. row: in the logits."""

    name: str
    label: str
    file: bytes
    row: int


@dataclass(frozen=True)
class Temperatures:
    """What was found.

    called: the run or the profile.
    images: what the means are over, in words.
    labelled: whether labels are known; else the likeliest class stands for each.
    logits: of `teacher`, `student` or both: float64, (N, C).
    names: the models. against: by what the gradient is taken, in words; empty where there is none.
    softened: for each of them one line a temperature. gradients: the same, beside them.
    """

    called: str
    images: str
    labelled: bool
    classes: Sequence[str]
    temperatures: Sequence[float]
    logits: Mapping[str, NDArray[np.float64]]
    names: Mapping[str, str]
    against: str
    softened: Mapping[str, Sequence[Softened]]
    gradients: Sequence[Gradient]
    shown: Sequence[Shown]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        lines = []
        for i, temperature in enumerate(self.temperatures):
            line: dict[str, Any] = {"temperature": temperature}
            for who, found in self.softened.items():
                line[who] = {"entropy": found[i].entropy, "others": found[i].others}
            if self.gradients:
                one = self.gradients[i]
                line["gradient"] = {key: None if math.isnan(value) else value for key, value in vars(one).items()}
            lines.append(line)
        return {"of": self.called, **self.names, "images": self.images, "labelled": self.labelled, "temperatures": lines}
