"""log Z and its gradients beside pytorch-struct (Rush, ACL 2020, arXiv 2002.00876): `python -m benchmarks.torch_struct`.

It is not among the dependencies: `pip install --no-deps torch-struct==0.5`. Two of its distributions: `TreeCRF`, a score for each
span, and `SentCFG`, a grammar whose rules A -> B C have nonterminals on the left, nonterminals and preterminals on the right, and
whose words have a score for each preterminal. Ours are ten lines each, over the same sentences without padding. Values and
gradients must agree first. Contestants run in turns in one process; medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import vertexflow as vf
from benchmarks.inside import RandomField, chart, step


class SentenceGrammar(vf.VertexFunction):
    """The inside algorithm of a grammar. A vertex's weights are divided by the largest, whose log is `m`.

    So an arc takes one exponential, not one for each pair of symbols; what is 87 below the largest in logs is 0 in float32.
    """

    def __init__(self, nonterminals: int, preterminals: int) -> None:
        super().__init__(state={"n": nonterminals, "t": preterminals, "m": 1})
        symbols = nonterminals + preterminals
        rules = torch.randn(nonterminals, symbols * symbols).log_softmax(-1)
        self.rules = nn.Parameter(rules.view(nonterminals, symbols, symbols))  # logs

    @vf.vertex("word")
    def word(self, v: vf.Vertex) -> None:
        score = v.pull("score")
        m = score.amax(-1, keepdim=True).detach()
        v.scatter(t=torch.exp(score - m), m=m)

    @vf.vertex("span")
    def span(self, v: vf.Vertex) -> None:
        arcs = v.arcs
        left, right = arcs.gather(0), arcs.gather(1)  # a word has no nonterminals, a span no preterminals: zeros
        m = left.m + right.m
        largest = v.max(m).detach()
        weight = torch.exp(m - arcs.expand(largest))
        of_left, of_right = weight * torch.cat([left.n, left.t], -1), torch.cat([right.n, right.t], -1)
        pairs = v.sum(of_left[:, :, None] * of_right[:, None, :])
        inside = pairs.flatten(1) @ self.rules.exp().flatten(1).t()
        scale = inside.amax(-1, keepdim=True).detach()
        n, m = inside / scale, largest + torch.log(scale)
        v.scatter(n=n, m=m)
        v.push(h=torch.log(n) + m)


@dataclass(frozen=True)
class Contestant:
    """`forward` gives log Z of each sentence; gradients are wanted of `leaves`, of the first of which `places` are compared."""

    forward: Callable[[], Tensor]
    leaves: list[Tensor]
    places: tuple[Tensor, ...] = ()


def random_field(lengths: list[int]) -> list[Contestant]:
    """A score for each span."""
    from torch_struct import TreeCRF

    batch, longest = vf.pack([chart(length) for length in lengths]), max(lengths)
    spans = [
        (number, first, first + extent)
        for number, length in enumerate(lengths)
        for extent in range(length)
        for first in range(length - extent)
    ]
    places = tuple(torch.tensor(spans).unbind(1))
    model, ours = RandomField(), torch.randn(batch.num_vertices, 1)
    theirs = torch.zeros(len(lengths), longest, longest, 1)
    theirs[places] = ours
    ours, theirs, roots = ours.requires_grad_(), theirs.requires_grad_(), batch.roots
    return [
        Contestant(lambda: model(batch, score=ours, outputs=roots).h.flatten(), [ours]),
        Contestant(lambda: TreeCRF(theirs, torch.tensor(lengths)).partition.flatten(), [theirs], places),
    ]


def grammar(lengths: list[int], nonterminals: int, preterminals: int) -> list[Contestant]:
    """A score for each preterminal of each word, and the rules of all sentences."""
    from torch_struct import SentCFG

    batch, longest = vf.pack([chart(length) for length in lengths]), max(lengths)
    words = [(number, place) for number, length in enumerate(lengths) for place in range(length)]
    places = tuple(torch.tensor(words).unbind(1))
    model, ours = SentenceGrammar(nonterminals, preterminals), torch.randn(len(words), preterminals)
    theirs = torch.zeros(len(lengths), longest, preterminals)
    theirs[places] = ours
    ours, theirs, roots = ours.requires_grad_(), theirs.requires_grad_(), batch.roots
    start = torch.zeros(len(lengths), nonterminals)  # logs of the weights of what a sentence begins with

    def partition() -> Tensor:
        rules = model.rules.expand(len(lengths), -1, -1, -1)
        return SentCFG((theirs, rules, start), torch.tensor(lengths)).partition.flatten()

    return [
        Contestant(lambda: model(batch, score=ours, outputs=roots).h.logsumexp(-1), [ours, model.rules]),
        Contestant(partition, [theirs, model.rules], places),
    ]


def difference(contestants: list[Contestant]) -> float:
    """How far the two are apart, relative to the largest value: of log Z, and of all gradients."""
    results = []
    for contestant in contestants:
        log_z, first, *others = step(contestant.forward, contestant.leaves)
        results.append([log_z, first[contestant.places], *others])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))


def measure(contestants: list[Contestant], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Medians in ms."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for own, contestant in zip(times, contestants, strict=True):
            start = clock()
            step(contestant.forward, contestant.leaves)
            own.append(1e3 * (clock() - start))
    return [statistics.median(own) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="sentences")
    parser.add_argument("--rounds", type=int, default=9, help="of both contestants in turns")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads")
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads, not of the clock: for busy machines"
    )
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    torch.set_num_threads(options.threads)
    for least, most in ((5, 40), (20, 20)):
        rng = random.Random(0)
        lengths = [rng.randint(least, most) for _ in range(options.batch)]
        for sizes in (None, (8, 4), (8, 16), (16, 16)):
            torch.manual_seed(0)
            contestants = grammar(lengths, *sizes) if sizes else random_field(lengths)
            apart = difference(contestants)
            if apart > 1e-4:
                raise SystemExit(f"they differ by {apart:.1e}")
            ours, theirs = measure(contestants, options.rounds, clock)
            title = "grammar of {} nonterminals, {} preterminals".format(*sizes) if sizes else "random field"
            print(
                f"{title}, {options.batch} sentences of {least} to {most} words: vertexflow {ours:.2f} ms, "
                f"pytorch-struct {theirs:.2f} ms, {theirs / ours:.1f} times as long"
            )


if __name__ == "__main__":
    main()
