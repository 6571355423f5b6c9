"""Say in plain words why a Python cannot build nearcache; say nothing when it can.

Written so that the old Pythons it turns away can run it, Python 2 included.
"""

import os
import sys
import sysconfig

OLDEST = (3, 10)


def complaint():
    """Return what is missing and the remedy, or None."""
    name = "%s is Python %d.%d" % (sys.executable, sys.version_info[0], sys.version_info[1])  # noqa: UP031
    if sys.version_info[:2] < OLDEST:
        return name + "; nearcache needs 3.10 or newer: say make PYTHON=/path/to/python3.12"
    if sys.implementation.name != "cpython":
        return name + " (%s); nearcache needs CPython" % sys.implementation.name  # noqa: UP031
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return name + " without venv: install it (Debian: apt-get install python3-venv), or say make PYTHON=..."
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return name + " without its C headers: install them (Debian: apt-get install python3-dev)"
    return None


if __name__ == "__main__":
    text = complaint()
    if text:
        sys.exit("make: " + text)
