"""The tasks, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..harness import Case, Settings
from . import childsum, circuits, lstm, treefc, treelstm


@dataclass(frozen=True)
class Workload:
    """How to make a task; `needs_data` if it is of real data, in the folder of the settings."""

    make: Callable[[Settings], Case]
    needs_data: bool = False


WORKLOADS = {
    "treelstm": Workload(treelstm.random_trees),
    "treelstm-sst": Workload(treelstm.sst, needs_data=True),
    "childsum": Workload(childsum.random_trees),
    "childsum-ud": Workload(childsum.ud_english, needs_data=True),
    "treefc": Workload(treefc.complete_trees),
    "fixedlstm": Workload(lstm.fixed),
    "varlstm": Workload(lstm.varied),
    "circuits": Workload(circuits.random_dags),
    "circuits-epfl": Workload(circuits.epfl, needs_data=True),
}
