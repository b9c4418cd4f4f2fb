"""`python -m inversionbench`: the command line."""

import sys

from inversionbench.cli import main

sys.exit(main())
