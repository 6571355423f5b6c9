"""What can be checked about the text of the repository itself: sizes, sleeping, skipping, silencing, paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = {".py", ".pyi", ".pyx", ".pxd", ".h", ".c", ".lua", ".sh"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 50
#: Files that may be longer, how long, and why.
MAY_BE_LONG = {
    "ext/nearcache/_store.pyx": (760, "one class; Cython cannot spread its methods over files"),
}

#: Where sleeping is allowed, and why. Everywhere else one waits for events.
MAY_SLEEP = {
    "tests/integration/": "real servers, real time",
    "tests/support/": "helpers of the integration tests",
    "bench/": "real servers, real time",
    "src/nearcache/embedded/": "waits for file locks and sockets of other processes, which announce nothing",
}

_PRUNED = re.compile(
    r"(^|/)(\.git|\.venv[^/]*|\.freethreaded|build|dist|__pycache__|\.\w+_cache|\.hypothesis|[^/]*\.egg-info)(/|$)"
)
# Written so that they do not match themselves.
_MACHINE_PATH = re.compile(r"(?<![\w.$)}/-])/(?:root|home|Users|work)/[\w.-]+")
_SKIPPING = re.compile(
    r"\b(?:mark\.(?:skip|skipif|xfail)|pytest\.(?:skip|xfail|importorskip)|unittest\.skip|Skip[T]est)\b"
)
_BARE_IGNORE = re.compile(r"#\s*type:\s*ignore\b(?!\[[\w, -]+\]  # \S)")
_BARE_NOQA = re.compile(r"#\s*noqa\b(?!: [A-Z]+\d+)")
_CYTHON_FUNCTION = re.compile(r"^(?P<indent>[ \t]*)(?:def|cdef(?! class\b)|cpdef|async def)\b[^=\n]*\(")
_C_FUNCTION = re.compile(r"^[A-Za-z_][^;=#]*\)[ \t]*\{[ \t]*$|^\{[ \t]*$")


def tracked() -> list[Path]:
    """Return the files of the repository: those git knows or would add; without git, all that nobody generated."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True, timeout=60,
        ).stdout.decode()  # fmt: skip
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.SubprocessError):
        paths = [path for path in ROOT.rglob("*") if not _PRUNED.search(str(path.relative_to(ROOT)))]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def name_of(path: Path) -> str:
    """Return the path as seen from the root of the repository."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def text_of(path: Path) -> str:
    """Return the text of a file; '' for a binary one."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", "replace")


def long_files(paths: list[Path]) -> Iterator[str]:
    """Yield the code files that want splitting."""
    for path in paths:
        limit, _ = MAY_BE_LONG.get(name_of(path), (MAX_FILE_LINES, ""))
        if path.suffix in CODE and (count := len(text_of(path).splitlines())) > limit:
            yield f"{name_of(path)}: {count} lines"


def long_functions(path: Path) -> Iterator[str]:
    """Yield the functions of a Python, Cython or C file that want a name for each of their parts."""
    if path.suffix in (".py", ".pyi"):
        lengths = _python_lengths(text_of(path))
    elif path.suffix == ".pyx":
        lengths = _cython_lengths(text_of(path))
    elif path.suffix in (".h", ".c"):
        lengths = _c_lengths(text_of(path))
    else:
        return
    for line, length in lengths:
        if length > MAX_FUNCTION_LINES:
            yield f"{name_of(path)}:{line}: a function of {length} lines"


def _python_lengths(text: str) -> Iterator[tuple[int, int]]:
    """Lengths of functions, their docstrings not counted: those may be as long as they have something to say."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None and first.end_lineno is not None:
                length -= first.end_lineno - first.lineno + 1
            yield node.lineno, length


def _cython_lengths(text: str) -> Iterator[tuple[int, int]]:
    """Lengths by indentation: a function ends before the next line that is indented no deeper than its head."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _CYTHON_FUNCTION.match(line)
        if match is None or line.rstrip().endswith((")", ";")):
            continue
        depth = len(match["indent"])
        last = number
        for end in range(number + 1, len(lines)):
            body = lines[end]
            if body.strip():
                if len(body) - len(body.lstrip()) <= depth and not body.lstrip().startswith((")", "#")):
                    break
                last = end
        yield number + 1, last - number + 1 - _docstring_lines(lines[number + 1 : last + 1])


def _docstring_lines(body: list[str]) -> int:
    text = "\n".join(body).lstrip()
    match = re.match(r'r?""".*?"""', text, re.DOTALL)
    return match[0].count("\n") + 1 if match else 0


def _c_lengths(text: str) -> Iterator[tuple[int, int]]:
    """Lengths between an opening line and the ``}`` in the first column that closes it."""
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if start is None and _C_FUNCTION.match(line):
            start = number
        elif start is not None and line.startswith("}"):
            yield start, number - start + 1
            start = None


def sleeping(path: Path) -> Iterator[str]:
    """Yield the calls that let time pass, wherever one should wait for an event instead."""
    if path.suffix != ".py" or name_of(path).startswith(tuple(MAY_SLEEP)):
        return
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "sleep" and [getattr(argument, "value", None) for argument in node.args] != [0]:
                yield f"{name_of(path)}:{node.lineno}: sleeps"


def matching(path: Path, pattern: re.Pattern[str], what: str) -> Iterator[str]:
    """Yield the lines of a text file in which a pattern is found."""
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if pattern.search(line):
            yield f"{name_of(path)}:{number}: {what}: {line.strip()[:80]}"


def skipping(path: Path) -> Iterator[str]:
    """Yield the lines that skip a test or expect it to fail."""
    if path.suffix == ".py":
        yield from matching(path, _SKIPPING, "skips")


def silencing(path: Path) -> Iterator[str]:
    """Yield the comments that silence a checker without saying what (noqa) or why (type: ignore)."""
    if path.suffix in CODE:
        yield from matching(path, _BARE_IGNORE, "no reason given")
        yield from matching(path, _BARE_NOQA, "no rule named")


def machine_paths(path: Path) -> Iterator[str]:
    """Yield the lines that name a place which only one machine has."""
    yield from matching(path, _MACHINE_PATH, "path of one machine")


def undescribed_tests(path: Path) -> Iterator[str]:
    """Yield the tests whose name or docstring does not state a rule.

    Methods may bear short names: in ``contract/`` they take the place of CPython's own tests of that name.
    """
    if not path.name.startswith("test_") or path.suffix != ".py":
        return
    tree = ast.parse(text_of(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            if not ast.get_docstring(node):
                yield f"{name_of(path)}:{node.lineno}: {node.name} has no docstring that states the rule"
            if node in tree.body and node.name.count("_") < 3:
                yield f"{name_of(path)}:{node.lineno}: {node.name} is not test_<subject>_<condition>_<outcome>"
