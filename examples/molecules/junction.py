"""A molecule as a tree of its rings and bonds (Jin, Barzilay and Jaakkola, ICML 2018, section 2.2 and appendix A)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache

import networkx
from rdkit import Chem

Clusters = list[frozenset[int]]
THROUGH_ATOM = 100  # the weight of an edge to a single atom where clusters meet, above that of any other


def junction_tree(molecule: Chem.Mol) -> tuple[list[str], list[tuple[int, int]]]:
    """The SMILES of each cluster of atoms, and the edges of a tree between clusters that share atoms.

    Clusters are rings, bonds outside of rings, and atoms at which three clusters or more meet. Rings that share more than two
    atoms are one cluster. Among all trees it is one whose clusters share the most atoms.
    """
    clusters = _clusters(molecule)
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(clusters)))
    for first, second, weight in _shared_atoms(clusters):
        graph.add_edge(first, second, weight=weight)
    names = [Chem.MolFragmentToSmiles(molecule, sorted(cluster), isomericSmiles=False) for cluster in clusters]
    names = list(map(_canonical, names))
    return names, list(networkx.maximum_spanning_edges(graph, data=False))


@cache
def _canonical(name: str) -> str:
    """The same for a fragment whatever the molecule that it was cut out of."""
    fragment = Chem.MolFromSmiles(name, sanitize=False)
    return name if fragment is None else str(Chem.MolToSmiles(fragment))


def _clusters(molecule: Chem.Mol) -> Clusters:
    rings = [frozenset(ring) for ring in Chem.GetSymmSSSR(molecule)]
    merged: Clusters = []
    for ring in rings:  # bridged rings become one
        for other in [other for other in merged if len(ring & other) > 2]:
            merged.remove(other)
            ring |= other
        merged.append(ring)
    bonds = [
        frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in molecule.GetBonds() if not bond.IsInRing()
    ]
    clusters = merged + bonds
    meetings = [frozenset((atom,)) for atom, owners in _owners(clusters).items() if len(owners) > 2]
    alone = [frozenset((atom.GetIdx(),)) for atom in molecule.GetAtoms() if not atom.GetDegree()]
    return clusters + meetings + alone


def _owners(clusters: Clusters) -> dict[int, list[int]]:
    """The clusters that each atom is in."""
    owners: dict[int, list[int]] = defaultdict(list)
    for number, cluster in enumerate(clusters):
        for atom in cluster:
            owners[atom].append(number)
    return owners


def _shared_atoms(clusters: Clusters) -> list[tuple[int, int, int]]:
    """Pairs of clusters that share atoms, and how many."""
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for owners in _owners(clusters).values():
        for pair in itertools.combinations(owners, 2):
            shared[pair] += THROUGH_ATOM if any(len(clusters[number]) == 1 for number in pair) else 1
    return [(first, second, weight) for (first, second), weight in shared.items()]
