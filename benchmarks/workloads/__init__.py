"""The tasks, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..harness import Case, Settings
from . import childsum, circuits, customlstm, lstm, treefc, treelstm


@dataclass(frozen=True)
class Workload:
    """A task in words, and how to make it; `needs_data` if from real data, in the folder of the settings."""

    what: str
    make: Callable[[Settings], Case]
    needs_data: bool = False


WORKLOADS = {
    "treelstm": Workload("a binary TreeLSTM over random trees of 5 to 35 leaves", treelstm.random_trees),
    "treelstm-sst": Workload("the same over the Stanford Sentiment Treebank", treelstm.sst, needs_data=True),
    "childsum": Workload("a child-sum TreeLSTM over random trees of 5 to 35 words", childsum.random_trees),
    "childsum-ud": Workload("the same over the sentences of UD English EWT", childsum.ud_english, needs_data=True),
    "treefc": Workload("Tree-FC over complete binary trees of 256 leaves", treefc.complete_trees),
    "fixedlstm": Workload("an LSTM over sequences of 64 steps", lstm.fixed),
    "varlstm": Workload("an LSTM over sequences of 5 to 60 steps", lstm.varied),
    "customlstm": Workload("an LSTM with peepholes over sequences of 5 to 60 steps", customlstm.varied),
    "circuits": Workload("a DAG network over random circuits of 20 to 300 gates", circuits.random_dags),
    "circuits-epfl": Workload("the same over cones of the circuits of EPFL", circuits.epfl, needs_data=True),
}
