"""The shift-reduce example: gold trees and transitions, a batch that parses as each sentence alone, and the command."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from examples.spinn import data, speed, train
from examples.spinn.data import NUMBER, WORDS, encode
from examples.spinn.model import Bag, Parser
from examples.spinn.parser import REDUCE, SHIFT, follow_gold, gold, mixed, parse, random_actions
from examples.treelstm import listops

TINY = ["--train-size", "40", "--max-depth", "3", "--max-tokens", "16", "--hidden", "8", "--embed", "4"]


def expressions(count, seed=0, depth=4):
    stream = listops.distinct_expressions(seed, depth)
    return [next(stream) for _ in range(count)]


@functools.cache
def traced():
    """One module for all, as tracing takes longer than most tests; each gives it weights of its own."""
    return Parser(3, 6).double()


def parser(seed=0):
    torch.manual_seed(seed)
    model = traced()
    model.load_state_dict(Parser(3, 6).double().state_dict())
    for weight in model.parameters():  # large ones, so that the actions it chooses differ
        nn.init.normal_(weight)
    return model


def always(action):
    return lambda _, states: np.full(len(states.sentence), action)


def nested(tree):
    """The tree of an expression from the grammar: a list takes one argument after the other, and its bracket last."""
    if isinstance(tree, int):
        return str(tree)
    node = f"[{tree[0]}"
    for argument in tree[1]:
        node = (node, nested(argument))
    return (node, "]")


def rebuilt(words, actions):
    """What a stack of one sentence holds after these transitions."""
    stack, buffer = [], list(words)
    for action in actions:
        if action == SHIFT:
            stack.append(buffer.pop(0))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append((left, right))
    assert not buffer
    (tree,) = stack
    return tree


def words_of(sentences, index):
    return [WORDS[token] for token in sentences.select(np.array([index])).token]


def test_gold_transitions_rebuild_the_gold_tree():
    given = expressions(40)
    sentences = encode(given)
    parsed = parse(parser().compose, sentences, follow_gold(sentences))
    for index, expression in enumerate(given):
        actions = parsed.action[parsed.states.sentence == index]
        words = words_of(sentences, index)
        assert words == listops.text(expression).split()
        assert len(actions) == 2 * len(words) - 1
        assert rebuilt(words, actions) == nested(expression)
    assert sentences.answer.tolist() == [listops.value(expression) for expression in given]


def test_the_transitions_of_a_sentence():
    sentences = encode([listops.parse("[MAX 2 [MIN 4 7 ] ]")])
    parsed = parse(parser().compose, sentences, follow_gold(sentences))
    assert "".join("SR"[action] for action in parsed.action) == "SSRSSRSRSRRSR"
    assert sentences.token.tolist() == [NUMBER[word] for word in ["[MAX", "2", "[MIN", "4", "7", "]", "]"]]
    assert sentences.reach.tolist() == [7, 2, 6, 4, 5, 6, 7]
    assert sentences.value.tolist() == [4, 2, 4, 4, 7, -1, -1]


def test_what_is_composed_is_the_tree_of_the_transitions():
    """The parse, packed as known trees and run at once, has the same states and gradients."""
    given = expressions(10)
    sentences, model = encode(given), parser()
    for choose in (follow_gold(sentences), random_actions(np.random.default_rng(1))):
        parsed = parse(model.compose, sentences, choose)
        trees, tokens = [], []
        for index in range(len(given)):
            words = words_of(sentences, index)
            numbered = rebuilt(range(len(words)), parsed.action[parsed.states.sentence == index])
            trees.append(vf.tree(numbered))
            tokens += [*(NUMBER[word] for word in words), *[0] * (len(words) - 1)]
        batch = vf.pack(trees)
        roots = model.compose(batch, token=torch.tensor(tokens)).h[batch.roots]
        ours = parsed.run[parsed.root].h
        torch.testing.assert_close(ours, roots, rtol=1e-12, atol=1e-12)
        weights = list(model.compose.parameters())
        for one, other in zip(
            torch.autograd.grad(ours.square().sum(), weights),
            torch.autograd.grad(roots.square().sum(), weights),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_batch_is_parsed_as_each_sentence_alone(seed):
    sentences, model = encode(expressions(8, seed)), parser(seed)
    with torch.no_grad():
        together = parse(model.compose, sentences, model.choose)
        values = model.answer(together.run[together.root].h)
        for index in range(len(sentences)):
            alone = parse(model.compose, sentences.select(np.array([index])), model.choose)
            mine = together.states.sentence == index
            assert np.array_equal(together.action[mine], alone.action)
            torch.testing.assert_close(
                model.scores(together.run, together.states.where(mine)),
                model.scores(alone.run, alone.states),
                rtol=1e-10,
                atol=1e-12,
            )
            torch.testing.assert_close(values[index], model.answer(alone.run[alone.root].h)[0], rtol=1e-10, atol=1e-12)
    assert 0.1 < together.action[together.states.free].mean() < 0.9


@pytest.mark.parametrize(
    "choose",
    [always(SHIFT), always(REDUCE), random_actions(np.random.default_rng(0))],
    ids=["shift", "reduce", "random"],
)
def test_an_action_that_is_not_allowed_never_happens(choose):
    sentences = encode(expressions(30))
    parsed = parse(parser().compose, sentences, choose)
    for index in range(len(sentences)):
        depth, left = 0, len(words_of(sentences, index))
        mine = parsed.states.sentence == index
        for action, allowed, items in zip(
            parsed.action[mine], parsed.states.allowed[mine], parsed.states.items[mine], strict=True
        ):
            assert allowed.tolist() == [left > 0, depth >= 2]
            assert (items >= 0).tolist() == [depth >= 1, depth >= 2, left > 0]
            assert allowed[action]
            depth, left = (depth + 1, left - 1) if action == SHIFT else (depth - 1, left)
        assert (depth, left) == (1, 0)
    assert np.array_equal(parsed.begin[parsed.root], sentences.offset[:-1])
    assert np.array_equal(parsed.end[parsed.root], sentences.offset[1:])


def test_scores_read_zeros_for_what_is_missing_and_exclude_what_is_not_allowed():
    sentences, model = encode(expressions(5)), parser()
    parsed = parse(model.compose, sentences, random_actions(np.random.default_rng(3)))
    h = torch.cat([parsed.run[:].h, torch.zeros(1, 6, dtype=torch.float64)])  # row -1 is zero
    expected = model.head(h[torch.from_numpy(parsed.states.items)].flatten(1))
    scores = model.scores(parsed.run, parsed.states)
    allowed = torch.from_numpy(parsed.states.allowed)
    torch.testing.assert_close(scores[allowed], expected[allowed])
    assert (scores[~allowed] == -torch.inf).all()


def test_the_best_action_is_the_one_after_which_most_gold_spans_can_be_had():
    """From states that random actions lead to, against a search over all that could follow."""
    sentences = encode([one for one in expressions(160) if 7 <= len(listops.text(one).split()) <= 11])
    compose = parser().compose
    right = parse(compose, sentences, follow_gold(sentences))
    spans = set(zip(right.begin.tolist(), right.end.tolist(), strict=True))

    @functools.cache
    def most(bounds, stop, action=None):
        """Gold spans still to be had by an action; `bounds` are where the items on the stack begin, and the front."""
        if action == SHIFT:
            return most((*bounds, bounds[-1] + 1), stop)
        if action == REDUCE:
            return ((bounds[-3], bounds[-1]) in spans) + most((*bounds[:-2], bounds[-1]), stop)
        allowed = [SHIFT] * (bounds[-1] < stop) + [REDUCE] * (len(bounds) > 2)
        return max((most(bounds, stop, action) for action in allowed), default=0)

    parsed = parse(compose, sentences, random_actions(np.random.default_rng(4)))
    best = gold(sentences, parsed.states)
    wrong = 0
    for index, (start, stop) in enumerate(itertools.pairwise(sentences.offset.tolist())):
        rows = parsed.states.sentence == index
        bounds = (start,)
        for action, target, free in zip(parsed.action[rows], best[rows], parsed.states.free[rows], strict=True):
            if free:
                assert most(bounds, stop, int(target)) == most(bounds, stop)
                wrong += most(bounds, stop, 1 - int(target)) < most(bounds, stop)
            bounds = (*bounds, bounds[-1] + 1) if action == SHIFT else (*bounds[:-2], bounds[-1])
    assert len(sentences) > 20
    assert wrong > 20  # it does matter


def test_values_are_learned_of_what_reads_as_an_expression_and_of_nothing_else():
    sentences = encode(expressions(30))
    for choose in (follow_gold(sentences), random_actions(np.random.default_rng(5))):
        parsed = parse(parser().compose, sentences, choose)
        expected = {}
        for vertex, (begin, end) in enumerate(zip(parsed.begin, parsed.end, strict=True)):
            with contextlib.suppress(ValueError):
                text = " ".join(WORDS[token] for token in sentences.token[begin:end])
                expected[vertex] = listops.value(listops.parse(text))
        values, vertices = train.values_of(sentences, parsed)
        assert dict(zip(vertices.tolist(), values.tolist(), strict=True)) == expected


def test_mixed_choices_come_from_both():
    sentences = encode(expressions(20))
    rng = np.random.default_rng(0)
    parsed = parse(parser().compose, sentences, mixed(always(SHIFT), always(REDUCE), 0.25, rng))
    assert 0.1 < (parsed.action[parsed.states.free] == SHIFT).mean() < 0.4
    one = always(REDUCE)
    assert mixed(always(SHIFT), one, 0.0, rng) is one


def test_every_sentence_is_in_one_batch_with_its_own_tree():
    def rows(part):
        single = (part.select(np.array([index])) for index in range(len(part)))
        return [(one.token.tolist(), one.reach.tolist(), one.value.tolist()) for one in single]

    given = expressions(50)
    parts = list(data.batches(encode(given), 8, np.random.default_rng(0)))
    expected = [rows(encode([expression]))[0] for expression in given]
    assert sorted(row for part in parts for row in rows(part)) == sorted(expected)
    assert max(len(part) for part in parts) == 8


def test_the_mean_of_a_bag():
    torch.manual_seed(0)
    bag = Bag(3, 5).double()
    sentences = encode(expressions(4))
    ours = bag(sentences.token, sentences.offset[:-1], sentences.offset[1:])
    for index, scores in enumerate(ours):
        token = torch.from_numpy(sentences.select(np.array([index])).token)
        torch.testing.assert_close(scores, bag.mlp(bag.embed(token).mean(0)))


@pytest.mark.slow
def test_a_few_steps_lower_both_losses():
    torch.manual_seed(0)
    sentences, model = encode(expressions(6, depth=2)), Parser(8, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(20):
        parsed = parse(model.compose, sentences, mixed(model.choose, follow_gold(sentences), 0.3, rng))
        losses.append(train.loss(model, sentences, parsed))
        optimizer.zero_grad()
        sum(losses[-1]).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    first, last = ([one.item() for one in losses[at]] for at in (0, -1))
    assert last[0] < 0.5 * first[0]
    assert last[1] < 0.8 * first[1]


def test_gold_actions_are_all_right_and_random_ones_are_not():
    sentences, model = encode([one for one in expressions(60) if len(listops.text(one).split()) > 7]), parser()
    right = train.evaluate(model, sentences, follow_gold(sentences))
    assert (right["parse"], right["action"]) == (1, 1)
    wrong = train.evaluate(model, sentences, random_actions(np.random.default_rng(0)))
    assert wrong["parse"] < 0.1
    assert 0.3 < wrong["action"] < 0.7


@pytest.mark.slow
def test_the_commands_run_and_the_same_seed_gives_the_same_run(tmp_path, capsys):
    results = []
    for run in (tmp_path / "one", tmp_path / "other"):
        train.main([*TINY, "--epochs", "2", "--batch-size", "16", "--seed", "3", "--out", str(run)])
        printed = capsys.readouterr().out
        assert "value at the root" in printed
        assert "epoch 2: loss of actions" in printed
        results.append(json.loads((run / "results.json").read_text()))
    assert results[0] == results[1]
    assert results[0]["gold actions"]["parse"] == 1
    assert {"own actions", "bag of leaves", "most frequent value"} < set(results[0])
    speed.main([str(tmp_path / "one"), "--sentences", "3"])
    assert "sentences/s" in capsys.readouterr().out


def test_a_run_in_use_and_settings_below_one_are_refused(tmp_path, capsys):
    (tmp_path / "model.pt").touch()
    for wrong, message in ((["--out", str(tmp_path)], "is in use"), (["--hidden", "0"], "at least 1")):
        with pytest.raises(SystemExit):
            train.main(wrong)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        speed.main([str(tmp_path / "nowhere")])
    assert "nowhere" in capsys.readouterr().err


def test_lists_within_lists_need_depth_and_tokens(tmp_path, capsys):
    for wrong in (["--max-depth", "1"], ["--max-tokens", "9"]):
        with pytest.raises(SystemExit):
            train.main([*wrong, "--out", str(tmp_path / "run")])
        assert "takes a --max-depth of 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
