"""What other builds and versions of PyTorch than the one that is developed with cannot do: tests that need it say so by these."""

from __future__ import annotations

import pytest
import torch

IS_OLD = torch.__version__ < (2, 13)

GENERATORS = pytest.mark.skipif(IS_OLD, reason="before PyTorch 2.13, its traces know no generators: refused")
SHARDS = pytest.mark.skipif(
    IS_OLD, reason="before PyTorch 2.13, ranks without some gradient cannot be sharded: refused"
)
FORKS = pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="PyTorch built for CUDA refuses backward passes in a forked process whose parent has had one",
)
