"""The scripts as a server runs them: by Lua 5.1, with Redis' conversions of arguments and replies.

A script is compiled once per interpreter and called as a function of KEYS and ARGV. Replies leave Lua as several
values, not as a table, because taking a table apart from outside costs more than the script.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from lupa.lua51 import LuaError, LuaRuntime

_SETUP: Final = b"""
return function(execute)
  local redis = {}
  local function received(first, ...)
    if first == true then return {...} end
    return first
  end
  function redis.call(...) return received(execute(...)) end
  function redis.pcall(...)
    local done, result = pcall(redis.call, ...)
    if done then return result end
    return {err = tostring(result)}
  end
  function redis.error_reply(text) return {err = text} end
  function redis.status_reply(text) return {ok = text} end

  local function reply(r)
    if type(r) ~= 'table' then return 'value', r end
    if r.err then return 'error', r.err end
    if r.ok then return 'value', r.ok end
    local n = 0
    while r[n + 1] ~= nil do
      n = n + 1
      if type(r[n]) == 'table' then return 'nested', r end
    end
    return 'array', unpack(r, 1, n)
  end

  local loadstring, error, unpack = loadstring, error, unpack
  local function compile(source)
    local chunk, wrong = loadstring('return function(KEYS, ARGV) ' .. source .. '\\nend', '@script')
    if not chunk then error(wrong) end
    local body = chunk()
    return function(n, ...)
      local keys, arguments, given = {}, {}, {...}
      for i = 1, n do keys[i] = given[i] end
      for i = n + 1, #given do arguments[i - n] = given[i] end
      return reply(body(keys, arguments))
    end
  end

  for _, name in pairs({'os', 'io', 'python', 'require', 'package', 'module', 'dofile', 'loadfile', 'print'}) do
    _G[name] = nil
  end
  _G.redis = redis
  setmetatable(_G, {
    __newindex = function(_, name) error('Script attempted to create global variable ' .. tostring(name)) end,
    __index = function(_, name) error('Script attempted to access nonexistent global ' .. tostring(name)) end,
  })
  return compile
end
"""


class RedisError(Exception):
    """An error reply, as its text on the wire without the sign in front."""


class Engine:
    """One Lua interpreter, shared by all servers of a process: scripts leave nothing behind in it."""

    def __init__(self) -> None:
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
        self._execute: Any = None
        self._compile = self._lua.execute(_SETUP)(self._called)
        self._compiled: dict[bytes, Any] = {}

    def run(self, execute: Any, source: bytes, count: int, words: tuple[bytes, ...]) -> Any:
        """Run a script; ``execute(name, *arguments)`` carries out its commands.

        Args:
            count: How many of the words are KEYS.
        Raises:
            RedisError: A command failed, or the script itself.
        """
        function = self._compiled.get(source)
        if function is None:
            body = source.split(b"\n", 1)[1] if source.startswith(b"#!") else source
            function = self._compiled[source] = self._compile(body)
        self._execute = execute
        try:
            kind, *values = function(count, *words)
        except LuaError as error:
            raise RedisError(f"ERR {error}") from error
        if kind == b"value":
            return _plain(values[0])
        if kind == b"error":
            raise RedisError(values[0].decode("latin-1"))
        if kind == b"array":
            return [_plain(value) for value in values]
        return _nested(values[0])

    def _called(self, name: bytes, *arguments: Any) -> Any:
        reply = self._execute(name, [word if word.__class__ is bytes else _number(word) for word in arguments])
        if reply is None:
            return False
        if reply.__class__ is list:
            return (True, *map(self._given, reply))
        return reply

    def _given(self, value: Any) -> Any:
        """A part of a reply as a script is given it."""
        if value.__class__ is list:
            return self._lua.table_from([self._given(each) for each in value])
        return False if value is None else value


def _number(word: Any) -> bytes:
    if isinstance(word, float):
        return b"%.17g" % word
    if isinstance(word, bool) or not isinstance(word, int):
        raise RedisError("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % word


def _plain(value: Any) -> Any:
    if value is True:
        return 1
    if value is False:
        return None
    return int(value) if isinstance(value, float) else value


def _nested(table: Any) -> Any:
    if not hasattr(table, "items"):
        return _plain(table)
    if table[b"err"] is not None:
        raise RedisError(table[b"err"].decode("latin-1"))
    if table[b"ok"] is not None:
        return table[b"ok"]
    values = []
    while (value := table[len(values) + 1]) is not None:
        values.append(_nested(value))
    return values


@functools.cache
def engine() -> Engine:
    """The interpreter of this process."""
    return Engine()
