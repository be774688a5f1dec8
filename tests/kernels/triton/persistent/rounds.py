"""A kernel whose programs meet again and again, and look whether one of them is behind."""

import triton
import triton.language as tl

from vertexflow.kernels.triton.persistent.barrier import meet


@triton.jit
def rounds(memory, program, programs, first, end, most_looks: tl.constexpr):
    """Rounds [first, end). Memory: the number of the barrier, the round that each program has reached, and, from 9 on, how often
    each saw another one behind."""
    at = first
    while at < end:
        tl.store(memory + 1 + program, at)
        meet(memory, program, programs, most_looks)
        other = 0
        while other < programs:
            behind = tl.load(memory + 1 + other) < at
            tl.store(memory + 9 + program, tl.load(memory + 9 + program) + behind.to(tl.int32))
            other += 1
        meet(memory, program, programs, most_looks)
        at += 1
