from collections.abc import Callable, Sequence
from typing import Any

def pack(commands: Sequence[tuple[Any, ...]], script: type, fallback: Callable[[tuple[Any, ...]], bytes]) -> bytes: ...
