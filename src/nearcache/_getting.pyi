from collections.abc import Callable, Sequence
from typing import Any, final, overload

from ._asking import Pieces

@final
class Get(Pieces, Sequence[tuple[bytes, ...]]):
    def __init__(
        self,
        prefix: bytes,
        encoded: bytes,
        lane_key: bytes | None,
        usual: tuple[int, Callable[[Any, int], Any], int] | None,
    ) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> tuple[bytes, ...]: ...
    @overload
    def __getitem__(self, key: slice, /) -> Sequence[tuple[bytes, ...]]: ...
