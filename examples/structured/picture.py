"""Marginals: the gradients of a sum over all structures by the scores, and of the best structure."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import vertexflow as vf

from . import graphs
from .inputs import positions_of, spread
from .models import Alignment, LinearChain
from .semirings import LogSum, Max, Semiring


def tag_marginals(scores: Tensor, transition: Tensor, semiring: Semiring) -> Tensor:
    """How much of the sum goes through each tag of each word, `[words, tags]`; of the best tags: 1, and 0 for others."""
    model = LinearChain(len(transition), semiring).to(scores)
    model.transition.data.copy_(transition)
    batch, scores = vf.pack([graphs.sentence(len(scores))]), scores.detach().requires_grad_()
    total = model(batch, score=scores).total[batch.roots]
    return torch.autograd.grad(total.sum(), scores)[0]


def letter_marginals(scores: Tensor, text: Tensor, semiring: Semiring) -> Tensor:
    """How much of the sum over alignments has each letter of the text, or a blank, at each frame: `[frames, positions]`."""
    model = Alignment(positions_of([text]), semiring).to(scores)
    batch, spread_text = vf.pack([graphs.sentence(len(scores))]), spread([text], [len(scores)])
    inputs = spread_text.read(scores.log_softmax(-1))
    inputs["score"] = inputs["score"].detach().requires_grad_()
    total = model(batch, **inputs).total[batch.roots]
    return torch.autograd.grad(total.sum(), inputs["score"])[0]


def draw(path: Path, seed: int) -> None:
    """Draw the marginals of a sentence and of an alignment, and the best of each above them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    torch.manual_seed(seed)
    scores, transition = torch.randn(16, 6), torch.randn(6, 6)
    frames, text = torch.randn(40, 8), torch.randint(1, 8, (9,))
    figure, panels = pyplot.subplots(2, 2, figsize=(9, 5))
    semirings: list[tuple[Semiring, str]] = [(LogSum(), "marginals"), (Max(), "the best")]
    for row, (semiring, title) in zip(panels, semirings, strict=True):
        images = (tag_marginals(scores, transition, semiring), letter_marginals(frames, text, semiring))
        for panel, image, what in zip(row, images, ("tags of a sentence", "letters of a recording"), strict=True):
            panel.imshow(image.T.numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=1)
            panel.set(title=f"{what}: {title}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
