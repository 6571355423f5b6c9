"""Runs the supervisor without the package around it: by path, with ``python -I -S``.

A supervisor needs the standard library and two modules of this directory. Bare packages of the right names
stand in for the real ones, so that neither their ``__init__`` nor the user's site directory costs time at the
start or can fail there, and so that it makes no difference how ``nearcache`` came to be importable in the
process that starts it.
"""

import os
import sys


def _stand_in(name: str, path: str) -> None:
    package = type(sys)(name)
    package.__path__ = [path]
    sys.modules[name] = package


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    _stand_in("nearcache", os.path.dirname(here))
    _stand_in("nearcache.embedded", here)
    from nearcache.embedded.supervisor import main

    sys.exit(main(sys.argv[1:]))
