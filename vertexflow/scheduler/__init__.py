"""In what order: policies, and the schedule that they make of a batch."""

from .schedule import Schedule, schedule

__all__ = ["Schedule", "schedule"]
