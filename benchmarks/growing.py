"""Runs whose structure depends on values, beside lists of tensors in plain PyTorch: `python -m benchmarks.growing`.

Two tasks, in one process, in turns. *parser*: SPINN with its tracking LSTM (Bowman et al., ACL 2016), which chooses its own
actions; a training step of 64 sentences. *beam*: a GRU with attention over its own past, 16 sentences with 5 hypotheses each;
a search, and a training step over what the search kept. In plain PyTorch, each sentence, or hypothesis, has a list of tensors
of its own, which are joined for every step and taken apart after it. Both have the same weights and give the same numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import vertexflow as vf

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
            made = run.extend(np.stack([below[is_reduced], top[is_reduced], tracker[reduce]], 1), kind="reduce")
            height[reduce] -= 1
            stack[reduce, height[reduce] - 1] = made.numpy()
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
            for (i, _, _), made in zip(reduced, torch.cat([h, c], -1).split(1), strict=True):
                stacks[i].append(made)
        live = [i for i in live if buffers[i] or len(stacks[i]) > 1]
    return torch.cat([stack[0] for stack in stacks])[:, :hidden], torch.cat(all_scores)
