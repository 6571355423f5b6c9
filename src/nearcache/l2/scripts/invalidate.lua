-- Removes values, voids the leases of loads in progress, and tells the readers, even if nothing was there: an L1 may
-- hold what L2 has evicted.
-- KEYS v1..vn l1..ln L; ARGV ring nonce wid [hold_ms token]. {1, gen, number of values that existed, epoch, seq}.
-- With hold_ms > 0 nothing can be stored under the keys for so long, or until the same token comes with hold_ms = 0.
-- Holds of several merge into one that only time ends: nobody can say then whose is the last. With neither, holds stay.
local L, n = KEYS[#KEYS], (#KEYS - 1) / 2
local hold_ms, token = tonumber(ARGV[4] or '0'), ARGV[5] or ''
-- A write without effect. Once a script has written, a full server lets it go on, so that an invalidation passes; and a
-- server that must not be written to refuses here, before anything is done.
call('PERSIST', L)
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local existed = unlink(1, n)
for i = n + 1, 2 * n do
  local mark = call('GET', KEYS[i])
  local theirs = is_hold(mark) and sub(mark, 2) ~= token
  if is_pending(mark) then
    -- It stays: what waits to be written is what readers are to see, and will undo the change that is announced here.
  elseif hold_ms > 0 then
    local ms = hold_ms
    if theirs then ms = math.max(ms, call('PTTL', KEYS[i])) end
    call('SET', KEYS[i], 'H' .. (theirs and '*' or token), 'PX', ms)
  elseif mark and not theirs then
    call('UNLINK', KEYS[i])
  end
end
local seq = announce_keys(L, m, 'I', ARGV[3], n)
return {1, m[3], existed, m[1], seq}
