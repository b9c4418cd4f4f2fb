"""inversionbench: how much training data a model or a client's update gives away, measured.

Words, one per idea, in code, configuration and documents: *track*, *private* and *public* data, *target*,
*evaluator*, *prior*, *oracle*, *attack*, *reconstruction*, *defense*, *strength*, *cell*, *record*, *control*.
"""

__version__ = "0.1.0"
