"""The inside algorithm (CKY) over hypergraphs, beside a padded dense chart: `python -m benchmarks.inside`.

Two models of the bracketings of a sentence. A *conditional random field* has a score for each span. A *grammar* has states of
some nonterminals and a weight for each rule A -> B C as well. A step computes log Z of every sentence and its gradients with
respect to all scores (the marginals of spans) and rules. The peer keeps charts of all sentences side by side, as long as the
longest, once by the first word of spans and once by their last; all spans of one length are computed at once, with
`torch.logsumexp` over split points. Values and gradients must agree first. Contestants run in turns in one process; medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import vertexflow as vf

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # of the largest value


def chart(length: int) -> vf.InputGraph:
    """The spans of a sentence, by length and then by first word: kinds "word" and "span"; an arc for each split of a span."""
    first = np.cumsum([0, *range(length, 0, -1)])  # of the spans of each length
    arcs = [np.zeros((3, 0), np.int64)]
    for size in range(2, length + 1):
        start = np.repeat(np.arange(length - size + 1), size - 1)
        left = np.tile(np.arange(1, size), length - size + 1)  # how many words are left of the split
        arcs.append(np.stack([first[left - 1] + start, first[size - left - 1] + start + left, first[size - 1] + start]))
    kinds = ["word"] * length + ["span"] * int(first[-1] - length)
    return vf.hypergraph(int(first[-1]), np.concatenate(arcs, 1), kind=kinds, arity=2)


class _Inside(vf.VertexFunction):
    @vf.vertex("word")
    def word(self, v: vf.Vertex) -> None:
        h = v.pull("score")
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("span")
    def span(self, v: vf.Vertex) -> None:
        h = self.combine(v) + v.pull("score")
        v.scatter(h=h)
        v.push(h=h)

    def combine(self, v: vf.Vertex) -> Tensor:
        raise NotImplementedError


class RandomField(_Inside):
    """The log of the sum over all bracketings of a span of the products of its spans' weights."""

    def __init__(self) -> None:
        super().__init__(state={"h": 1})

    def combine(self, v: vf.Vertex) -> Tensor:
        arcs = v.arcs
        return v.logsumexp(arcs.gather(0).h + arcs.gather(1).h)


class Grammar(_Inside):
    """The same for each nonterminal A of a span, over the rules A -> B C."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size})
        self.rules = nn.Parameter(torch.randn(size, size, size))  # logs

    def combine(self, v: vf.Vertex) -> Tensor:
        arcs = v.arcs
        return over_rules(v.logsumexp(arcs.gather(0).h[:, :, None] + arcs.gather(1).h[:, None, :]), self.rules)


def over_rules(pairs: Tensor, rules: Tensor) -> Tensor:
    """[..., B, C] -> [..., A], in logs."""
    flat = pairs.flatten(-2)
    largest = flat.amax(-1, keepdim=True).detach()
    return torch.log((flat - largest).exp() @ rules.exp().flatten(1).t()) + largest


def dense(scores: Tensor, rules: Tensor | None, lengths: Sequence[int]) -> Tensor:
    """The states of whole sentences, [batch, size], from scores [batch, length of span - 1, first word, size]."""
    longest = scores.shape[1]
    by_first, by_last = (torch.zeros_like(scores) for _ in range(2))  # [batch, word, length of span - 1, size]
    by_first[:, :, 0] = by_last[:, :, 0] = scores[:, 0]
    for size in range(2, longest + 1):
        count = longest - size + 1
        left, right = by_first[:, :count, : size - 1], by_last[:, size - 1 :, : size - 1].flip(2)
        if rules is None:
            inside = torch.logsumexp(left + right, 2)
        else:
            inside = over_rules(torch.logsumexp(left[..., :, None] + right[..., None, :], 2), rules)
        inside = inside + scores[:, size - 1, :count]
        by_first[:, :count, size - 1] = by_last[:, size - 1 :, size - 1] = inside
    return torch.stack([by_first[number, 0, length - 1] for number, length in enumerate(lengths)])


@dataclass(frozen=True)
class Task:
    """Two contestants, each with what it wants gradients of, in the same order; `places`: where a dense chart has our spans."""

    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    our_leaves: list[Tensor]
    their_leaves: list[Tensor]
    places: tuple[Tensor, ...]
    title: str


def make(size: int, batch_size: int, words: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Task:
    """The task; `size` nonterminals, or 0 for the random field, and sentences of so many words."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    lengths = [rng.randint(*words) for _ in range(batch_size)]
    batch = vf.pack([chart(length) for length in lengths])
    model = (Grammar(size) if size else RandomField()).to(dtype)
    scores = torch.randn(batch.num_vertices, max(size, 1), dtype=dtype)
    longest = max(lengths)
    spans = [
        (number, extent, first)
        for number, length in enumerate(lengths)
        for extent in range(length)
        for first in range(length - extent)
    ]
    places = torch.tensor(spans).unbind(1)
    padded = torch.zeros(batch_size, longest, longest, max(size, 1), dtype=dtype)
    padded[places] = scores
    rules = model.rules if isinstance(model, Grammar) else None
    roots = batch.roots
    scores, padded, shared = scores.requires_grad_(), padded.requires_grad_(), [] if rules is None else [rules]
    return Task(
        lambda: model(batch, score=scores, outputs=roots).h.logsumexp(-1),
        lambda: dense(padded, rules, lengths).logsumexp(-1),
        [scores, *shared],
        [padded, *shared],
        places,
        f"{f'grammar of {size} nonterminals' if size else 'random field'}, {batch_size} sentences of {words[0]} to "
        f"{words[1]} words, {batch.num_vertices:,} spans, {batch.num_arcs:,} arcs",
    )


def step(forward: Callable[[], Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """log Z of each sentence, and the gradients of their sum."""
    log_z = forward()
    return [log_z.detach(), *torch.autograd.grad(log_z.sum(), leaves)]


def difference(task: Task) -> float:
    """How far the contestants are apart, relative to the largest value: of log Z, and of all gradients."""
    ours, theirs = step(task.ours, task.our_leaves), step(task.theirs, task.their_leaves)
    theirs[1] = theirs[1][task.places]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


def measure(task: Task, rounds: int) -> tuple[float, float]:
    """Medians in ms, ours and the dense chart's."""
    contestants = [(task.ours, task.our_leaves), (task.theirs, task.their_leaves)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for own, contestant in zip(times, contestants, strict=True):
            start = time.perf_counter()
            step(*contestant)
            own.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 8], help="nonterminals; 0: the random field")
    parser.add_argument(
        "--words", type=int, nargs="+", default=[5, 40, 20, 20], help="least and most words, pair after pair"
    )
    parser.add_argument("--batch", type=int, default=32, help="sentences")
    parser.add_argument("--rounds", type=int, default=9, help="of both contestants in turns")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        for words in zip(options.words[::2], options.words[1::2], strict=True):
            task = make(size, options.batch, words)
            apart = difference(task)
            if apart > TOLERANCE[torch.float32]:
                raise SystemExit(f"{task.title}: they differ by {apart:.1e}")
            ours, theirs = measure(task, options.rounds)
            print(
                f"{task.title}: vertexflow {ours:.2f} ms, dense chart {theirs:.2f} ms, {theirs / ours:.1f} times as long"
            )


if __name__ == "__main__":
    main()
