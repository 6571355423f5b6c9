-- Stores what a loader brought, unless its lease was voided or ran out meanwhile.
-- KEYS v l [s] L; ARGV ring nonce wid gen token ttl_ms env. An empty env is under s (see `store`).
-- {1, gen, epoch, seq}, seq 0 where nothing was announced; or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
-- include lane.lua
-- include store.lua
local v, l, gen = KEYS[1], KEYS[2], ARGV[4]
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
local mark, lease = call('GET', l), ARGV[5] .. gen
if mark ~= 'L' .. lease and mark ~= 'W' .. lease then return {0, gen, 'LOST'} end
if ARGV[7] == '' and call('EXISTS', KEYS[3]) == 0 then return redis.error_reply('NCSTAGE the value is not there') end
local existed = call('EXISTS', v) == 1
store(v, ARGV[7], KEYS[3], ARGV[6])
call('UNLINK', l)
-- Nobody can hold a copy of what was not there; but somebody may wait.
local seq = 0
if existed or sub(mark, 1, 1) == 'W' then
  -- include announce.lua
  seq = announce('F', ARGV[3], v)
end
return {1, gen, m[1], seq}
