"""The example of trainers: its formulas, and what its commands refuse. That they train: tests/integrations/test_trainers.py."""

from __future__ import annotations

import random
import sys

import pytest
import torch

from examples.trainers import formulas, with_accelerate, with_lightning
from examples.trainers.loaders import loader

COMMANDS = [with_accelerate, with_lightning]


def as_python(nested) -> str:
    if not isinstance(nested, tuple):
        return str(nested)
    operation, left, right = nested
    return f"({as_python(left)} {({'xor': '!='}).get(operation, operation)} {as_python(right)})"


def test_a_formula_has_the_value_that_python_gives_it():
    draw = random.Random(0)
    seen = set()
    for values in [*range(1, 12), 200]:
        nested = formulas.formula(values, draw)
        sample = formulas.encode(nested)
        assert sample["label"] == eval(as_python(nested))
        assert sample["graph"].num_vertices == len(sample["token"]) == 2 * values - 1
        assert sum(formulas.TOKENS[token] in "01" for token in sample["token"]) == values
        seen.add(sample["label"])
    assert seen == {0, 1}


def test_a_tree_has_the_operands_of_each_operation_in_their_order():
    sample = formulas.encode(("and", ("xor", 1, 0), 1))
    tokens = [formulas.TOKENS[token] for token in sample["token"]]
    assert tokens == ["1", "0", "xor", "1", "and"]
    assert sample["graph"].edge_index.tolist() == [[0, 1, 2, 3], [2, 2, 4, 4]]


def test_the_same_seed_makes_the_same_formulas():
    one, other, third = (formulas.make(20, 6, seed) for seed in (1, 1, 2))
    assert [sample["token"].tolist() for sample in one] == [sample["token"].tolist() for sample in other]
    assert [sample["token"].tolist() for sample in one] != [sample["token"].tolist() for sample in third]


def test_batches_have_all_formulas_once():
    samples = formulas.make(21, 6, 0)
    for batches in (loader(samples, 8, seed=3), loader(samples, 8)):
        labels = torch.cat([batch["label"] for batch in batches])
        assert sorted(labels.tolist()) == sorted(sample["label"] for sample in samples)
        assert all(len(batch["token"]) == batch["graph"].num_vertices for batch in batches)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hidden", "0"], "at least 1"),
        (["--most", "1"], "--most is at least 2"),
        (["--lr", "0"], "--lr is above 0"),
    ],
)
def test_wrong_options_end_with_a_line(command, arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("command", "library"), [(with_accelerate, "accelerate"), (with_lightning, "lightning")])
def test_a_library_that_is_not_there_is_named(command, library, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 2
    assert f"pip install {library}" in capsys.readouterr().err
