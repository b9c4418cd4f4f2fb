"""`python -m inversionbench`: the command line."""

import sys

from inversionbench.workflow.cli import main

sys.exit(main())
