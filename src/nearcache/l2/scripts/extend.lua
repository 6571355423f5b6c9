-- Gives a value its whole lifetime again because it was read, unless another has come since. Nothing is announced: copies
-- end when they would have ended.
-- KEYS v L; ARGV ring nonce wid ttl_ms. 1: it has it, or more; 0: the value is not that one any more.
local call = redis.call
-- include envelope.lua
local v, ms = KEYS[1], tonumber(ARGV[4])
if id_in(v, 4) ~= ARGV[3] then return 0 end
if call('PTTL', v) < ms then call('PEXPIRE', v, ms) end
return 1
