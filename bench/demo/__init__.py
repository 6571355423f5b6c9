"""The demo: four processes serve slow pages through nearcache while pages change and a shard dies.

Run it with ``make demo``, or ``python bench/demo --help`` in an environment where nearcache is installed.

The parent (``conductor``) starts the embedded servers, four workers (``worker``) and one changer (``changer``), and
draws what they report (``table``, ``screen``, ``summary``). All of them share one anonymous memory map (``board``):
counters, the version of every page, and the instant at which each old version was superseded (``ledger``). Workers ask
for pages (``pages``: pydoc; ``traces``: a recorded access trace) through one of three services (``services``: no
cache, Redis alone; ``near``: nearcache, the only module here that imports it).
"""
