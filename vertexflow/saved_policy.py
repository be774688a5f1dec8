"""A learned policy is part of a model's `state_dict`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .scheduler import FSM, Policy


class SavesPolicy(nn.Module):
    """A module with an attribute `policy`."""

    policy: str | Policy

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.policy, FSM):
            destination[f"{prefix}policy"] = torch.frombuffer(bytearray(self.policy.dump()), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        learned = state_dict.pop(f"{prefix}policy", None)
        if learned is not None:
            self.policy = FSM.load(bytes(learned.tolist()))
        super()._load_from_state_dict(state_dict, prefix, *args)
