-- The envelope that waits in queue w for being written behind the cache, by the key's mark, of a deletion too; nil if none.
local function waiting(mark, w)
  local found = mark and sub(mark, 1, 1) == 'P' and call('XRANGE', w, sub(mark, 2), sub(mark, 2))
  return found and found[1] and found[1][2][4]
end
