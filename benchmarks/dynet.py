"""A binary TreeLSTM beside DyNet with autobatching (arXiv 1701.03980, 1705.07860): `python -m benchmarks.dynet`.

DyNet is on no package index for newer Pythons. Its Python module is built from its repository (clab/dynet) with Eigen 3.4 and
Cython 0.29: `cmake .. -DEIGEN3_INCLUDE_DIR=/usr/include/eigen3 -DPYTHON=$(which python) && make`, and found by `PYTHONPATH`.

Both do whole training steps on one thread over the same trees with the same weights: forward pass, backward pass, update by SGD.
DyNet's users write its graph down in each step, a vertex at a time; our schedule is that of the steps before. Losses and
gradients agree first. In turns, in one process; medians of processor time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import vertexflow as vf

from .graphs import random_tree
from .harness import OURS, RATE, Contestant, training_step
from .levels import children_of
from .peers import MissingError, import_dynet
from .workloads.treelstm import LEAVES, BinaryTreeLSTM

SETTINGS = ((256, 64), (64, 64), (128, 16))  # hidden size and number of trees
TOLERANCE = 1e-4  # of the norm, in float32


class DynetTreeLSTM:
    """The model of `workloads.treelstm` with weights of its own, and one product for each gate, as DyNet's own TreeLSTMs have."""

    def __init__(self, dynet: Any, model: Any, x: np.ndarray, children: list[list[int]], roots: Sequence[int]) -> None:
        self.dynet, self.children, self.roots = dynet, children, roots
        self.collection = dynet.ParameterCollection()
        self.inputs = dynet.ParameterCollection()  # which its parameters do not keep alive
        self.x = self.inputs.lookup_parameters_from_numpy(x)
        weight, bias, u = (value.detach().numpy() for value in (model.w.weight, model.w.bias, model.u.weight))
        make = self.collection.parameters_from_numpy
        self.w = [make(rows) for rows in np.split(weight, 3)]
        self.b = [make(rows) for rows in np.split(bias, 3)]
        self.u = [make(rows) for rows in np.split(u, 5)]
        self.trainer = dynet.SimpleSGDTrainer(self.collection, learning_rate=RATE)
        self.trainer.set_clip_threshold(0)  # no clipping

    def loss(self) -> Any:
        """The mean square of the roots' states, as an expression."""
        dynet = self.dynet
        dynet.renew_cg()
        logistic, tanh, cmult, affine = dynet.logistic, dynet.tanh, dynet.cmult, dynet.affine_transform
        (wi, wo, wu), (bi, bo, bu), (ui, uo, uu, ul, ur) = self.w, self.b, self.u
        h: list[Any] = []
        c: list[Any] = []
        for vertex, kids in enumerate(self.children):  # which have smaller numbers than their parents
            x = dynet.lookup(self.x, vertex, False)
            if kids:
                left, right = kids
                both = dynet.concatenate([h[left], h[right]])
                i = logistic(affine([bi, wi, x, ui, both]))
                o = logistic(affine([bo, wo, x, uo, both]))
                u = tanh(affine([bu, wu, x, uu, both]))
                kept = cmult(logistic(ul * both), c[left]) + cmult(logistic(ur * both), c[right])
                c.append(cmult(i, u) + kept)
            else:
                i, o, u = logistic(affine([bi, wi, x])), logistic(affine([bo, wo, x])), tanh(affine([bu, wu, x]))
                c.append(cmult(i, u))
            h.append(cmult(o, tanh(c[-1])))
        size = len(self.roots) * self.b[0].shape()[0]
        return dynet.esum([dynet.squared_norm(h[root]) for root in self.roots]) / size

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """The loss, and the gradients under the names of the model's parameters; nothing is updated."""
        loss = self.loss()
        value = loss.value()
        loss.backward()
        names = {"w.weight": self.w, "w.bias": self.b, "u.weight": self.u}
        gradients = {
            name: np.concatenate([piece.grad_as_array() for piece in pieces]) for name, pieces in names.items()
        }
        for pieces in names.values():
            for piece in pieces:
                piece.scale_gradient(0)
        return value, gradients

    def step(self) -> float:
        """A training step; returns the loss."""
        loss = self.loss()
        value: float = loss.value()
        loss.backward()
        self.trainer.update()
        return value


def contestants(dynet: Any, hidden: int, num_trees: int) -> tuple[nn.Module, Callable[[], Tensor], DynetTreeLSTM]:
    """Our model, a training step of it, and DyNet's model with the same weights, over the same random trees."""
    torch.manual_seed(0)
    rng = random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(*LEAVES))) for _ in range(num_trees)])
    model, x = BinaryTreeLSTM(hidden, hidden), torch.randn(batch.num_vertices, hidden)
    ours = Contestant(OURS, lambda: model(batch, x=x, outputs=batch.roots).h)
    theirs = DynetTreeLSTM(dynet, model, x.numpy(), children_of(batch), batch.roots.tolist())
    return model, training_step(model, ours), theirs


def difference(model: nn.Module, step: Callable[[], Tensor], theirs: DynetTreeLSTM) -> float:
    """The largest difference of the loss and of the gradients, relative to the norm of each. Takes one step of ours."""
    loss, gradients = theirs.gradients()
    apart = abs(float(step()) / loss - 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter.grad.numpy()
        apart = max(apart, float(np.linalg.norm(gradients[name] - expected) / np.linalg.norm(expected)))
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of both contestants in turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        dynet = import_dynet()
    except MissingError as missing:
        raise SystemExit(str(missing)) from None
    for hidden, num_trees in SETTINGS:
        model, step, theirs = contestants(dynet, hidden, num_trees)
        apart = difference(model, step, theirs)
        if not apart <= TOLERANCE:
            raise SystemExit(f"they differ by {apart:.1e}")
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.rounds):
            for own, run in zip(times, (step, theirs.step), strict=True):
                start = time.process_time()
                run()
                own.append(1e3 * (time.process_time() - start))
        mine, other = (statistics.median(own) for own in times)
        print(
            f"hidden {hidden}, {num_trees} trees, {len(theirs.children):,} vertices: vertexflow {mine:.1f} ms, "
            f"DyNet {other:.1f} ms, {other / mine:.1f} times as long"
        )


if __name__ == "__main__":
    main()
