"""Hit ratios of the real store on recorded and synthetic requests, beside what others have measured.

Run it with ``make hitratio`` or ``python bench/hitratio --help``.

``reference`` reads the tables of the README beside the recorded traces (they are not part of the project); ``policies``
finds out what the store accepts, ``replay`` asks it, ``jobs`` deals the work out to processes; ``belady`` and
``synthetic`` need no file at all. ``summary`` adds up; ``tables``, ``textplot`` and ``pictures`` show.
"""
