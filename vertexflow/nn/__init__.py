"""Ready-made vertex functions."""

from .childsum import ChildSumTreeLSTM
from .ggnn import GGNN
from .gru import GRU
from .lstm import LSTM
from .mvrnn import MVRNN
from .rntn import RNTN
from .treefc import TreeFC
from .treegru import TreeGRU
from .treelstm import NaryTreeLSTM

__all__ = ["GGNN", "GRU", "LSTM", "MVRNN", "RNTN", "ChildSumTreeLSTM", "NaryTreeLSTM", "TreeFC", "TreeGRU"]
