"""Oracles: access levels, ledger, budgets."""

from inversionbench.oracle.base import (
    LEVELS,
    AccessDenied,
    BudgetExceeded,
    InputSpec,
    Ledger,
    Oracle,
)

__all__ = ["LEVELS", "AccessDenied", "BudgetExceeded", "InputSpec", "Ledger", "Oracle"]
