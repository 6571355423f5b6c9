"""Entry of the demo and of its child processes: ``python bench/demo``, or ``python -m demo`` with bench on the path."""

import os
import signal
import sys

if __name__ == "__main__":
    # Until something has been started, Ctrl-C may simply end the process, without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not __package__:
        # Run by its path: the package's own directory is on the path where its parent should be.
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.argv[1:2] == ["--role"]:
        from demo import child

        sys.exit(child.main(sys.argv[2]))
    from demo import conductor

    sys.exit(conductor.main(sys.argv[1:]))
