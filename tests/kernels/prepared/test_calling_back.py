"""Operations that see all rows of a step at once: passes that are written down call PyTorch back for them, once a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import autograd, native
from vertexflow.kernels.operations import WHOLE_STEPS
from vertexflow.kernels.prepared import windows

from ...models import FromCode

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")

calls: list[tuple[str, int]] = []  # rows of each
fails_at: list[str] = []


def whole_step(values: torch.Tensor, back: bool) -> torch.Tensor:
    """Three times the values, in both passes; notes how many rows it is given."""
    way = "backward" if back else "forward"
    calls.append((way, len(values)))
    if way in fails_at:
        raise ConnectionError(f"the {way} message did not come")
    return 3 * values


OPERATION = torch.library.custom_op("vertexflow_tests::whole_step", whole_step, mutates_args=())
OPERATION.register_fake(lambda values, back: torch.empty_like(values))
OPERATION.register_autograd(
    lambda ctx, grad: (OPERATION(grad, True), None), setup_context=lambda ctx, inputs, output: None
)


class Sent(vf.VertexFunction):
    """A state that goes through the operation before it is read, beside one that does not."""

    def __init__(self, backend):
        super().__init__(state={"h": 4, "m": (2, 2)}, backend=backend)
        self.w, self.u = nn.Linear(3, 4), nn.Linear(8, 4)

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        sent = OPERATION(torch.cat([left.h, right.m.flatten(1)], 1), False)
        h = torch.tanh(self.w(v.pull("x")) + self.u(sent) / 9)
        v.scatter(h=h, m=torch.stack([h[:, :2], h[:, 2:]], 1))
        v.push(h=h)


@pytest.fixture(autouse=True)
def _listed(monkeypatch):
    target = torch.ops.vertexflow_tests.whole_step.default
    WHOLE_STEPS.add(target)
    calls.clear(), fails_at.clear()
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)  # fewer than steps have
    yield
    WHOLE_STEPS.remove(target)


@pytest.fixture
def are_prepared(monkeypatch):
    prepared_runs, prepared_for = [], autograd.prepared_for
    monkeypatch.setattr(
        autograd, "prepared_for", lambda *given: prepared_runs.append(prepared_for(*given)) or prepared_runs[-1]
    )
    return prepared_runs


GRAPHS = [vf.tree((((0, 1), (2, 3)), ((4, 5), 6))), vf.chain(4), vf.tree(((0, 1), (2, 3)))]


def trained(model, batch, x):
    x = x.clone().requires_grad_()
    out = model(batch, x=x).h
    return [out, *torch.autograd.grad(out.sin().sum(), [x, *model.parameters()])]


def agree(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_steps_are_whole_and_the_numbers_those_of_pytorch(are_prepared):
    batch, models = vf.pack(GRAPHS), []
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64)
    for backend in ("native", "torch"):
        torch.manual_seed(0)
        models.append(Sent(backend).double())
    native_code, reference = (trained(model, batch, x) for model in models)
    agree(native_code, reference)
    assert are_prepared[0] is not None
    for _ in range(2):
        calls.clear()
        trained(models[0], batch, x)
        sizes = [stop - start for start, stop in vf.schedule(batch).steps.tolist()]
        forward, backward = ([rows for way, rows in calls if way == each] for each in ("forward", "backward"))
        assert forward in (sizes, sizes[1:])  # what leaves read is zero
        assert backward == sizes[1:][::-1]


def test_what_a_call_raises_the_pass_raises_and_the_next_goes_on():
    batch, model = vf.pack(GRAPHS), Sent("native")
    x = torch.randn(batch.num_vertices, 3)
    first = trained(model, batch, x)
    for way in ("forward", "backward"):
        fails_at.append(way)
        calls.clear()
        with pytest.raises(vf.VertexFunctionError, match=f"ConnectionError: the {way} message did not come"):
            trained(model, batch, x)
        assert [each for each, _ in calls].count(way) == 1  # and no others after it
        fails_at.clear()
    agree(trained(model, batch, x), first)


def test_other_operations_that_pytorch_computes_are_as_before(are_prepared):
    def vertex(self, v):
        h = torch.cumsum(torch.tanh(v.pull("x") + v.gather(0).h + v.gather(1).h), -1)
        v.scatter(h=torch.linalg.matrix_exp(h[:, :4].reshape(-1, 2, 2)).flatten(1))
        v.push(h=h)

    batch = vf.pack(GRAPHS)
    model = FromCode(vertex, {"h": 4})
    model.backend = "native"
    model(batch, x=torch.randn(batch.num_vertices, 4))
    assert are_prepared == [None]
