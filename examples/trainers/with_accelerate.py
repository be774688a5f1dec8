"""Train with accelerate: `python -m examples.trainers.with_accelerate --help`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

import vertexflow as vf

from . import formulas
from .formulas import Sample
from .loaders import loader
from .model import Classifier
from .options import check, parser, refuse

PRECISIONS = "no", "bf16"


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, print, and return the accuracy on longer formulas."""
    command_line = parser(
        f"{__package__}.with_accelerate",
        "Train with accelerate to find the value of formulas. Writes model.safetensors.",
        PRECISIONS,
    )
    command_line.add_argument("--cpu", action="store_true", help="there, even if there is a GPU")
    options = command_line.parse_args(arguments)
    check(options)
    try:
        from accelerate import Accelerator
        from accelerate.utils import set_seed
    except ImportError:
        refuse("this needs accelerate: pip install accelerate")

    set_seed(options.seed)
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=options.precision)
    model = Classifier(options.hidden)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    model, optimizer = accelerator.prepare(model, optimizer)  # not the loaders: batches are spread already
    train = loader(formulas.make(options.formulas, options.most, options.seed + 1), options.batch_size, options.seed)
    longer = loader(formulas.make(1000, 4 * options.most, options.seed + 2), options.batch_size)
    longer_accuracy = 0.0
    for epoch in range(1, options.epochs + 1):
        train.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        with tqdm(train, f"epoch {epoch}", leave=False, unit="batch", disable=not accelerator.is_main_process) as bar:
            for sample in bar:
                label = sample["label"].to(accelerator.device)
                losses = cross_entropy(scores(model, sample, accelerator.device), label, reduction="none")
                loss = vf.parallel.mean(losses)  # of the rows of all processes
                optimizer.zero_grad()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                bar.set_postfix(loss=f"{loss.item():.3f}")
        longer_accuracy = accuracy(model, longer, accelerator.device)
        accelerator.print(
            f"epoch {epoch}: the value of {longer_accuracy:.1%} of 1,000 formulas of up to {4 * options.most} values found"
        )
    accelerator.save_model(model, str(options.out))
    accelerator.end_training()
    return longer_accuracy


def scores(model: nn.Module, sample: Sample, device: torch.device) -> Tensor:
    """Of 0 and 1 for each formula of a batch, on the device."""
    return model(sample["graph"].to(device), sample["token"].to(device))  # type: ignore[no-any-return]


@torch.no_grad()
def accuracy(model: nn.Module, samples: DataLoader[Sample], device: torch.device) -> float:
    """How many formulas are given their value, of those of all processes."""
    model.eval()
    right = [(scores(model, sample, device).argmax(-1) == sample["label"].to(device)).float() for sample in samples]
    model.train()
    return float(vf.parallel.mean(torch.cat(right)))


if __name__ == "__main__":
    main()
