"""An LSTM over sequences: all of 64 steps, or of 5 to 60."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_sequence, pad_sequence

import vertexflow as vf

from ..floor import Product
from ..harness import OURS, Case, Contestant, Settings
from ..over_jax import Array, Parameters, contestant
from ..peers import MissingError

FIXED = 64
VARIED = (5, 60)


def fixed(settings: Settings) -> Case:
    return _case(settings, [FIXED] * settings.batch, f"sequences of {FIXED} steps")


def varied(settings: Settings) -> Case:
    rng = random.Random(settings.seed)
    lengths = [rng.randint(*VARIED) for _ in range(settings.batch)]
    return _case(settings, lengths, f"sequences of {VARIED[0]} to {VARIED[1]} steps")


def _case(settings: Settings, lengths: list[int], what: str) -> Case:
    batch = vf.pack([vf.chain(length) for length in lengths]).to(settings.device)
    size, count = settings.hidden, batch.num_vertices
    model = settings.place(vf.nn.LSTM(size, size))
    library = nn.LSTM(size, size)
    for name, parameter in model.named_parameters():
        setattr(library, name, parameter)
    library.flatten_parameters()  # side by side, as cuDNN wants them
    x = settings.randn(count, size)
    sequences = x.split(lengths)
    packed, padded = pack_sequence(sequences, enforce_sorted=False), pad_sequence(sequences)
    widths = packed.batch_sizes.tolist()
    steps = torch.arange(len(padded)).unsqueeze(1)
    real = (steps < torch.tensor(lengths)).flatten().nonzero().squeeze(1).to(settings.device)
    contestants = [
        Contestant(OURS, lambda: model(batch, x).h),
        Contestant("by hand, autograd", lambda: by_hand(model, packed.data, widths), by_graph=True),
        Contestant("nn.LSTM, packed", lambda: library(packed)[0].data),
        Contestant("nn.LSTM, padded", lambda: library(padded)[0].flatten(0, 1).index_select(0, real)),
        Contestant("per vertex", lambda: per_vertex(model, sequences), every=5),
    ]
    skipped = {}
    try:
        contestants.append(contestant("JAX, scan", model, padded, lambda *arguments: scanned(*arguments, real.numpy())))
    except MissingError as missing:
        skipped["JAX"] = str(missing)
    return Case(
        title=f"{settings.batch} {what}, {count:,} in all",
        model=model,
        contestants=contestants,
        products=[
            Product(count, size, 4 * size, sends=0),
            Product(count - len(lengths), size, 4 * size, sends=count - len(lengths)),
        ],
        kept=6 * count * size,  # h, c, and four gates
        skipped=skipped,
    )


def by_hand(model: Any, x: Tensor, widths: list[int]) -> Tensor:
    """Longest first and step after step: the rows of a step are those that are still there.

    One projection of all inputs, to which the product of a step is added inside of the call.
    """
    hidden = model.weight_hh_l0.t()
    first, *projected = linear(x, model.weight_ih_l0, model.bias_ih_l0 + model.bias_hh_l0).split(widths)
    i, _, g, o = first.chunk(4, -1)
    c = torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    outputs = [h]
    for step in projected:
        if len(step) < len(h):
            h, c = h[: len(step)], c[: len(step)]
        i, f, g, o = torch.addmm(step, h, hidden).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.cat(outputs)


def per_vertex(model: Any, sequences: tuple[Tensor, ...]) -> Tensor:
    """What people write first: plain PyTorch, one step of one sequence at a time."""
    outputs = []
    for sequence in sequences:
        h = c = None
        for x in sequence:
            gates = linear(x, model.weight_ih_l0, model.bias_ih_l0 + model.bias_hh_l0)
            i, f, g, o = (gates if h is None else gates + linear(h, model.weight_hh_l0)).chunk(4, -1)
            new = torch.sigmoid(i) * torch.tanh(g)
            c = new if c is None else torch.sigmoid(f) * c + new
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
    return torch.stack(outputs)


def scanned(jax: Any, parameters: Parameters, x: Array, real: Array) -> Array:
    """`lax.scan` over padded sequences [steps, sequences, size]: the same as by hand, for all sequences in every step."""
    hidden = parameters["weight_hh_l0"].T
    projected = x @ parameters["weight_ih_l0"].T + (parameters["bias_ih_l0"] + parameters["bias_hh_l0"])
    sigmoid, tanh = jax.nn.sigmoid, jax.numpy.tanh

    def step(state: tuple[Array, Array], rows: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = state
        i, f, g, o = jax.numpy.split(rows + h @ hidden, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return (h, c), h

    zeros = jax.numpy.zeros((x.shape[1], len(hidden)), x.dtype)
    return jax.lax.scan(step, (zeros, zeros), projected)[1].reshape(-1, len(hidden))[real]
