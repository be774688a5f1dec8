"""Train with Lightning: `python -m examples.trainers.with_lightning --help`."""

from __future__ import annotations

from collections.abc import Sequence

from .options import check, parser, refuse

PRECISIONS = "32-true", "bf16-mixed", "64-true"


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, print, and return the accuracy on longer formulas."""
    command_line = parser(
        f"{__package__}.with_lightning",
        "Train with Lightning to find the value of formulas. Writes last.ckpt.",
        PRECISIONS,
    )
    command_line.add_argument(
        "--devices", type=int, default=1, metavar="N", help="how many of them, with a process for each"
    )
    command_line.add_argument("--accelerator", default="cpu", help="Lightning's name of what they are (gpu, auto)")
    options = command_line.parse_args(arguments)
    check(options)
    try:
        import lightning
    except ImportError:
        refuse("this needs Lightning: pip install lightning")
    from .lit import Lit

    lightning.seed_everything(options.seed, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,  # batches are spread over processes already
        default_root_dir=options.out,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Lit(**vars(options)))
    longer_accuracy = float(trainer.callback_metrics["accuracy"])
    trainer.save_checkpoint(options.out / "last.ckpt", weights_only=True)
    if trainer.is_global_zero:
        print(f"the value of {longer_accuracy:.1%} of 1,000 formulas of up to {4 * options.most} values found")
    return longer_accuracy


if __name__ == "__main__":
    main()
