-- Removes values, voids the fences of loads in progress, and tells the readers, even if nothing was there: an L1 may
-- hold what L2 has evicted.
-- KEYS v1..vn l1..ln L; ARGV ring nonce wid. {1, gen, number of values that existed}.
local L, n = KEYS[#KEYS], (#KEYS - 1) / 2
-- A write without effect. Once a script has written, a full server lets it go on, so that an invalidation passes; and a
-- server that must not be written to refuses here, before anything is done.
call('PERSIST', L)
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local existed = unlink(1, n)
unlink(n + 1, 2 * n)
announce_keys(L, m, 'I', ARGV[3], n)
return {1, m[3], existed}
