"""Shared by all tests."""

import os

# Container images set it, and then each of the many processes that tests start would compile PyTorch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Expected numbers are those of the processor; a GPU rounds otherwise.
os.environ.setdefault("INVERSIONBENCH_DEVICE", "cpu")
