"""inversionbench: how much training data a model or a client's update gives away, measured.

Words, one per idea, in code, configuration and documents: *track*, *private* and *public* data, *target*,
*evaluator*, *prior*, *oracle*, *attack*, *reconstruction*, *defense*, *strength*, *cell*, *record*, *control*.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`Audit`, imported when it is asked for: the command line starts without it."""
    if name == "Audit":
        from inversionbench.audit import Audit

        return Audit
    raise AttributeError(f"module 'inversionbench' has no attribute '{name}'")
