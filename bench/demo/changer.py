"""The process that keeps changing pages."""

from __future__ import annotations

import random
import threading
import time

from . import board as layout
from . import popularity
from .board import Board, histogram_start
from .child import Conversation
from .histogram import bucket_of
from .job import Job
from .ledger import Ledger
from .services import Service, UnavailableError
from .worker import open_service
from .workload import Loader

#: From announcing a change to making it, so that every probe looks.
_NOTICE_S = 0.010
_RETRY_S = 0.020
_GIVE_UP_NS = 15_000_000_000
#: Changes go to the most popular pages, by the same law as requests.
_MOST_PAGES = 1_000


class Changer:
    """The changer process."""

    def __init__(self, conversation: Conversation, job: Job, board: Board) -> None:
        self._conversation = conversation
        self._job = job
        self._board = board
        self._slot = board.slots[job.who]
        self._ledger = Ledger(board)
        self._workload = job.plan.build()
        self._pages = self._workload.popular()[:_MOST_PAGES]
        self._weights = popularity.cumulative_weights(len(self._pages))
        self._loader = Loader(self._workload, board.versions)

    def work(self) -> int:
        """Change pages, phase after phase, until told to end."""
        self._ledger.start()
        self._conversation.say("ready")
        while command := self._conversation.hear():
            self._board.clear_slot(self._job.who)
            service = open_service(command["phase"], self._job, self._loader)
            try:
                self._conversation.say("prepared")
                run = self._conversation.hear()
                if run is not None:
                    self._run(service, run["begin_ns"], run["end_ns"])
            finally:
                service.close()
            self._conversation.say("done")
        return 0

    def _run(self, service: Service, begin_ns: int, end_ns: int) -> None:
        choose = random.Random(f"changes/{self._job.plan.seed}")
        every_ns = int(1e9 / self._job.changes_per_s)
        due_ns = begin_ns + every_ns
        while due_ns < end_ns:
            if not self._rest((due_ns - time.monotonic_ns()) / 1e9):
                return
            self._change(service, choose.choices(self._pages, cum_weights=self._weights)[0])
            due_ns = max(due_ns + every_ns, time.monotonic_ns())

    def _change(self, service: Service, page: int) -> None:
        header = self._board.header
        header[layout.ANNOUNCED_PAGE] = page
        header[layout.ANNOUNCED] += 1
        if not self._rest(_NOTICE_S):
            return
        bumped_ns = time.monotonic_ns()
        version = self._ledger.bump(page)
        acknowledged_ns = self._acknowledged(service, page, bumped_ns)
        if acknowledged_ns is None:
            self._slot[layout.GIVEN_UP] += 1
            return
        self._ledger.supersede(page, version, bumped_ns, acknowledged_ns)
        took_ns = acknowledged_ns - bumped_ns
        self._slot[layout.CHANGES] += 1
        self._slot[layout.LONGEST_NS] = max(self._slot[layout.LONGEST_NS], took_ns)
        self._slot[histogram_start(layout.L1) + bucket_of(took_ns)] += 1

    def _acknowledged(self, service: Service, page: int, bumped_ns: int) -> int | None:
        """Invalidate a page, as often as it takes, and return when that was acknowledged; None when it never was."""
        try:
            while time.monotonic_ns() < bumped_ns + _GIVE_UP_NS:
                try:
                    if self._job.invalidating:
                        service.invalidate(self._workload.keys[page])
                    return time.monotonic_ns()
                except UnavailableError:
                    self._slot[layout.RETRIES] += 1
                    self._slot[layout.WAITING] = 1
                if not self._rest(_RETRY_S):
                    return None
            return None
        finally:
            self._slot[layout.WAITING] = 0

    def _rest(self, seconds: float) -> bool:
        """Wait; return False when this process should end."""
        if seconds > 0:
            threading.Event().wait(seconds)
        return not self._conversation.over
