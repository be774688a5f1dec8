"""`vf.timeline`: what a profiler saw of vertex functions, as a picture."""

from __future__ import annotations

import re
from typing import Any

from .errors import InputError, InputTypeError
from .kernels.ranges import PREFIX
from .pictures.svg import Picture
from .pictures.timeline import Range, draw

_NAME = re.compile(rf"{PREFIX}(?P<part>.*?)(, step (?P<step>\d+))?")


def timeline(profile: Any) -> Picture:
    """What `torch.profiler` saw of vertex functions, as a picture: time from left to right, a line for each part, a bar for each
    step. The same ranges, named `vertexflow core, step 3`, stand in `profile.key_averages()` and in exported traces; without a
    profiler they cost nothing. (While one runs, the steps of native code are called one by one, to be seen apart.)

    Args:
        profile: a `torch.profiler.profile` whose `with` block is left.

    Returns:
        A picture, which notebooks show; `.save("timeline.svg")` writes it.

    Raises:
        InputTypeError: this is no profile.
        InputError: no vertex function ran in it.

    Example:
        >>> with torch.profiler.profile() as profile:
        ...     model(batch, x=x).h.sum().backward()
        >>> vf.timeline(profile).save("timeline.svg")
    """
    if not callable(getattr(profile, "events", None)):
        raise InputTypeError(f"a timeline is made of a torch.profiler.profile, not of a {type(profile).__name__}")
    ranges = []
    try:
        events = profile.events()
    except (AssertionError, RuntimeError, AttributeError) as error:
        raise InputError("the profile has no events yet; leave its `with` block first") from error
    for event in events or ():
        match = _NAME.fullmatch(event.name)
        if match is not None and "CPU" in str(event.device_type):  # of a GPU, the times at which steps were launched
            step = match["step"]
            times = event.time_range
            ranges.append(Range(match["part"], None if step is None else int(step), times.start, times.end))
    if not ranges:
        raise InputError("no vertex function ran while this profile was taken; call a model inside its `with` block")
    return draw(ranges)
