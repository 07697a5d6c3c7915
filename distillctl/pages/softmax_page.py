"""The answers of networks at several temperatures, as a page."""

from __future__ import annotations

import math

import numpy as np

from distillctl.analysis.softened import Shown, Temperatures, softmax
from distillctl.pages.markup import Markup, element, join, paragraph, section, table
from distillctl.pages.page import image, page

CLASSES = 10
"""Of the classes of an image the likeliest ones; the others together."""


def softmax_page(found: Temperatures) -> str:
    """The page."""
    sides = list(found.softened)
    head = ["temperature", *(f"{who}: {what}" for who in sides for what in ("entropy", "other classes"))]
    head += ["gradient", "on the label", "on the others"] if found.gradients else []
    rows = [numbers(found, i) for i in range(len(found.temperatures))]
    shown = [_image(found, one) for one in found.shown]
    told = map(paragraph, sentences(found))
    return page(f"softmax of {found.called}", *told, section("Means", table(head, rows)), section("Images", *shown))


def sentences(found: Temperatures) -> list[str]:
    """What the numbers are."""
    who = " and ".join(f"the {side} {name}" for side, name in found.names.items())
    classes, label = len(found.classes), "label" if found.labelled else f"{next(iter(found.names))}'s likeliest class"
    told = [
        f"Answers of {who} to {found.images}, softened: softmax(z / T).",
        f"Entropy in nats, at most ln {classes} = {math.log(classes):.3f}. Other classes: the probability of all but the {label}.",
    ]
    if found.gradients:
        told.append(
            f"Gradient of T² · KL(teacher ‖ student) by {found.against}: its length in the mean, and the shares of its square on the logit "
            f"of the {label} and on the others."
        )
    return told


def numbers(found: Temperatures, i: int) -> list[str]:
    """One line of the table: the temperature, for each network entropy and mass of other classes, and what the gradient is."""
    cells = [f"{found.temperatures[i]:g}"]
    for lines in found.softened.values():
        cells += [f"{lines[i].entropy:.4f}", f"{lines[i].others:.2%}"]
    if found.gradients:
        one = found.gradients[i]
        cells += [f"{one.size:.4g}", *("" if math.isnan(share) else f"{share:.1%}" for share in (one.label, one.others))]
    return cells


def likeliest(found: Temperatures, row: int, most: int = CLASSES) -> list[int]:
    """The classes to which the first network gives most, in this order."""
    first = next(iter(found.logits.values()))[row]
    order = np.argsort(-first, kind="stable")
    return [int(number) for number in order[:most]]


def _image(found: Temperatures, one: Shown) -> Markup:
    """A picture and the probabilities of its likeliest classes at each temperature."""
    chosen, classes = likeliest(found, one.row), found.classes
    tables = []
    for who, answers in found.logits.items():
        shares = np.stack([softmax(answers[one.row : one.row + 1], value)[0] for value in found.temperatures])
        rows: list[tuple[object, ...]] = [(_marked(classes[number], one.label), *map(_cell, shares[:, number])) for number in chosen]
        if len(classes) > len(chosen):
            rows.append((f"{len(classes) - len(chosen)} others", *map(_cell, 1 - shares[:, chosen].sum(1))))
        head = (who, *(f"T = {value:g}" for value in found.temperatures))
        tables.append(table(head, rows, class_="heat"))
    heading = element("h3", f"{one.name}: {one.label}" if one.label else one.name)
    return join([heading, element("div", image(one.file, one.name), class_="pictures"), element("div", join(tables), class_="beside")])


def _marked(name: str, label: str) -> object:
    return element("strong", name) if name == label else name


def _cell(share: float) -> Markup:
    share = max(0.0, float(share))
    return element("td", f"{share:.2%}", style=f"--share:{70 * share:.1f}%")
