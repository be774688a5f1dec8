"""How many random cases a test tries: few in `make test`, where a minute counts, more where somebody asks for them.

Each case is traced anew, which takes half a second. `VERTEXFLOW_EXAMPLES=20 make test` tries twenty times as many, and
`python -m tests.fuzz` looks for such cases, and for stranger ones, for as long as one likes.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_TIMES = float(os.environ.get("VERTEXFLOW_EXAMPLES", "1"))


def repeats(count: int) -> int:
    """`count`, or as many times as many as somebody asks for; at least one."""
    return max(1, round(count * _TIMES))


def tries(count: int) -> settings:
    """Of Hypothesis, for a test over `count` cases that are slow to make: shrinking a failure would take minutes."""
    return settings(
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        max_examples=repeats(count),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
