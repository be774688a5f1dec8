"""The example of molecules: junction trees, what its models see, and its command line."""

from __future__ import annotations

import json

import networkx
import pytest
import torch
from rdkit import Chem

from examples.molecules import data, train
from examples.molecules.junction import junction_tree
from examples.molecules.model import MODELS, TreeMessages

SMILES = [
    "CCO",
    "Cc1ccccc1",
    "CC(C)(C)N",
    "C1CC2CCC1C2",
    "O=C(O)c1ccncc1",
    "CCN",
    "C#N",
    "c1ccc2ccccc2c1",
    "[Na+]",
    "CCCl",
]


@pytest.mark.parametrize(
    ("smiles", "clusters"),
    [
        ("CCO", ["CC", "CO"]),
        ("Cc1ccccc1", ["c1ccccc1", "cC"]),
        ("CC(C)(C)N", ["C", "CC", "CC", "CC", "CN"]),  # an atom at which four bonds meet is a cluster
        ("C1CC2CCC1C2", ["C1CC2CCC1C2"]),  # bridged rings are one
        ("c1ccc2ccccc2c1", ["c1ccccc1", "c1ccccc1"]),  # rings that share a bond are two
        ("[Na+]", ["[Na+]"]),
    ],
)
def test_the_clusters_of_a_molecule(smiles, clusters):
    names, edges = junction_tree(Chem.MolFromSmiles(smiles))
    assert sorted(names) == sorted(map(str, clusters))
    tree = networkx.Graph(edges)
    tree.add_nodes_from(range(len(names)))
    assert networkx.is_tree(tree)


def test_bonds_that_meet_hang_on_their_atom():
    names, edges = junction_tree(Chem.MolFromSmiles("CC(C)(C)N"))
    middle = names.index("C")
    assert all(middle in edge for edge in edges)


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("\n".join(SMILES * 2), encoding="utf-8")
    return data.load(path, tmp_path)


def test_molecules_are_split_numbered_and_kept(molecules, tmp_path):
    assert [len(part) for part in (molecules.train, molecules.dev, molecules.test)] == [16, 2, 2]
    assert molecules.clusters[0] == molecules.atoms[0] == "<unknown>"
    assert "C+0H3" in molecules.atoms
    (kept,) = tmp_path.glob("molecules-*.pt")
    before = kept.stat().st_mtime_ns
    again = data.load(tmp_path / "some.txt", tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert [molecule.logp for molecule in again.test] == [molecule.logp for molecule in molecules.test]


def test_messages_between_clusters_are_those_of_a_recursion(molecules, eager):
    torch.manual_seed(0)
    model = TreeMessages(len(molecules.clusters), 4).double()
    molecule = max(molecules.train, key=lambda molecule: molecule.messages.num_vertices)
    lines = molecule.messages
    source, target = (torch.from_numpy(lines.data[name]) for name in ("vertex", "target"))
    messages = int((lines.kind == "message").sum())

    def before(at, answer):
        into = [at for at in range(messages) if target[at] == source[answer]]
        return [message(at) for at in into if source[at] != target[answer] or answer >= messages]

    def message(at):
        kids = torch.stack([*before(at, at), torch.zeros(4, dtype=torch.float64)])
        update, reset, new = model.w(model.embed(molecule.cluster[at])).chunk(3)
        total = kids.sum(0)
        z, r = torch.sigmoid(update + model.u_update(total)), torch.sigmoid(reset + model.u_reset(kids))
        return (1 - z) * total + z * torch.tanh(new + model.u_new((r * kids).sum(0)))

    expected = []
    for at in range(messages, lines.num_vertices):
        total = sum(before(at, at), torch.zeros(4, dtype=torch.float64))
        expected.append(torch.relu(model.out(torch.cat([model.embed(molecule.cluster[at]), total]))))
    torch.testing.assert_close(model([lines], cluster=molecule.cluster).h, torch.stack(expected))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_what_its_molecules_give(name, molecules, eager):
    torch.manual_seed(0)
    model = MODELS[name](len(molecules.clusters), len(molecules.atoms), 8)
    together = train.predict(model, molecules.train, 16)
    alone = torch.cat([train.predict(model, [molecule], 1) for molecule in molecules.train])
    torch.testing.assert_close(together, alone)


@pytest.mark.slow
def test_the_command_trains_and_draws(tmp_path, eager, capsys):
    path = tmp_path / "some.txt"
    path.write_text("\n".join(SMILES), encoding="utf-8")
    command = ["--data", str(path), "--cache", str(tmp_path), "--size", "8", "--epochs", "2"]
    runs = [train.main([*command, "--out", str(tmp_path / name)]) for name in ("one", "two")]
    assert runs[0] == runs[1]
    lines = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] * len(MODELS)
    assert (tmp_path / "one" / "logp.png").stat().st_size > 1000
    assert "junction-tree: off by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data PATH is missing"),
        (["--data", "nowhere.txt"], "--data nowhere.txt"),
        (["--data", "nowhere.txt", "--size", "0"], "at least 1"),
    ],
)
def test_wrong_options_are_told(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv("VERTEXFLOW_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_line_that_is_no_molecule(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("\n".join([*SMILES, "C1CC"]), encoding="utf-8")
    with pytest.raises(ValueError, match="'C1CC' is no SMILES"):
        data.load(path, tmp_path)
