"""More than one device: how a model is spread over them, graphs over ranks by predicted cost, and losses of the whole batch."""

from .agree import check_same
from .checkpoint import load, save
from .clip import clip_grad_norm_
from .cluster import Cluster, Link
from .cost import Cost
from .find import plan
from .goodput import GradientNoise, best_batch, efficiency, gain
from .graph_part import GraphPart
from .partition import StepCost
from .parts import divide
from .plan import Plan, Prediction
from .reduce import mean, sum
from .sampler import BalancedSampler

__all__ = [
    "BalancedSampler",
    "Cluster",
    "Cost",
    "GradientNoise",
    "GraphPart",
    "Link",
    "Plan",
    "Prediction",
    "StepCost",
    "best_batch",
    "check_same",
    "clip_grad_norm_",
    "divide",
    "efficiency",
    "gain",
    "load",
    "mean",
    "plan",
    "save",
    "sum",
]
