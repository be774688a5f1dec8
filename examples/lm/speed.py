"""Tokens a second of the language model with each LSTM: `python -m examples.lm.speed --help`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import vertexflow as vf

from .command import refuse
from .data import Sample
from .model import LSTMS, LanguageModel
from .train import add_data, load_or_refuse, step

Contenders = dict[str, Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Time training steps of the whole model, and of the recurrent layer alone; print tokens a second."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.speed",
        description="Tokens a second of training steps (forward, backward, update), all contenders in turns over the same "
        "batches of sentences; the median of the rounds counts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data(parser)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 128], metavar="N", help="sizes to be timed")
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[64, 16], metavar="N", help="sentences, for each of them"
    )
    parser.add_argument("--batches", type=int, default=4, metavar="N", help="batches in a round")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="times that each contender goes over them")
    options = parser.parse_args(arguments)
    if min(*options.hidden, *options.batch_size, options.batches, options.rounds) < 1:
        refuse("all numbers are at least 1")
    if len(options.hidden) != len(options.batch_size):
        refuse("--hidden and --batch-size need equally many numbers")
    corpus = load_or_refuse(options.data)
    table = Table(title=f"tokens/s, median (slowest to fastest) of {options.rounds} rounds")
    for column in ("", *(f"hidden {h}, batch {b}" for h, b in zip(options.hidden, options.batch_size, strict=True))):
        table.add_column(column, justify="right" if column else "left")
    columns = []
    for hidden, size in zip(options.hidden, options.batch_size, strict=True):
        parts = [corpus.train[at * size : (at + 1) * size] for at in range(options.batches)]
        contenders = whole_model(parts, len(corpus.words), hidden) | layer_alone(parts, hidden)
        tokens = sum(len(targets) for part in parts for _, _, targets in part)
        times = measure(contenders, options.rounds, f"hidden {hidden}")
        columns.append({name: [tokens / seconds for seconds in durations] for name, durations in times.items()})
    for name in columns[0]:
        rates = (rates_by_name[name] for rates_by_name in columns)
        table.add_row(name, *(f"{statistics.median(r):,.0f} ({min(r):,.0f} to {max(r):,.0f})" for r in rates))
    Console().print(table)
    print(f"training steps in float32; CPU threads: {torch.get_num_threads()}")


def whole_model(parts: Sequence[Sequence[Sample]], words: int, hidden: int) -> Contenders:
    """Training steps as `train` does them, from joining the sentences of a batch on."""

    def contender(name: str) -> Callable[[], object]:
        torch.manual_seed(0)
        model = LanguageModel(name, words, hidden, layers=1, dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters())

        def run() -> None:
            for part in parts:
                step(model, optimizer, *vf.collate(part, policy="depth" if name == "vertexflow" else None, rows=(1, 2)))

        return run

    return {f"whole model, {name}": contender(name) for name in LSTMS}


def layer_alone(parts: Sequence[Sequence[Sample]], hidden: int) -> Contenders:
    """Training steps of one LSTM layer from random inputs and gradients of the outputs, on batches that are joined."""
    batches = [vf.pack([chain for chain, _, _ in part]) for part in parts]
    rows = [torch.randn(batch.num_vertices, hidden) for batch in batches]

    def contender(name: str) -> Callable[[], object]:
        make, run_layer = LSTMS[name]
        torch.manual_seed(0)
        layer = make(hidden, hidden)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)

        def run() -> None:
            for batch, x in zip(batches, rows, strict=True):
                optimizer.zero_grad()
                leaf = x.detach().requires_grad_()
                run_layer(layer, batch, leaf).backward(x)  # type: ignore[no-untyped-call]
                optimizer.step()

        return run

    return {f"layer alone, {name}": contender(name) for name in LSTMS}


def measure(contenders: Contenders, rounds: int, title: str) -> dict[str, list[float]]:
    """Seconds of each contender in each round, in turns; each round begins with the next one, and the first two are free."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in tqdm(range(-2, rounds), desc=title, leave=False, unit="round"):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            contenders[name]()
            if number >= 0:
                times[name].append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
