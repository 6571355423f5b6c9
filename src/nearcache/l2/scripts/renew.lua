-- Prolongs a lease whose loader still runs.
-- KEYS l; ARGV token lease_ms. 1, or 0 if the lease is not the caller's any more.
local call, sub = redis.call, string.sub
local mark = call('GET', KEYS[1])
local letter = mark and sub(mark, 1, 1)
if not (letter == 'L' or letter == 'W') or sub(mark, 2, 17) ~= ARGV[1] then return 0 end
return call('PEXPIRE', KEYS[1], ARGV[2])
