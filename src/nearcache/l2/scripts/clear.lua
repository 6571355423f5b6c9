-- Makes every value of the lane count as absent, in one step whatever their number: envelopes and leases of another
-- generation are dead, and leave by their expiry.
-- KEYS L; ARGV ring nonce wid. {1, gen, epoch, seq}: the wid is the new generation. One that has been done is not done again,
-- because its answer was lost and it was sent once more: what others have cleared since would come back to life.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
-- include announce.lua
local wid = ARGV[3]
local done = call('HGET', L, 'k') or ''
if string.find(done, wid, 1, true) then return {1, m[3], m[1], m[5]} end
call('HSET', L, 'g', wid, 'k', sub(wid .. ',' .. done, 1, 272)) -- 16 of them
local seq = announce('C', wid)
return {1, wid, m[1], seq}
