"""What a cache offers about changes that wait to be written behind it, or could not be."""

from __future__ import annotations

from collections.abc import Iterable

from ..backlog import DeadLetter
from ..choices import Seconds, timeout_to_s


class Letters:
    """The part of a cache that concerns its queues. A cache without ``write_delay=`` has none, and nothing happens."""

    __slots__ = ()

    def flush(self, timeout: Seconds = 30.0) -> None:
        """Wait until every change in the queues, of any process, has been written or given up. Later ones do not count.

        Nothing of it waits for the end of its delay: its writer is told, whichever process that is.

        Raises:
            FlushTimeoutError: It takes longer. Nothing is lost by that. It says what the writer's newest trouble is.
            ShardUnavailableError: It is not known.
        """
        timeout_to_s(timeout)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the changes that could not be written, the oldest of each shard first.

        Raises:
            ShardUnavailableError: They are not known.
        """
        return []

    def replay_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        """Have dead letters written once more, as the newest changes of their keys. Returns how many are none any more.

        Args:
            ids: Which; ``None``: all. Of several of a key the newest is written, and the others go. One whose key has a
                newer change waiting stays one, as does what a stranger put there without a key or a value. One of a
                key that has another shard by now moves there, and has another id if it stays.
        Raises:
            ShardUnavailableError: Not all of them are back in their queues.
        """
        del ids
        return 0

    def discard_dead_letters(self, ids: Iterable[str]) -> int:
        """Forget dead letters. Returns how many there were.

        Raises:
            ValueError: One of them is no id.
            ShardUnavailableError: Not all of them are gone.
        """
        del ids
        return 0
