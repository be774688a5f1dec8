"""The files of a checkpoint, of which nothing is read that is not, byte for byte, what was written."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.futures import Future

from ..errors import InputError

_CHECKSUM = "metadata.crc32"


def write_checksum(path: Path) -> None:
    """Write down the checksum of what the checkpoint says that it has."""
    (path / _CHECKSUM).write_text(_checksum_of(path / ".metadata"))


def _checksum_of(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"


class CheckedReader(FileSystemReader):
    """Reads a checkpoint that `torch.distributed.checkpoint` wrote. Each tensor in its files is a zip archive with checksums,
    which PyTorch does not look at."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def metadata(self) -> Metadata:
        """What the checkpoint has.

        Raises:
            InputError: it is not there or not whole.
        """
        metadata, checksum = self._path / ".metadata", self._path / _CHECKSUM
        try:
            # Pickle may ask for all memory there is, where one byte is wrong.
            if checksum.exists() and checksum.read_text() != _checksum_of(metadata):
                raise ValueError("its checksum is another one")
            return self.read_metadata()
        except Exception as error:  # of bytes that are no pickle, any
            raise _not_whole(metadata, f"{type(error).__name__}: {error}") from error

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """See `StorageReader`; all that this rank reads is checked first."""
        places = [self.storage_data[item.storage_index] for item in plan.items]
        by_file: dict[str, list[tuple[int, int]]] = {}
        for place in places:
            by_file.setdefault(place.relative_path, []).append((place.offset, place.length))
        for name, pieces in by_file.items():
            _check(self._path / name, sorted(set(pieces)))
        return super().read_data(plan, planner)


def read_into(state: dict[str, Any], reader: CheckedReader, is_alone: bool) -> None:
    """Read what has the names in `state` into its tensors. All ranks call it, but for `is_alone`.

    Raises:
        InputError: a file of it is not whole, or something has another name or shape, on any rank.
    """
    try:
        load(state, storage_reader=reader, no_dist=is_alone)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        if isinstance(cause, InputError):
            raise InputError(str(cause)) from error
        raise InputError(f"{reader.checkpoint_id} cannot be read here: {cause}") from error


def _check(path: Path, pieces: list[tuple[int, int]]) -> None:
    """Refuse a file in which one of the pieces (where it begins, its length) is not what was written."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _not_whole(path, error.strerror or str(error)) from error
    end = max(offset + length for offset, length in pieces)
    if size < end:
        raise _not_whole(path, f"it has {size} bytes, of at least {end}")
    with path.open("rb") as file:
        for offset, length in pieces:
            file.seek(offset)
            try:
                with zipfile.ZipFile(io.BytesIO(file.read(length))) as archive:
                    wrong = archive.testzip()
            except Exception as error:  # of bytes that are no archive, any
                raise _not_whole(path, f"from byte {offset}: {type(error).__name__}: {error}") from error
            if wrong is not None:
                raise _not_whole(path, f"from byte {offset}: other numbers than were written")


def _not_whole(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is not what was written ({why}); nothing was read of this checkpoint. Take its folder away to begin anew, or "
        "put a copy of it in its place"
    )
