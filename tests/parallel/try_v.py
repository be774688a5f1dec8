import sys, torch, numpy as np, vertexflow as vf
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
from tests.parallel.ranks import run_on_ranks
from tests.models import TreeRNN
from tests.parallel.cases import TREES, Classified, Case
from vertexflow.parallel.parts import divide
import tempfile
def go():
    import torch.distributed as dist
    r, R = dist.get_rank(), dist.get_world_size()
    case = Case(lambda: Classified(TreeRNN(3,4)), TREES)
    one, model = case.model(), case.model()
    batch = vf.pack(TREES)
    x = torch.randn(batch.num_vertices,3,dtype=torch.float64,generator=torch.Generator().manual_seed(0))
    want = one(batch, x)
    want.mean().backward()
    rng=np.random.default_rng(0)
    parts = divide(batch, R, rank_of=rng.integers(0,R,batch.num_vertices))
    part = parts[r]
    ddp = DistributedDataParallel(model)
    got = ddp(part, x[part.own])
    torch.testing.assert_close(got, want[part.own])
    vf.parallel.mean(got).backward()
    for (n,p),q in zip(model.named_parameters(), one.parameters()):
        torch.testing.assert_close(p.grad,q.grad,rtol=1e-10,atol=1e-10,msg=lambda t:n+t)
    print("ok", r)
if __name__=="__main__":
    with tempfile.TemporaryDirectory() as d:
        run_on_ranks(Path(d), int(sys.argv[1]), go)
