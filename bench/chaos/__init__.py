"""Real faults: processes that use nearcache on real servers, while everything around them breaks.

Run it with ``make chaos TOPOLOGY=shards MINUTES=2``, or ``python bench/chaos --help``. README.md says what it proves.

The parent (``conductor``) starts servers (``servers``), a network with faults (``proxy``, ``frames``) and workers
(``worker``, ``watched``). A schedule that follows from a seed (``faults``) is carried out (``nemesis``). Every call of
every thread is recorded (``records``) and judged when all is over (``ground``, ``check``); then come the figures
(``figures``, ``summary``) and the picture (``picture``).
"""
