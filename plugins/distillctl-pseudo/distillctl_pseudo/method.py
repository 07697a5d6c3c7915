"""`pseudo`: what the teacher is sure of is learnt as if it were labels.

    L = label loss against the answers a of the teacher with score(a) ≥ threshold, where each has the factor weight · score(a)

For classification an answer is the most likely class of an image, and its score the probability; for a detector it is a box with its class,
and the class score. Images with labels keep these where others have none, unless `images` is `all`.

Lee, ICML Workshop on Challenges in Representation Learning 2013; the threshold as in Sohn et al. 2020, arXiv 2001.07685.

Where we differ from Lee: the teacher is another network and not the student itself; an answer counts by its score (`soft = false`: once);
his factor α(t), which grows over the epochs, is `weight` with `warmup_epochs`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import Batch, Features, Guesses, Method, Progress, Relabels, RunError, Setup
from distillctl_pseudo.options import PseudoOptions

_NO_LABEL = -1


class Pseudo(Method):
    """Label loss against a teacher's answers of score ≥ threshold, weighted by their scores (Lee 2013). No terms, no parameters.

    Reduction: that of the task's label loss; weights do not change by what its sums are divided.

    Raises:
        RunError: only images without labels are to learn, and there are none.
    """

    def __init__(self, options: PseudoOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        bare = bool((setup.labels == _NO_LABEL).any())
        if options.images == "unlabelled" and not bare:
            raise RunError(
                "`pseudo` gives labels to images without, and all images have their own",
                hint='`images = "all"` learns the teacher\'s answers in place of the labels; `dataset.unlabelled` adds images',
            )
        self.threshold, self.soft = options.threshold, options.soft
        self.every = options.images == "all" or not bare
        if options.images is None and self.every:
            self.notes = ("`pseudo` learns the teacher's answers in place of all labels, since no image is without one",)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """No terms."""
        return {}

    def relabel(self, guesses: Guesses, progress: Progress) -> Relabels:
        sure = guesses.scores >= self.threshold
        weights = guesses.scores if self.soft else torch.ones_like(guesses.scores)
        images = torch.ones_like(guesses.labelled) if self.every else ~guesses.labelled
        return Relabels(torch.where(sure, weights, 0.0), images)
