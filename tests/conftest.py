"""Shared by all tests."""

import os

# Container images set it, and then each of the many processes that tests start would compile PyTorch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
