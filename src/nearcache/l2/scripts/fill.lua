-- Stores what a loader brought, unless its fence was voided meanwhile.
-- KEYS v l [s] L; ARGV ring nonce wid gen token ttl_ms env. An empty env is under s (see `store`).
-- {1, gen} or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
-- The first fill under a shared fence takes it away, so that the second is LOST: L2 already holds a load as fresh.
local v, l, L, wid, gen = KEYS[1], KEYS[2], KEYS[#KEYS], ARGV[3], ARGV[4]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
if call('GET', l) ~= 'F' .. ARGV[5] .. gen then return {0, gen, 'LOST'} end
if not staged(3, #KEYS - 1) then return redis.error_reply('NCSTAGE the value is not there') end
local existed = call('EXISTS', v) == 1
store(v, ARGV[7], KEYS[3], ARGV[6])
call('UNLINK', l)
-- Nobody can hold a copy of what was not there.
if existed then announce_keys(L, m, 'F', wid, 1) end
return {1, gen}
