"""In what order vertices are computed: policies, and the schedule of a batch."""

from .cache import cached_schedule
from .edges import EdgeLists, edge_lists
from .fsm import FSM
from .policies import LATE, POLICIES, Policy, Structure
from .schedule import Schedule, schedule

__all__ = [
    "FSM",
    "LATE",
    "POLICIES",
    "EdgeLists",
    "Policy",
    "Schedule",
    "Structure",
    "cached_schedule",
    "edge_lists",
    "schedule",
]
