"""What PyTorch itself may ask of the number of vertices in a step."""

from __future__ import annotations

import torch
from torch import nn

import vertexflow as vf


class Convolution(vf.VertexFunction):
    def __init__(self, backend):
        super().__init__(state={"h": 4}, backend=backend)
        self.mix = nn.Conv1d(2, 1, 3, padding=1)

    def vertex(self, v):
        h = self.mix(torch.stack([v.gather(0).h, v.pull("x")], 1))[:, 0]
        v.scatter(h=h)
        v.push(h=h)


def test_a_convolution_by_one_thread_may_choose_its_library_by_the_number_of_rows():
    threads = torch.get_num_threads()
    x = torch.randn(23, 4)
    batch = vf.pack([vf.chain(3) for _ in range(6)] + [vf.chain(5)])  # steps of 7 rows and of one
    eager, traced = Convolution("eager"), Convolution("torch")
    traced.load_state_dict(eager.state_dict())
    try:
        torch.set_num_threads(1)
        torch.testing.assert_close(traced(batch, x=x).h, eager(batch, x=x).h)
    finally:
        torch.set_num_threads(threads)
