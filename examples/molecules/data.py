"""Molecules of a file of SMILES: their junction trees, their atoms and bonds, and their logP."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem, RDLogger
from rdkit.Chem import Crippen
from torch import Tensor
from tqdm import tqdm

import vertexflow as vf

from . import checkpoint
from .junction import junction_tree

UNKNOWN = 0  # the number of a cluster or an atom that training has not


@dataclass
class Molecule:
    """What the models see of a molecule.

    Attributes:
        messages: along the edges of its junction tree in both directions, and the clusters (`vf.line_graph`).
        cluster: int64 [2 E + V], the cluster that a message comes from, or the cluster itself.
        bonds: its atoms, and its bonds as edges in one of their directions.
        atom, bond: int64, of what sort each atom and each bond is.
        logp: the octanol-water partition coefficient as Wildman and Crippen (1999) estimate it.
    """

    messages: vf.InputGraph
    cluster: Tensor
    bonds: vf.InputGraph
    atom: Tensor
    bond: Tensor
    logp: float


@dataclass(frozen=True)
class Molecules:
    """Molecules to train on, for choosing the epoch, and for the figures; and what the numbers stand for."""

    train: list[Molecule]
    dev: list[Molecule]
    test: list[Molecule]
    clusters: list[str]
    atoms: list[str]


@dataclass(frozen=True)
class _Read:
    """A molecule by names."""

    clusters: list[str]
    tree: list[tuple[int, int]]
    atoms: list[str]
    bonds: list[tuple[int, int]]
    orders: list[int]
    logp: float


ORDERS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC]


def load(path: Path, cache: Path, seed: int = 0, limit: int | None = None) -> Molecules:
    """Read a file with a SMILES a line (or `zinc/valid.txt` of a folder); eight tenths are to train on.

    What RDKit makes of them takes a minute or two, and is kept in the folder `cache` for the next time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no SMILES, or there are fewer than ten.
    """
    path = path / "zinc" / "valid.txt" if path.is_dir() else path
    lines = path.read_text(encoding="utf-8").split()[:limit]
    if len(lines) < 10:
        raise ValueError(f"{path} has {len(lines)} molecules; at least 10 are needed to train, choose and test")
    order = np.random.default_rng(seed).permutation(len(lines))
    read = _kept(lines, cache)
    tenth = len(lines) // 10
    parts = [[read[at] for at in part] for part in np.split(order, [len(lines) - 2 * tenth, len(lines) - tenth])]
    clusters = _names(name for molecule in parts[0] for name in molecule.clusters)
    atoms = _names(name for molecule in parts[0] for name in molecule.atoms)
    numbers = [{name: at for at, name in enumerate(names)} for names in (clusters, atoms)]
    train, dev, test = ([_numbered(molecule, *numbers) for molecule in part] for part in parts)
    return Molecules(train, dev, test, clusters, atoms)


def read_smiles(line: str) -> _Read:
    """A molecule, its junction tree, and its logP."""
    molecule = Chem.MolFromSmiles(line)
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError(f"{line!r} is no SMILES of a molecule")
    clusters, tree = junction_tree(molecule)
    atoms = [
        f"{atom.GetSymbol()}{'a' * atom.GetIsAromatic()}{atom.GetFormalCharge():+}H{atom.GetTotalNumHs()}"
        for atom in molecule.GetAtoms()
    ]
    bonds = [sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in molecule.GetBonds()]
    orders = [ORDERS.index(bond.GetBondType()) for bond in molecule.GetBonds()]
    return _Read(clusters, tree, atoms, [(a, b) for a, b in bonds], orders, float(Crippen.MolLogP(molecule)))


def _kept(lines: Sequence[str], cache: Path) -> list[_Read]:
    """The molecules, read now or as they were read before."""
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    file = cache / f"molecules-{digest}.pt"
    if file.exists():
        return [_Read(*fields) for fields in checkpoint.load(file)["molecules"]]
    RDLogger.DisableLog("rdApp.*")
    read = [read_smiles(line) for line in tqdm(lines, desc="junction trees", unit="molecule", disable=None)]
    cache.mkdir(parents=True, exist_ok=True)
    checkpoint.save(file, {"molecules": [tuple(vars(molecule).values()) for molecule in read]})
    return read


def _numbered(molecule: _Read, clusters: dict[str, int], atoms: dict[str, int]) -> Molecule:
    messages = vf.line_graph((len(molecule.clusters), molecule.tree))
    own = torch.tensor([clusters.get(name, UNKNOWN) for name in molecule.clusters])
    return Molecule(
        messages=messages,
        cluster=own[torch.from_numpy(messages.data["vertex"])],
        bonds=vf.graph(len(molecule.atoms), molecule.bonds),
        atom=torch.tensor([atoms.get(name, UNKNOWN) for name in molecule.atoms]),
        bond=torch.tensor(molecule.orders, dtype=torch.int64),
        logp=molecule.logp,
    )


def _names(occurrences: Iterable[str]) -> list[str]:
    """Distinct names, the most frequent first, after one name for all that is unknown."""
    return ["<unknown>", *(name for name, _ in Counter(occurrences).most_common())]
