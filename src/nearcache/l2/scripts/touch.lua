-- Gives a live value another lifetime. The value itself does not travel, unless it is asked for.
-- KEYS v l L; ARGV ring nonce wid ttl_ms last. last: up to which byte the envelope is to be returned, -1: all of it.
-- {1, gen, envelope, epoch, seq}, seq 0 where nothing was announced; {0, gen}: there is no live value.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
-- include live.lua
-- include touched.lua
local v, ms = KEYS[1], tonumber(ARGV[4])
if not is_live(v, m[3]) then return {0, m[3]} end -- that there is none is not to be remembered for longer either
local pttl, seq = call('PTTL', v), 0
call('PEXPIRE', v, ms)
touched(v, true)
-- Copies know the end of the lifetime they were read with. They may end too early, but not too late.
if pttl < 0 or ms < pttl then
  -- include announce.lua
  seq = announce('I', ARGV[3], v)
end
return {1, m[3], call('GETRANGE', v, 0, ARGV[5]), m[1], seq}
