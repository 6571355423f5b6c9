from _typeshed import ReadableBuffer

MAX_DEPTH: int
MAX_HASH_DEPTH: int
HASH_BUDGET: tuple[int, int]
MEMORY_BUDGET: tuple[int, int]

def scan(data: ReadableBuffer, start: int = 0) -> int: ...
