"""vertexflow: networks whose structure changes with every sample, batched and fused, from the computation of one vertex."""

from . import nn, parallel
from ._version import __version__
from .call.estimate import MemoryEstimate
from .call.kinds import vertex
from .call.outputs import Outputs
from .errors import (
    BackendError,
    GraphError,
    InputError,
    InputTypeError,
    LinAlgError,
    NotTracedError,
    OutputError,
    SlowCoreWarning,
    VertexFlowError,
    VertexFunctionError,
)
from .function import VertexFunction
from .graph.inputs.build import InputGraph, chain, graph, tree, tree_from_parents
from .graph.inputs.hyper import hypergraph
from .graph.inputs.line_graph import line_graph
from .graph.inputs.pack import GraphBatch, pack
from .graph.inputs.readers.aiger import from_aiger
from .graph.inputs.readers.conllu import from_conllu
from .graph.inputs.readers.convert import from_edge_index, from_networkx, to_networkx
from .graph.inputs.readers.nltk import from_nltk, to_nltk
from .graph.inputs.readers.read import from_ptb
from .graph.inputs.split import BatchPart, split
from .graph.inputs.unroll import unroll, unrolled_edges
from .graph.symbolic.vertex import Vertex
from .growing.frontier import Frontier
from .pictures.svg import Picture
from .samples.collate import collate
from .scheduler import FSM, Policy, Schedule, schedule
from .timeline import timeline
from .view import view

__all__ = [
    "FSM",
    "BackendError",
    "BatchPart",
    "Frontier",
    "GraphBatch",
    "GraphError",
    "InputError",
    "InputGraph",
    "InputTypeError",
    "LinAlgError",
    "MemoryEstimate",
    "NotTracedError",
    "OutputError",
    "Outputs",
    "Picture",
    "Policy",
    "Schedule",
    "SlowCoreWarning",
    "Vertex",
    "VertexFlowError",
    "VertexFunction",
    "VertexFunctionError",
    "__version__",
    "chain",
    "collate",
    "from_aiger",
    "from_conllu",
    "from_edge_index",
    "from_networkx",
    "from_nltk",
    "from_ptb",
    "graph",
    "hypergraph",
    "line_graph",
    "nn",
    "pack",
    "parallel",
    "schedule",
    "split",
    "timeline",
    "to_networkx",
    "to_nltk",
    "tree",
    "tree_from_parents",
    "unroll",
    "unrolled_edges",
    "vertex",
    "view",
]
