-- Makes every value of the lane count as absent, in one step whatever their number: envelopes and leases of another
-- generation are dead, and leave by their expiry.
-- KEYS L; ARGV ring nonce wid. {1, wid, epoch, seq}: the wid is the new generation.
local L, wid = KEYS[1], ARGV[3]
call('PERSIST', L) -- as in invalidate: passes on a full server, refused where writing is not allowed
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
call('HSET', L, 'g', wid)
local seq = announce(L, m, 'C', wid, '')
return {1, wid, m[1], seq}
