"""A checkpoint is the old one or the new one, whenever the process that writes it is killed."""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from examples.treelstm import checkpoint


def state(number):
    """A checkpoint that is whole if all of it is of one number."""
    return {
        "model": {"a": torch.full((40_000,), float(number)), "b": torch.full((7,), float(number))},
        "number": number,
    }


def number_in(path):
    saved = checkpoint.load(path)
    values = torch.cat([*saved["model"].values(), torch.tensor([float(saved["number"])])])
    assert (values == saved["number"]).all()
    return saved["number"]


@pytest.mark.slow
def test_a_kill_while_saving_loses_nothing(tmp_path):
    path, draw, cut_off = tmp_path / "last.pt", random.Random(0), 0
    for _ in range(40):
        first = number_in(path) + 1 if path.exists() else 0
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                for number in range(first, first + 10_000):
                    checkpoint.save(path, state(number))
                    os.write(write, number.to_bytes(4, "little"))  # from here on it must not be lost
            finally:
                os._exit(1)
        os.close(write)
        returned = int.from_bytes(os.read(read, 4), "little")  # saving has begun
        time.sleep(draw.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        while more := os.read(read, 4):
            returned = int.from_bytes(more, "little")
        os.close(read)
        assert returned <= number_in(path) <= returned + 1
        cut_off += (tmp_path / "last.pt.partial").exists()
    assert cut_off  # some of the kills came while a file was being written


@pytest.mark.parametrize("step", ["save", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_checkpoint(tmp_path, monkeypatch, step):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))

    def fail(*arguments):
        if step == "save":
            arguments[1].write(b"half of it")
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch if step == "save" else os, step, fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save(path, state(2))
    assert number_in(path) == 1
    checkpoint.save(path, state(3))
    assert number_in(path) == 3
    assert os.listdir(tmp_path) == ["last.pt"]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_save_returns(tmp_path, monkeypatch):
    steps = []

    def noted(name, function):
        def call(*arguments):
            is_folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")
            steps.append(f"{name} of the folder" if is_folder else name)
            return function(*arguments)

        monkeypatch.setattr(os, name, call)

    noted("fsync", os.fsync)
    noted("replace", os.replace)
    checkpoint.save(tmp_path / "last.pt", state(1))
    assert steps == ["fsync", "replace", "fsync of the folder"]


def test_what_a_file_brings_along_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"model": Harmful()}, tmp_path / "last.pt")
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "harm").exists()


def test_examples_read_and_write_checkpoints_here_only():
    here = Path(checkpoint.__file__)
    for path in sorted(here.parent.parent.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "checkpoint.py":
            assert text == here.read_text(encoding="utf-8"), path
        else:
            assert "torch.save(" not in text, path
            assert "torch.load(" not in text, path
