"""Ready-made vertex functions."""

from .childsum import ChildSumTreeLSTM
from .dagnn import DAGNN
from .ggnn import GGNN
from .gru import GRU
from .lattice import LatticeLSTM, lattice
from .lstm import LSTM
from .mvrnn import MVRNN
from .rntn import RNTN
from .treefc import TreeFC
from .treegru import TreeGRU
from .treelstm import NaryTreeLSTM

__all__ = [
    "DAGNN",
    "GGNN",
    "GRU",
    "LSTM",
    "MVRNN",
    "RNTN",
    "ChildSumTreeLSTM",
    "LatticeLSTM",
    "NaryTreeLSTM",
    "TreeFC",
    "TreeGRU",
    "lattice",
]
