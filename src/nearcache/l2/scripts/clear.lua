-- Makes every value of the lane count as absent, in one step whatever their number: envelopes and leases of another
-- generation are dead, and leave by their expiry.
-- KEYS L; ARGV ring nonce wid. {1, wid, epoch, seq}: the wid is the new generation.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
-- include announce.lua
local wid = ARGV[3]
call('HSET', L, 'g', wid)
local seq = announce('C', wid)
return {1, wid, m[1], seq}
