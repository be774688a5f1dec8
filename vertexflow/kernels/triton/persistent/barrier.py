"""The barrier between dependent stages of a persistent kernel: no program goes on before all programs have come.

One number in device memory, 0 at first and never set again. Each program adds to it, all together 2**31: program 0 adds
2**31 - (programs - 1), the others 1 each. So with the last one, and not before, the highest bit changes, and the other bits are
what they were, for any number of programs: the next launch may have another one. (The way of CUDA's cooperative groups.) The sum
is released and the look at it acquires, at the scope of the device: what was written before the barrier is seen behind it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def meet(meeting, program, programs, most_looks: tl.constexpr):
    """Wait until all `programs` have come. With TRITON_DEBUG=1, one that looks `most_looks` times in vain ends the launch."""
    tl.debug_barrier()  # all threads of this program have written what they write
    added = tl.where(program == 0, (1 - programs) ^ -2147483648, 1)
    before = tl.atomic_add(meeting, added, sem="release", scope="gpu")
    now = tl.atomic_add(meeting, 0, sem="acquire", scope="gpu")
    looks = 0
    while (before ^ now) >= 0:  # the highest bit is as it was
        tl.device_assert(looks < most_looks, "programs of a persistent kernel wait for one that does not come")
        looks += 1
        now = tl.atomic_add(meeting, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()
