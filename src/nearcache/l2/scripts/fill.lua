-- Stores what a loader brought, unless its lease was voided or ran out meanwhile.
-- KEYS v l [s] L; ARGV ring nonce wid gen token ttl_ms env. An empty env is under s (see `store`).
-- {1, gen, epoch, seq}, seq 0 where nothing was announced; or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
local v, l, L, wid, gen = KEYS[1], KEYS[2], KEYS[#KEYS], ARGV[3], ARGV[4]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
local mark = call('GET', l)
if not is_lease(mark, gen) or sub(mark, 2, 17) ~= ARGV[5] then return {0, gen, 'LOST'} end
if not staged(3, #KEYS - 1) then return redis.error_reply('NCSTAGE the value is not there') end
local existed = call('EXISTS', v) == 1
store(v, ARGV[7], KEYS[3], ARGV[6])
call('UNLINK', l)
-- Nobody can hold a copy of what was not there; but somebody may wait.
local seq = 0
if existed or sub(mark, 1, 1) == 'W' then seq = announce_keys(L, m, 'F', wid, 1) end
return {1, gen, m[1], seq}
