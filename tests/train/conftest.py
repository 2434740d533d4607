"""Tests of training share a machine: one thread computes a tiny model faster than several that wait for each other."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
