"""Oracles: ledger, budgets, and who may ask what."""

from inversionbench.oracle.base import InputSpec, Ledger, Oracle

__all__ = ["InputSpec", "Ledger", "Oracle"]
