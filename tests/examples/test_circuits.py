"""The circuits example: simulation against all patterns one by one, cones, structure, the model's bounds, and the commands."""

from __future__ import annotations

import functools
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from examples.circuits import data, memory, simulate, train
from examples.circuits.circuit import circuit, cone, read
from examples.circuits.data import join, read_folder, sample
from examples.circuits.model import GateProbability
from examples.circuits.simulate import evaluate, independent, probabilities, standard_error
from examples.circuits.structure import COLUMNS, PAIRS, REACH, structure
from tests.data import needs_data

# a AND NOT b, NOT a AND b, and neither of them (an XNOR); AND of that with c.
XNOR = b"aag 7 3 0 1 4\n2\n4\n6\n14\n8 2 5\n10 3 4\n12 9 11\n14 12 6\n"
PAIR = 6 + 2 * PAIRS.index((1, 1))


def random_circuit(seed, sources, gates, name="random"):
    """Gates that read any two different vertices before them, or one vertex twice, in an order that is not theirs."""
    rng = np.random.default_rng(seed)
    operands = np.array([rng.integers(0, sources + at, 2) for at in range(gates)]).reshape(gates, 2)
    place = rng.permutation(gates)
    number = np.concatenate([np.arange(sources), sources + place])
    shuffled = np.empty_like(operands)
    shuffled[place] = number[operands]
    return circuit(name, np.full(sources, 0.5), shuffled, rng.random((gates, 2)) < 0.5)


def small(path, content):
    path.write_bytes(content)
    return read(path)


def brute_force(netlist):
    """The probability of each vertex from all input patterns, each weighed with its own probability, gate after gate."""
    total = np.zeros(len(netlist.source) + len(netlist))
    for pattern in itertools.product([False, True], repeat=len(netlist.source)):
        values = list(pattern)
        for operands, inverted in zip(netlist.operands, netlist.inverted, strict=True):
            values.append(all(values[v] != flip for v, flip in zip(operands, inverted, strict=True)))
        weight = math.prod(p if one else 1 - p for p, one in zip(netlist.source, pattern, strict=True))
        total += weight * np.array(values)
    return total


def aiger(netlist):
    """A circuit as an ASCII file."""
    sources, top = len(netlist.source), len(netlist.source) + len(netlist)
    lines = [f"aag {top} {sources} 0 1 {len(netlist)}", *(str(2 * v + 2) for v in range(sources)), str(2 * top)]
    for gate, (operands, inverted) in enumerate(zip(netlist.operands, netlist.inverted, strict=True)):
        first, second = 2 * operands + 2 + inverted
        lines.append(f"{2 * (sources + gate) + 2} {first} {second}")
    return ("\n".join(lines) + "\n").encode()


@functools.cache
def traced():
    """One module for all, as tracing takes longer than most tests; each gives it weights of its own."""
    return GateProbability(8).double()


def untrained():
    torch.manual_seed(0)
    network = traced()
    network.load_state_dict(GateProbability(8).double().state_dict())
    return network


def model():
    network = untrained()
    for weight in network.parameters():  # large ones, so that corrections matter
        nn.init.normal_(weight)
    return network


def predict(network, samples):
    batch, inputs, _, _ = join(samples)
    inputs = {name: value.to(next(network.parameters()).dtype) for name, value in inputs.items()}
    return network(batch, **inputs).p.squeeze(-1)


@pytest.mark.parametrize(("sources", "gates"), [(1, 5), (3, 20), (6, 40), (7, 60), (9, 80)])
def test_small_circuits_are_simulated_exactly(sources, gates):
    netlist = random_circuit(sources, sources, gates)
    simulated = probabilities(netlist)
    np.testing.assert_allclose(simulated, brute_force(netlist), rtol=0, atol=1e-12)
    assert len(set(simulated)) > min(sources, 3)


def test_a_random_simulation_is_within_its_standard_error(monkeypatch):
    netlist = random_circuit(1, 8, 300)
    exact = brute_force(netlist)
    monkeypatch.setattr(simulate, "EXACT", 0)
    patterns = 1 << 16
    off = (probabilities(netlist, patterns) - exact) / np.maximum(standard_error(exact, patterns), 1e-9)
    assert 0.3 < np.sqrt((off**2).mean()) < 2
    assert np.abs(off).max() < 6
    assert not np.array_equal(probabilities(netlist, patterns, seed=1), probabilities(netlist, patterns, seed=2))
    assert standard_error(np.array([0.5]), patterns)[0] == 1 / 512


def test_inputs_that_are_not_fair():
    fair = random_circuit(2, 5, 30)
    netlist = circuit("biased", np.array([0.0, 3 / 256, 0.25, 200 / 256, 0.5]), fair.operands, fair.inverted)
    assert np.array_equal(netlist.operands, fair.operands)
    off = probabilities(netlist, 1 << 18) - brute_force(netlist)
    assert np.abs(off).max() < 5 * 0.5 / math.sqrt(1 << 18)
    assert probabilities(netlist)[0] == 0


def test_every_word_holds_its_own_patterns():
    netlist = random_circuit(3, 4, 25)
    words = np.random.default_rng(0).integers(0, 1 << 64, (4, 3), np.uint64)
    values = evaluate(netlist, words)
    bits = np.unpackbits(values.view(np.uint8), axis=1).astype(bool)
    for gate, (operands, inverted) in enumerate(zip(netlist.operands, netlist.inverted, strict=True)):
        first, second = bits[operands] ^ inverted[:, None]
        assert np.array_equal(bits[4 + gate], first & second)
    assert simulate.ones(values).tolist() == [[int(word).bit_count() for word in row] for row in values.tolist()]


def test_independent_operands_are_exact_in_a_tree_and_not_where_paths_meet(tmp_path):
    tree = circuit("tree", np.full(4, 0.5), np.array([[0, 1], [2, 3], [4, 5]]), np.array([[0, 1], [1, 1], [1, 0]]) > 0)
    np.testing.assert_allclose(independent(tree), brute_force(tree))
    xnor = small(tmp_path / "xnor.aag", XNOR)
    assert probabilities(xnor)[3:].tolist() == [0.25, 0.25, 0.5, 0.25]
    assert independent(xnor)[3:].tolist() == [0.25, 0.25, 0.5625, 0.28125]


def test_a_file_is_read_level_by_level(tmp_path):
    xnor = small(tmp_path / "xnor.aag", XNOR)
    assert (xnor.name, len(xnor), xnor.source.tolist(), xnor.levels.tolist()) == ("xnor", 4, [0.5] * 3, [0, 2, 3, 4])
    assert xnor.graph.kind.tolist() == ["source"] * 3 + ["gate"] * 4
    assert np.array_equal(xnor.graph.child.reshape(-1, 2), xnor.operands)
    constant = small(tmp_path / "constant.aag", b"aag 2 1 0 1 1\n2\n4\n4 2 1\n")  # a AND NOT false
    assert sorted(constant.source) == [0.0, 0.5]
    assert probabilities(constant)[2] == 0.5
    netlist = random_circuit(4, 6, 40)
    again = small(tmp_path / "random.aag", aiger(netlist))
    np.testing.assert_allclose(np.sort(probabilities(again)), np.sort(probabilities(netlist)))
    for one in (netlist, again):
        level = np.repeat(np.arange(1, len(one.levels)), np.diff(one.levels))
        of_vertex = np.concatenate([np.zeros(len(one.source), int), level])
        assert np.array_equal(level, 1 + of_vertex[one.operands].max(1))


def test_a_cone_is_what_a_gate_depends_on(tmp_path):
    netlist = random_circuit(5, 6, 60)
    whole = probabilities(netlist)
    for gate in (20, 40, 59):
        complete = cone(netlist, gate, 1000)
        assert probabilities(complete)[-1] == whole[6 + gate]
        cut = cone(netlist, gate, 5)
        assert len(cut) <= 5
        np.testing.assert_allclose(probabilities(cut), brute_force(cut), atol=1e-12)
        with_all = set(np.unique(cut.operands)) | {len(cut.source) + len(cut) - 1}
        assert with_all == set(range(len(cut.source) + len(cut)))  # nothing that the gate does not depend on
    assert len(cone(netlist, 59, 5)) == 5
    constant = small(tmp_path / "constant.aag", b"aag 2 1 0 1 1\n2\n4\n4 2 1\n")
    assert sorted(cone(constant, 0, 9).source) == [0.0, 0.5]


def test_every_other_cone_is_varied():
    cones = data.cones([random_circuit(6, 20, 400)], 10, 30, np.random.default_rng(0))
    assert len(cones) == 10
    for number, one in enumerate(cones):
        assert (number % 2 == 0) == bool((one.source == 0.5).all())
        assert 1 <= len(one) <= 30
        assert np.array_equal(256 * one.source, np.round(256 * one.source))  # what a simulation can draw


def test_a_varied_circuit_is_a_circuit():
    netlist, rng = random_circuit(11, 7, 50), np.random.default_rng(0)
    for _ in range(5):
        other = data.varied(netlist, rng)
        assert (len(other.source), len(other)) == (7, 50)
        np.testing.assert_allclose(probabilities(other, 1 << 16), brute_force(other), rtol=0, atol=0.012)
        assert not np.array_equal(other.inverted, netlist.inverted)
        assert not np.array_equal(other.operands, netlist.operands)


def test_structure_counts_paths_that_end_together():
    netlist = random_circuit(7, 5, 40)
    table = structure(netlist)
    assert table.shape == (40, COLUMNS)

    def paths(vertex, odd, steps):
        if steps == 0:
            return [(vertex, odd)]
        if vertex < 5:
            return []
        below = zip(netlist.operands[vertex - 5], netlist.inverted[vertex - 5], strict=True)
        return [path for v, flip in below for path in paths(v, odd ^ flip, steps - 1)]

    readers = np.bincount(netlist.operands.ravel(), minlength=45)
    for gate, row in enumerate(table):
        (a, b), (fa, fb) = netlist.operands[gate], netlist.inverted[gate]
        assert row[:4].tolist() == [fa, fb, a < 5, b < 5]
        np.testing.assert_allclose(row[4:6], np.log1p(readers[[a, b]]) / 3, rtol=1e-6)
        for at, (i, j) in enumerate(PAIRS):
            met = [odd == other for (v, odd) in paths(a, fa, i) for (w, other) in paths(b, fb, j) if v == w]
            assert row[6 + 2 * at : 8 + 2 * at].tolist() == [len(met), sum(1 if same else -1 for same in met)]
    assert max(PAIRS) == (REACH, REACH)


def test_an_xor_is_seen_in_the_structure(tmp_path):
    table = structure(small(tmp_path / "xnor.aag", XNOR))
    assert table[2, PAIR : PAIR + 2].tolist() == [2, -2]
    assert not table[[0, 1, 3], PAIR].any()


@pytest.mark.slow
def test_an_untrained_model_is_the_classical_rule():
    example = sample(random_circuit(8, 9, 200), 64)
    predicted = predict(untrained(), [example])
    torch.testing.assert_close(predicted, example.classical.double(), rtol=0, atol=1e-4)


def test_predictions_are_within_the_bounds_of_any_dependence():
    netlist = random_circuit(9, 9, 200)
    with torch.no_grad():
        predicted = predict(model(), [sample(netlist, 64)]).numpy()
    p = np.concatenate([netlist.source, predicted])[netlist.operands]
    p = np.where(netlist.inverted, 1 - p, p)
    assert (predicted >= np.maximum(p.sum(1) - 1, 0) - 1e-9).all()
    assert (predicted <= p.min(1) + 1e-9).all()
    assert np.abs(predicted - p.prod(1)).max() > 0.1


def test_the_model_is_the_same_in_plain_pytorch():
    netlist = random_circuit(10, 4, 30)
    network, one = model(), sample(netlist, 64)
    table = one.structure.double()
    p = list(one.probability.double())
    h = [torch.tanh(network.begin(row)) for row in p]
    for gate, (a, b) in enumerate(netlist.operands):
        pa, pb = (1 - p[v] if flip else p[v] for v, flip in zip((a, b), netlist.inverted[gate], strict=True))
        least, most = (pa + pb - 1).clamp(min=0), torch.minimum(pa, pb)
        share = ((pa * pb - least) / (most - least + 1e-6)).clamp(1e-4, 1 - 1e-4)
        known = torch.cat([h[a], h[b], pa, pb, pa * pb, least, most, share])
        x = network.inner((network.enter(table[gate]) + network.join(known)).relu()).relu()
        p.append(least + (most - least) * torch.sigmoid(torch.logit(share) + network.correct(x).clamp(-12, 12)))
        h.append(torch.tanh(network.leave(x)))
    expected, predicted = torch.cat(p[4:]), predict(network, [one])
    torch.testing.assert_close(predicted, expected, rtol=1e-9, atol=1e-9)
    weights = list(network.parameters())
    ours, theirs = (torch.autograd.grad(value.square().sum(), weights) for value in (predicted, expected))
    for one_, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one_, other, rtol=1e-6, atol=1e-8)


def test_a_batch_is_predicted_as_each_circuit_alone():
    samples = [sample(random_circuit(seed, 3 + seed, 10 * seed), 64) for seed in (1, 2, 3)]
    together = predict(model(), samples)
    torch.testing.assert_close(together, torch.cat([predict(model(), [one]) for one in samples]), rtol=1e-9, atol=1e-9)


def test_an_xor_is_learned(tmp_path):
    """What the classical rule has wrong, and what a few steps make right."""
    one = sample(small(tmp_path / "xnor.aag", XNOR), 64)
    network = untrained()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        loss = (predict(network, [one]) - one.simulated).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
    assert loss < 0.2 * (one.classical - one.simulated).abs().mean()


def layers(width, depth):
    """A circuit in which every level reads the one below, and half of all gates one vertex that all share."""
    rng = np.random.default_rng(width)
    operands = np.concatenate([width * level + rng.integers(0, width, (width, 2)) for level in range(depth)])
    operands[::2, 1] = 0
    return circuit("layers", np.full(width, 0.5), operands, rng.random((width * depth, 2)) < 0.5)


@pytest.mark.slow
def test_memory_is_linear_in_the_circuit():
    network = GateProbability(16)
    for deeper in (False, True):
        each = []
        for times in (1, 4, 16):
            netlist = layers(*((32, 8 * times) if deeper else (32 * times, 8)))
            batch, inputs, _, _ = join([sample(netlist, 64)])
            each.append(memory.saved_bytes(network, batch, inputs) / batch.num_vertices)
        assert max(each) < 1.15 * min(each), f"{deeper=}"
        assert 4 * 16 < each[0] < 4 * 16 * 40  # at least one h a vertex, and not one for each pair of vertices


@pytest.mark.slow
def test_the_commands_run(tmp_path, capsys):
    for number, name in enumerate(("one", "other", "third")):
        (tmp_path / f"{name}.aag").write_bytes(aiger(random_circuit(number, 20, 60 + number)))
        (tmp_path / f"{name}.aag").rename(tmp_path / f"{name}.aig")  # the reader tells the forms apart by their content
    common = ["--data", str(tmp_path), "--held-out", "third", "--cones", "6", "--gates", "30", "--hidden", "6"]
    for out in ("run", "again"):
        train.main([*common, "--epochs", "2", "--batch-size", "3", "--out", str(tmp_path / out)])
    printed = capsys.readouterr().out
    assert "third, 62 gates" in printed
    assert "epoch 2: error" in printed
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results) == {
        "model", "independent operands", "mean of training gates", "one half", "standard error",
    }  # fmt: skip
    held_out = sample(read(tmp_path / "third.aig"), train.TEST_PATTERNS)
    assert results["independent operands"] == pytest.approx(
        float((held_out.classical - held_out.simulated).abs().mean())
    )
    saved = torch.load(tmp_path / "run" / "model.pt")
    best = GateProbability(6)
    best.load_state_dict(saved["model"])
    assert results["model"] == pytest.approx(train.errors(best, [held_out])["model"], rel=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert saved["epoch"] == 1 + int(np.argmin([line["valid"] for line in lines]))
    assert (tmp_path / "again" / "results.json").read_text() == (tmp_path / "run" / "results.json").read_text()


@pytest.mark.slow
def test_memory_of_a_step(tmp_path, capsys):
    (tmp_path / "one.aig").write_bytes(aiger(random_circuit(0, 20, 3000)))
    memory.main(["--data", str(tmp_path), "--hidden", "16", "--steps", "1"])
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("circuit")
    name, gates, *_, peak, each, saved = row.split()
    assert (name, gates) == ("one", "3,000")
    assert float(peak) == pytest.approx(float(each) * 3020 / 2**20, abs=1)
    assert float(saved) > 4 * 16


def test_no_epoch_begins_after_the_time_limit(tmp_path, capsys, eager):
    for number, name in enumerate(("one", "other")):
        (tmp_path / f"{name}.aig").write_bytes(aiger(random_circuit(number, 20, 60)))
    run = tmp_path / "run"
    common = ["--data", str(tmp_path), "--held-out", "one", "--cones", "2", "--hidden", "4", "--out", str(run)]
    train.main([*common, "--minutes", "0"])
    assert "the last epoch is 1" in capsys.readouterr().out
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_wrong_options_and_files_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "one.aig").write_bytes(XNOR)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "one.aig").write_bytes(XNOR[:40])
    for wrong, message in (
        (["--data", str(tmp_path / "empty")], "has no circuits"),
        (["--data", str(tmp_path / "nowhere")], "has no circuits"),
        (["--data", str(tmp_path / "alone")], "--held-out multiplier needs that circuit"),
        (["--data", str(tmp_path / "alone"), "--held-out", "one"], "another to train on"),
        (["--data", str(tmp_path / "broken")], "one.aig, line 8"),
        (["--data", str(tmp_path / "alone"), "--out", str(tmp_path / "alone")], "is in use"),
        (["--data", str(tmp_path / "alone"), "--hidden", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            train.main([*wrong] if "--out" in wrong else [*wrong, "--out", str(tmp_path / "run")])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as stopped:
        memory.main(["--data", str(tmp_path / "empty")])
    assert stopped.value.code == 2


@needs_data
def test_a_step_on_a_real_circuit(data):
    circuits = read_folder(data)
    assert len(circuits["multiplier"]) == 27_062
    netlist = circuits["max"]
    one = sample(netlist, 1 << 14)
    assert (len(netlist), float((one.classical - one.simulated).abs().mean())) == (
        2865,
        pytest.approx(0.0323, abs=0.002),
    )
    network = untrained()
    loss = (predict(network, [one]) - one.simulated).abs().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
