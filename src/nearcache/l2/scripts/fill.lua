-- Stores what a loader brought, unless its fence was voided meanwhile.
-- KEYS v l L; ARGV ring nonce wid gen token ttl_ms env. {1, gen} or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
-- The first fill under a shared fence takes it away, so that the second is LOST: L2 already holds a load as fresh.
local v, l, L, wid, gen = KEYS[1], KEYS[2], KEYS[3], ARGV[3], ARGV[4]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
if call('GET', l) ~= 'F' .. ARGV[5] .. gen then return {0, gen, 'LOST'} end
local existed = call('EXISTS', v) == 1
call('SET', v, ARGV[7], 'PX', ARGV[6])
call('UNLINK', l)
-- Nobody can hold a copy of what was not there.
if existed then announce_keys(L, m, 'F', wid, 1) end
return {1, gen}
