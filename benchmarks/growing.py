"""Runs whose structure depends on values, beside lists of tensors in plain PyTorch: `python -m benchmarks.growing`.

Two tasks, in one process, in turns. *parser*: SPINN with its tracking LSTM (Bowman et al., ACL 2016), which chooses its own
actions; a training step of 64 sentences. *beam*: a GRU with attention over its own past, 16 sentences with 5 hypotheses each;
a search, and a training step over what the search kept. In plain PyTorch, each sentence, or hypothesis, has a list of tensors
of its own, which are joined for every step and taken apart after it. Both have the same weights and give the same numbers.

With `--extend`, what one extension of a binary TreeLSTM costs, forward and backward together: of a run of 100 of them. With
`--kinds` as well, one by vertices of two kinds by turns, beside two extensions, by those of one kind each.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import vertexflow as vf

from .workloads.treelstm import BinaryTreeLSTM

SHIFT, REDUCE = 0, 1


class Spinn(vf.VertexFunction):
    """Words, the steps of the tracking LSTM, and compositions; h and c are of words and compositions, t and u of the tracker."""

    def __init__(self, hidden: int, tracker: int) -> None:
        super().__init__(state={"h": hidden, "c": hidden, "t": tracker, "u": tracker})
        self.track = nn.Linear(3 * hidden + tracker, 4 * tracker)
        self.score = nn.Linear(tracker, 2)
        self.compose = nn.Linear(2 * hidden + tracker, 5 * hidden)

    @vf.vertex("word")
    def words(self, v: vf.Vertex) -> None:
        h, c = v.pull("x").chunk(2, -1)
        v.scatter(h=h, c=c)
        v.push(h=h)

    @vf.vertex("track")
    def trackers(self, v: vf.Vertex) -> None:
        before, top, below, front = (v.gather(slot) for slot in range(4))
        t, u, score = self.tracked(torch.cat([top.h, below.h, front.h, before.t], -1), before.u)
        v.scatter(t=t, u=u)
        v.push(score=score)

    @vf.vertex("reduce")
    def reductions(self, v: vf.Vertex) -> None:
        left, right, track = (v.gather(slot) for slot in range(3))
        h, c = self.composed(torch.cat([left.h, right.h, track.t], -1), left.c, right.c)
        v.scatter(h=h, c=c)
        v.push(h=h)

    def tracked(self, read: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tracker's new state, and the scores of SHIFT and REDUCE."""
        i, f, o, g = self.track(read).chunk(4, -1)
        u = torch.sigmoid(f) * u + torch.sigmoid(i) * torch.tanh(g)
        t = torch.sigmoid(o) * torch.tanh(u)
        return t, u, self.score(t)

    def composed(self, read: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The state of a composition."""
        i, o, g, fl, fr = self.compose(read).chunk(5, -1)
        c = torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(fl) * left + torch.sigmoid(fr) * right
        return torch.sigmoid(o) * torch.tanh(c), c


def allowed_actions(scores: np.ndarray, more: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The better action where both are possible; else the possible one."""
    return np.where(height < 2, SHIFT, np.where(more, scores.argmax(-1), REDUCE))


def parse_growing(model: Spinn, words: Tensor, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """What roots and trackers push; `words` [sum of lengths, 2 * hidden]."""
    run = model.start(x=words, kind="word")
    count = len(lengths)
    front, stop = np.cumsum(lengths) - lengths, np.cumsum(lengths)
    stack, height = np.full((count, int(lengths.max()) + 2), -1), np.full(count, 2)  # two for what is missing
    tracker, live, tracks = np.full(count, -1), np.arange(count), []
    while len(live):
        top, below = stack[live, height[live] - 1], stack[live, height[live] - 2]
        more = front[live] < stop[live]
        new = run.extend(np.stack([tracker[live], top, below, np.where(more, front[live], -1)], 1), kind="track")
        tracks.append(new)
        tracker[live] = new.numpy()
        with torch.no_grad():
            scores = run[new].score.numpy()
        action = allowed_actions(scores, more, height[live] - 2)
        shift, reduce = live[action == SHIFT], live[action == REDUCE]
        stack[shift, height[shift]] = front[shift]
        height[shift] += 1
        front[shift] += 1
        if len(reduce):
            is_reduced = action == REDUCE
            composed = run.extend(np.stack([below[is_reduced], top[is_reduced], tracker[reduce]], 1), kind="reduce")
            height[reduce] -= 1
            stack[reduce, height[reduce] - 1] = composed.numpy()
        live = live[(front[live] < stop[live]) | (height[live] > 3)]
    return run[stack[:, 2]].h, run[torch.cat(tracks)].score


def parse_lists(model: Spinn, words: Tensor, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """The same with a stack and a buffer of tensors for each sentence."""
    hidden, size = model.state["h"][0], model.state["t"][0]
    nothing, no_track = words.new_zeros(1, 2 * hidden), words.new_zeros(1, 2 * size)
    buffers = [list(part.split(1))[::-1] for part in words.split(lengths.tolist())]
    stacks: list[list[Tensor]] = [[] for _ in lengths]
    trackers, live, all_scores = [no_track] * len(lengths), list(range(len(lengths))), []
    while live:
        tops = torch.cat([stacks[i][-1] if stacks[i] else nothing for i in live])
        below = torch.cat([stacks[i][-2] if len(stacks[i]) > 1 else nothing for i in live])
        front = torch.cat([buffers[i][-1] if buffers[i] else nothing for i in live])
        t, u = torch.cat([trackers[i] for i in live]).chunk(2, -1)
        t, u, scores = model.tracked(torch.cat([tops[:, :hidden], below[:, :hidden], front[:, :hidden], t], -1), u)
        for i, tracker in zip(live, torch.cat([t, u], -1).split(1), strict=True):
            trackers[i] = tracker
        all_scores.append(scores)
        more, height = np.array([bool(buffers[i]) for i in live]), np.array([len(stacks[i]) for i in live])
        action = allowed_actions(scores.detach().numpy(), more, height)
        reduced = []
        for i, chosen in zip(live, action.tolist(), strict=True):
            if chosen == SHIFT:
                stacks[i].append(buffers[i].pop())
            else:
                reduced.append((i, stacks[i].pop(), stacks[i].pop()))
        if reduced:
            right, left = (torch.cat([item[side] for item in reduced]) for side in (1, 2))
            track = torch.cat([trackers[i] for i, _, _ in reduced])[:, :size]
            read = torch.cat([left[:, :hidden], right[:, :hidden], track], -1)
            h, c = model.composed(read, left[:, hidden:], right[:, hidden:])
            for (i, _, _), composed in zip(reduced, torch.cat([h, c], -1).split(1), strict=True):
                stacks[i].append(composed)
        live = [i for i in live if buffers[i] or len(stacks[i]) > 1]
    return torch.cat([stack[0] for stack in stacks])[:, :hidden], torch.cat(all_scores)


class Decoder(vf.VertexFunction):
    """A GRU over words; a vertex is a hypothesis, its child the one that it goes on from."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__(state={"h": hidden})
        self.embed = nn.Embedding(vocabulary, hidden)  # of the words, outside of the vertex function
        self.x, self.h = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.score = nn.Linear(hidden, vocabulary)

    def vertex(self, v: vf.Vertex) -> None:
        h = self.cell(v.pull("x"), v.gather(0).h)
        v.scatter(h=h)
        v.push(score=self.score(h))

    def cell(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state."""
        (r, z, n), (hr, hz, hn) = self.x(x).chunk(3, -1), self.h(h).chunk(3, -1)
        z = torch.sigmoid(z + hz)
        return (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h


def best(scores: Tensor, total: np.ndarray, beam: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each sentence the best continuations of its hypotheses: their sums of scores, hypotheses and words."""
    sums = torch.log_softmax(scores, -1).double().numpy() + total.reshape(-1, 1)
    sums = sums.reshape(len(total), -1)
    at = np.argsort(-sums, 1, kind="stable")[:, :beam]
    return np.take_along_axis(sums, at, 1), at // scores.shape[1], at % scores.shape[1]


def search_growing(model: Decoder, first: Tensor, beam: int, steps: int) -> Tensor:
    """The scores of the words of the hypotheses that are left, [sentences * beam, steps]."""
    run = model.start(x=first)
    vertices = np.arange(len(first)).reshape(-1, 1)
    total, words = np.zeros((len(first), 1)), np.zeros((len(first), 1, 0), np.int64)
    path = np.zeros((len(first), 1, 0), np.int64)
    for _ in range(steps):
        with torch.no_grad():
            total, parent, word = best(run[vertices.reshape(-1)].score, total, beam)
        before = np.take_along_axis(vertices, parent, 1)
        path = np.concatenate([np.take_along_axis(path, parent[..., None], 1), before[..., None]], -1)
        words = np.concatenate([np.take_along_axis(words, parent[..., None], 1), word[..., None]], -1)
        new = run.extend(before.reshape(-1, 1), x=model.embed(torch.from_numpy(word.reshape(-1))))
        vertices = new.numpy().reshape(len(first), beam)
    scores = torch.log_softmax(run[path.reshape(-1)].score, -1)
    return scores.gather(1, torch.from_numpy(words.reshape(-1, 1))).view(-1, steps)


def search_lists(model: Decoder, first: Tensor, beam: int, steps: int) -> Tensor:
    """The same, where each hypothesis has a tensor of its own."""
    h = model.cell(first, torch.zeros_like(first))
    scores = model.score(h)
    states = [[row] for row in h.split(1)]
    kept = [[[]] for _ in states]
    total = np.zeros((len(first), 1))
    for _ in range(steps):
        total, parent, word = best(scores.detach(), total, beam)
        logs = [part.split(1) for part in torch.log_softmax(scores, -1).split(len(states[0]))]
        kept = [
            [[*kept[i][p], logs[i][p][0, w]] for p, w in zip(parent[i], word[i], strict=True)]
            for i in range(len(states))
        ]
        before = torch.cat([states[i][p] for i in range(len(states)) for p in parent[i]])
        h = model.cell(model.embed(torch.from_numpy(word.reshape(-1))), before)
        scores = model.score(h)
        states = [list(part.split(1)) for part in h.split(beam)]
    return torch.stack([torch.stack(hypothesis) for sentence in kept for hypothesis in sentence])


def extension(hidden: int, rows: int, rounds: int, extensions: int = 100) -> float:
    """The processor time of an extension by `rows` vertices, forward and backward together, in seconds: a median."""
    model, x = BinaryTreeLSTM(hidden, hidden), torch.randn(rows, hidden)
    leaves, seconds = torch.randn(2 * rows, hidden), []
    for _ in range(rounds + 1):
        model.zero_grad()
        started = time.process_time()
        run = model.start(x=leaves)
        new = np.arange(2 * rows)
        for _ in range(extensions):
            new = run.extend(np.stack([new[:rows], new[-rows:]], 1), x=x).numpy()
        run[new].h.sum().backward()
        seconds.append((time.process_time() - started) / extensions)
    return float(np.median(seconds[1:]))


class TwoKinds(vf.VertexFunction):
    """Leaves, and two kinds of vertices that read two children each."""

    def __init__(self, hidden: int) -> None:
        super().__init__(state={"h": hidden})
        self.one, self.other = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)

    @vf.vertex("leaf")
    def leaves(self, v: vf.Vertex) -> None:
        h = v.pull("x")
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("one")
    def ones(self, v: vf.Vertex) -> None:
        h = torch.tanh(self.one(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("other")
    def others(self, v: vf.Vertex) -> None:
        h = torch.sigmoid(self.other(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)


def extensions_by_kinds(hidden: int, rows: int, rounds: int, extensions: int = 100) -> tuple[float, float]:
    """The processor time, forward and backward together, of an extension by `rows` vertices of two kinds by turns, and of two
    extensions by half as many of one kind each, which read the same; in seconds, medians."""
    model, leaves = TwoKinds(hidden), torch.randn(2 * rows, hidden)
    kinds = ["one", "other"] * (rows // 2)
    rng = np.random.default_rng(0)
    tables = [
        rng.integers(max(0, start - rows), start + rows, (rows, 2)) for start in range(rows, rows * extensions, rows)
    ]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for is_apart, times in enumerate(seconds):
            model.zero_grad()
            started = time.process_time()
            run = model.start(x=leaves, kind="leaf")
            for table in tables:
                if is_apart:
                    run.extend(table[: rows // 2], kind="one")
                    run.extend(table[rows // 2 :], kind="other")
                else:
                    run.extend(table, kind=kinds)
            run[run.num_vertices - rows :].h.sum().backward()
            times.append((time.process_time() - started) / len(tables))
    joint, apart = (float(np.median(times[1:])) for times in seconds)
    return joint, apart


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the milliseconds of each contestant, and how many times as long lists take."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growing", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--extend", type=int, nargs="+", metavar="N", help="instead: an extension by N vertices")
    parser.add_argument("--kinds", action="store_true", help="with --extend: of two kinds, beside two extensions")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.extend:
        for hidden, rows in itertools.product(options.hidden, options.extend):
            if options.kinds:
                joint, apart = extensions_by_kinds(hidden, rows, options.rounds)
                print(
                    f"extension by {rows:3} of two kinds, hidden {hidden:4}: {1e3 * joint:.2f} ms, two: {1e3 * apart:.2f} ms"
                )
                continue
            print(f"extension by {rows:3}, hidden {hidden:4}: {1e3 * extension(hidden, rows, options.rounds):.2f} ms")
        return
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 31, 64)
    for hidden in options.hidden:
        spinn, words = Spinn(hidden, hidden // 2), torch.randn(int(lengths.sum()), 2 * hidden)
        decoder, first = Decoder(100, hidden), torch.randn(16, hidden)

        def parsed(parse: Callable[..., tuple[Tensor, Tensor]], spinn: Spinn = spinn, words: Tensor = words) -> Tensor:
            roots, scores = parse(spinn, words, lengths)
            return roots.square().mean() + torch.logsumexp(scores, -1).mean()

        def searched(
            search: Callable[..., Tensor], decoder: Decoder = decoder, first: Tensor = first, steps: int = 30
        ) -> Tensor:
            return -search(decoder, first, 5, steps).mean()

        for task, model, loss, contestants in (
            ("parser", spinn, parsed, (parse_growing, parse_lists)),
            ("beam", decoder, searched, (search_growing, search_lists)),
        ):
            seconds: dict[str, list[float]] = {contestant.__name__: [] for contestant in contestants}
            results = []
            for _ in range(options.rounds + 1):
                for contestant in contestants:
                    model.zero_grad()
                    started = time.process_time()
                    result = loss(contestant)
                    result.backward()
                    seconds[contestant.__name__].append(time.process_time() - started)
                    results.append(float(result.detach()))
            assert max(results) - min(results) < 1e-4, results
            growing, lists = (float(np.median(times[1:])) * 1e3 for times in seconds.values())
            print(
                f"{task:6} hidden {hidden:4}: growing {growing:6.1f} ms, lists {lists:6.1f} ms: {lists / growing:.2f} times"
            )


if __name__ == "__main__":
    main()
