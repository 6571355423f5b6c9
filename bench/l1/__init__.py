"""L1 side by side with its peers: time per operation, bytes per entry, stalls while growing.

Run it with ``make bench`` or ``python bench/bench_l1.py --help``.

``roster`` says who takes part and how each is spoken to; ``loops`` holds the loops that are timed, ``scene`` the keys
and the order in which they are asked for; ``timing`` lets the contestants take turns; ``memory`` and ``growth`` are the
two measurements that need a fresh process for each contestant; ``wanted`` holds the figures that are aimed at,
``report`` the tables.
"""
