"""Models in several threads, in forked and spawned processes, and batches made by the workers of a DataLoader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import vertexflow as vf
from vertexflow.scheduler import cache

from .models import BinaryTreeLSTM, TreeRNN
from .promises import SHAPES, SIZE, graphs_of, inputs_of, outputs_and_gradients, same_bits
from .versions import FORKS, IS_OLD

ROOT = Path(__file__).parent.parent
NUM_THREADS = 8


def in_threads(work):
    """Call `work` with 0, 1, ... in NUM_THREADS threads, all at once; returns their results."""
    results, failures, start = [None] * NUM_THREADS, [], threading.Barrier(NUM_THREADS)

    def call(number):
        try:
            torch.set_num_threads(1)  # for operations of this thread
            start.wait()
            results[number] = work(number)
        except BaseException as failure:  # or the thread would swallow it
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return results


def grown(model, x):
    """A run that grows by pairs until one vertex is left, and the gradients through it."""
    x = x.clone().requires_grad_()
    run = model.start(x=x)
    ready = list(range(len(x)))
    while len(ready) > 1:
        pairs = [ready[at : at + 2] for at in range(0, len(ready) - 1, 2)]
        rest = ready[2 * len(pairs) :]
        ready = run.extend(pairs, x=torch.zeros(len(pairs), x.shape[1])).tolist() + rest
    h = run[ready].h
    return [h.detach(), *torch.autograd.grad(h.square().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.cases(1)
def test_eight_threads_with_one_model_and_models_of_their_own(backend):
    """Forward and backward of all at once, over batches that all share, over their own, and over runs that grow."""
    shape = SHAPES["DAGs"]
    shared, graphs = TreeRNN(SIZE, SIZE), [graphs_of(shape, 6, seed) for seed in range(NUM_THREADS + 1)]
    shared.backend = backend
    rows = [inputs_of(shape, each, seed) for seed, each in enumerate(graphs)]
    together = vf.pack(graphs[-1])

    def work(number, rounds=2):
        torch.manual_seed(number)
        models = [shared]
        if number < 3:  # of its own, which is traced while others are
            models.append(TreeRNN(SIZE, SIZE))
            models[1].backend = backend
            models[1].load_state_dict({name: value * (1 + number) for name, value in shared.state_dict().items()})
        return [
            outputs_and_gradients(shared, together, rows[-1])
            + [tensor for model in models for tensor in outputs_and_gradients(model, graphs[number], rows[number])]
            + grown(shared, rows[number][:7])
            for _ in range(rounds)
        ]

    results = in_threads(work)
    for number in range(NUM_THREADS):
        (alone,) = work(number, rounds=1)
        assert all(same_bits(each, alone) for each in results[number])


FIRST_IN_A_THREAD = """
import faulthandler, threading
from tests.models import TreeRNN
from tests.promises import SHAPES, SIZE, graphs_of, inputs_of
faulthandler.enable()
def call():
    graphs = graphs_of(SHAPES["trees"], 3)
    TreeRNN(SIZE, SIZE)(graphs, x=inputs_of(SHAPES["trees"], graphs))
thread = threading.Thread(target=call)
thread.start()
thread.join()
call()
"""


@pytest.mark.skipif(not IS_OLD, reason="since PyTorch 2.13, no thread owns what others trace with")
def test_the_first_thread_that_traces_may_end():
    """Before, PyTorch built for CUDA reads freed memory then, which glibc fills here with something else."""
    environment = {**os.environ, "MALLOC_PERTURB_": "165"}
    subprocess.run([sys.executable, "-c", FIRST_IN_A_THREAD], cwd=ROOT, env=environment, check=True, timeout=120)


def in_a_child(work, seconds=60):
    """Whether `work` comes to an end, with something true, in a forked process."""
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@FORKS
@pytest.mark.parametrize("backend", ["torch", "native", "eager"])
@pytest.mark.cases(2)
def test_a_model_in_a_forked_child_after_the_parent_used_it_with_several_threads(backend):
    shape = SHAPES["trees"]
    model, graphs = BinaryTreeLSTM(SIZE, 64), graphs_of(shape, 150)
    model.backend = backend
    x = inputs_of(shape, graphs)
    torch.set_num_threads(2)
    expected = outputs_and_gradients(model, graphs, x)

    def work():
        actual = outputs_and_gradients(model, graphs, x)
        torch.testing.assert_close(actual, expected)
        return torch.get_num_threads() == 1

    assert in_a_child(work)
    assert torch.get_num_threads() == 2
    assert same_bits(outputs_and_gradients(model, graphs, x), expected)


@FORKS
def test_a_child_that_was_forked_while_another_thread_held_a_lock():
    model = TreeRNN(SIZE, SIZE)
    graphs = graphs_of(SHAPES["trees"], 3)
    held, go = threading.Event(), threading.Event()

    def hold():
        with cache._lock:
            held.set()
            go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert in_a_child(lambda: model(graphs, x=inputs_of(SHAPES["trees"], graphs)).h.isfinite().all(), seconds=20)
    finally:
        go.set()
        holder.join()


class Trees(torch.utils.data.Dataset):
    """Graphs that are made in the worker, and a row for each vertex."""

    def __len__(self):
        return 24

    def __getitem__(self, number):
        (graph,) = graphs_of(SHAPES["trees"], 1, number)
        return graph, np.full((graph.num_vertices, SIZE), number, np.float32)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_make_the_batches_that_one_process_makes(method):
    collate = partial(vf.collate, rows=(1,), num_slots=2)
    alone = DataLoader(Trees(), batch_size=5, collate_fn=collate)
    model = TreeRNN(SIZE, SIZE)
    expected = [outputs_and_gradients(model, *samples) for samples in alone]
    workers = DataLoader(
        Trees(), batch_size=5, collate_fn=collate, num_workers=2 if method == "fork" else 1,
        multiprocessing_context=method, timeout=60,
    )  # fmt: skip
    actual = [outputs_and_gradients(model, *samples) for samples in workers]
    assert len(actual) == len(expected)
    assert all(map(same_bits, actual, expected))


def _in_a_worker(model, graphs, x, results):
    results.put([tensor.numpy() for tensor in outputs_and_gradients(model, graphs, x)])


@pytest.mark.slow
def test_a_model_that_is_sent_to_a_spawned_process():
    shape = SHAPES["kinds"]
    model, graphs = shape.model().eval(), graphs_of(shape, 5)
    x = inputs_of(shape, graphs)
    expected = outputs_and_gradients(model, graphs, x)
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_in_a_worker, args=(model, graphs, x, results))
    process.start()
    actual = results.get()
    process.join(60)
    assert process.exitcode == 0
    torch.testing.assert_close([torch.from_numpy(each) for each in actual], expected)
