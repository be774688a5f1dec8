"""`python -m benchmarks`; apart from `command`, which the processes of a run import by its name."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
