-- Removes values, voids the leases of loads in progress, and tells the readers, even if nothing was there: an L1 may
-- hold what L2 has evicted.
-- KEYS v1..vn l1..ln L; ARGV ring nonce wid [hold_ms token]. {1, gen, number of values that existed, epoch, seq}:
-- of one key only a live one; to look at each of many would take too long.
-- With hold_ms > 0 nothing can be stored under the keys for so long, or until the same token comes with hold_ms = 0.
-- Holds of several merge into one that only time ends: nobody can say then whose is the last. With neither, holds stay.
local hold_ms, token = tonumber(ARGV[4] or '0'), ARGV[5] or ''
-- A write without effect. Once a script has written, a full server lets it go on, so that an invalidation passes; and a
-- server that must not be written to refuses here, before anything is done.
redis.call('PERSIST', KEYS[#KEYS])
-- include lane.lua
-- include announce.lua
-- include announce_keys.lua
-- include live.lua
local n = (#KEYS - 1) / 2
local was_live = n > 1 or is_live(KEYS[1], m[3])
local existed = 0
for a = 1, n, 1000 do -- in pieces, because Lua's stack is finite
  existed = existed + call('UNLINK', unpack(KEYS, a, math.min(a + 999, n)))
end
for i = n + 1, 2 * n do
  local mark = call('GET', KEYS[i])
  local letter = mark and sub(mark, 1, 1)
  local theirs = letter == 'H' and mark ~= 'H' .. token and mark ~= 'H' .. token .. '!'
  if letter == 'P' then
    -- It stays: what waits to be written is what readers are to see, and will undo the change that is announced here.
  elseif hold_ms > 0 then
    local ms = hold_ms
    if theirs then ms = math.max(ms, call('PTTL', KEYS[i])) end
    call('SET', KEYS[i], theirs and 'H*' or letter == 'H' and mark or 'H' .. token, 'PX', ms)
  elseif mark and not theirs then
    call('UNLINK', KEYS[i])
  elseif theirs and mark ~= 'H*' and sub(mark, -1) ~= '!' then
    -- This change may be the later one: who holds the key does not store what he has written.
    call('SET', KEYS[i], mark .. '!', 'PX', math.max(1, call('PTTL', KEYS[i])))
  end
end
local seq = announce_keys('I', ARGV[3], n)
return {1, m[3], was_live and existed or 0, m[1], seq}
