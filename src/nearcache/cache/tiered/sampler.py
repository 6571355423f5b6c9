"""The thread that samples a cache, if its owner wants that."""

from __future__ import annotations

import hashlib
import logging
import weakref
from typing import Any

from ..._store import Store
from ...errors import CacheError
from ...loading import Sampler, ThreadRunner, Tier
from ...logs import Recurring, log
from ...workers import Helper


class SamplerThread(Helper):
    """Checks some keys a second, until stopped or until the cache is gone.

    Args:
        store: Weak reference to the cache.
        rate: Checks per second, above 0.
    """

    _name = "nearcache-sampler"

    def __init__(
        self, store: weakref.ref[Store[Any, Any]], sampler: Sampler, tier: Tier, runner: ThreadRunner, rate: float
    ) -> None:
        self._store = store
        self._sampler = sampler
        self._tier = tier
        self._runner = runner
        self._pause_s = 1 / rate
        self._failures = Recurring()
        super().__init__()

    def _run(self) -> None:
        stopping = self._stopping
        while not stopping.wait(self._pause_s):
            store = self._store()
            if store is None:
                return
            try:
                for name in self._runner.run(self._sampler.check(self._tier.now, store)):
                    digest = hashlib.blake2b(repr(name).encode("utf-8", "replace"), digest_size=8).hexdigest()
                    log(
                        logging.ERROR,
                        "namespace %s: a key was served from memory past the staleness bound (digest of its repr: %s)",
                        self._tier.namespace,
                        digest,
                    )
            except CacheError:
                continue  # L2 did not answer, or the cache is being closed
            except Exception as error:  # noqa: BLE001  a key's own repr, say: it is somebody else's code
                text = "namespace %s: a key could not be sampled"
                self._failures.log(logging.ERROR, text, self._tier.namespace, error=error)
            finally:
                del store
