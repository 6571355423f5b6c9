"""Entry: ``python bench/hitratio``, or ``python -m hitratio`` with bench on the path."""

import os
import sys

if __name__ == "__main__":
    if not __package__:
        # Run by its path: the package's own directory is on the path where its parent should be.
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from hitratio import cli

    sys.exit(cli.main(sys.argv[1:]))
