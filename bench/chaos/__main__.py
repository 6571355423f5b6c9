"""Entry of the chaos run and of its child processes: ``python bench/chaos``."""

import os
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not __package__:
        # Run by its path: the package's own directory is on the path where its parent should be.
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.argv[1:2] == ["--role"]:
        from common.conversation import Conversation

        if sys.argv[2] == "proxy":
            from chaos import proxy

            sys.exit(proxy.main(Conversation()))
        from chaos import worker

        sys.exit(worker.main(Conversation()))
    from chaos import conductor

    sys.exit(conductor.main(sys.argv[1:]))
