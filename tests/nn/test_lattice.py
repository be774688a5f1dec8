"""LatticeLSTM equals its paper's equations, one character after the other; and the graphs that it runs over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.agreement import TOLERANCE
from vertexflow.nn.lattice import LatticeLSTM, lattice

MODEL = LatticeLSTM(3, 2, 4).double()


@st.composite
def sentences(draw):
    """A length, and words within it; some twice, some ending or beginning together."""
    length = draw(st.integers(1, 7))
    spans = [(first, last) for last in range(length) for first in range(last)]
    return length, draw(st.lists(st.sampled_from(spans), max_size=8)) if spans else []


def gates(of_input, of_state, x, h, names):
    """W x + U h + b of each gate, with matrices apart."""
    parts = zip(of_input.weight.split(4), of_input.bias.split(4), of_state.weight.split(4), strict=True)
    return dict(zip(names, (w @ x + u @ h + b for w, b, u in parts), strict=True))


def read(length, words, char, word):
    """h of each character, from the first to the last, with lists of the words that each one ends."""
    ended = [[] for _ in range(length)]
    h = c = torch.zeros(4, dtype=torch.float64)
    states = []
    for at in range(length):
        gate = gates(MODEL.w_char, MODEL.u_char, char[at], h, "iog")
        i, g = torch.sigmoid(gate["i"]), torch.tanh(gate["g"])
        if ended[at]:
            cells = torch.stack([g, *ended[at]])
            extra = [
                torch.sigmoid(MODEL.w_gate.weight @ char[at] + MODEL.u_gate.weight @ cell + MODEL.w_gate.bias)
                for cell in ended[at]
            ]
            c = (torch.softmax(torch.stack([i, *extra]), 0) * cells).sum(0)
        else:
            c = (1 - i) * c + i * g
        h = torch.sigmoid(gate["o"]) * torch.tanh(c)
        states.append(h)
        for (first, last), embedding in zip(words, word, strict=True):
            if first == at:
                gate = gates(MODEL.w_word, MODEL.u_word, embedding, h, "ifg")
                cell = torch.sigmoid(gate["f"]) * c + torch.sigmoid(gate["i"]) * torch.tanh(gate["g"])
                ended[last].append(cell)
    return torch.stack(states)


def read_all(batch, char, word, reverse):
    """`read` for each sentence; backwards, with all positions turned round."""
    chars, words = char.split([length for length, _ in batch]), word.split([len(spans) for _, spans in batch])
    states = []
    for (length, spans), x, w in zip(batch, chars, words, strict=True):
        if reverse:
            turned = [(length - 1 - last, length - 1 - first) for first, last in spans]
            states.append(read(length, turned, x.flip(0), w).flip(0))
        else:
            states.append(read(length, spans, x, w))
    return torch.cat(states)


def check(batch, reverse):
    count = sum(length for length, _ in batch)
    char = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    word = torch.randn(sum(len(spans) for _, spans in batch), 2, dtype=torch.float64, requires_grad=True)
    graphs = [lattice(length, spans) for length, spans in batch]
    values = [MODEL(graphs, char=char, word=word, reverse=reverse).h, read_all(batch, char, word, reverse)]
    torch.testing.assert_close(*values, **TOLERANCE)
    weight, leaves = torch.randn(count, 4, dtype=torch.float64), [char, word, *MODEL.parameters()]
    ours, expected = (
        torch.autograd.grad((h * weight).sum(), leaves, allow_unused=True, materialize_grads=True) for h in values
    )
    for actual, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, wanted, **TOLERANCE)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(sentences(), min_size=1, max_size=3), st.booleans())
def test_the_same_as_the_paper(batch, reverse):
    check(batch, reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_sentence_of_the_paper(reverse):
    """Seven characters, with words that end together, begin together and lie in one another; and one without words."""
    check([(7, [(0, 1), (0, 2), (2, 3), (3, 6), (3, 4), (5, 6)]), (4, [])], reverse)


@pytest.mark.slow
def test_sentences_without_words():
    model = LatticeLSTM(3, 2, 4)
    for model.backend in ("torch", "native"):
        model.zero_grad()
        h = model([lattice(5, []), lattice(1, [])], char=torch.randn(6, 3), word=torch.empty(0, 2)).h
        assert h.shape == (6, 4)
        h.sum().backward()
        assert model.u_char.weight.grad.any()
        assert model.w_word.weight.grad is None or not model.w_word.weight.grad.any()


def test_a_lattice():
    graph = lattice(4, [(0, 1), (1, 3)])
    children = [graph.child[graph.offset[v] : graph.offset[v + 1]].tolist() for v in range(6)]
    assert children == [[], [0, 4], [1], [2, 5], [0], [1]]
    assert graph.kind.tolist() == ["char"] * 4 + ["word"] * 2


def test_words_as_numbers_of_numpy_and_torch():
    spans = torch.tensor([[0, 1], [1, 3]])
    assert lattice(4, spans).structure.tolist() == lattice(4, [(0, 1), (1, 3)]).structure.tolist()
    assert lattice(4, spans.numpy()).structure.tolist() == lattice(4, iter([(0, 1), (1, 3)])).structure.tolist()


@pytest.mark.parametrize("word", [(1, 1), (2, 1), (-1, 2), (1, 4)])
def test_a_word_that_does_not_lie_in_the_sentence(word):
    with pytest.raises(vf.GraphError, match=f"word 1 is from character {word[0]} to {word[1]}, of a sentence of 4"):
        lattice(4, [(0, 1), word])


@pytest.mark.parametrize("word", [3, (1,), (1, 2, 3), (0.0, 1.0), "ab", None])
def test_a_word_that_is_no_pair(word):
    with pytest.raises(vf.InputTypeError, match=r"word 0 is .*; give a pair of integers"):
        lattice(4, [word])


def test_what_is_no_sentence():
    with pytest.raises(vf.GraphError, match="a sentence of 0 characters"):
        lattice(0, [])
    for length in ("word", 2.0, True):
        with pytest.raises(vf.InputTypeError, match="the length of a sentence is"):
            lattice(length, [])
    with pytest.raises(vf.InputTypeError, match=r"words are pairs .*, not int"):
        lattice(4, 3)


@pytest.mark.slow
def test_rows_of_the_wrong_kind():
    with pytest.raises(vf.InputError, match="'word' has 2 rows, but the batch has 1 vertices of kind 'word'"):
        LatticeLSTM(3, 2, 4)([lattice(3, [(0, 2)])], char=torch.randn(3, 3), word=torch.randn(2, 2))
