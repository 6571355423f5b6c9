-- Tells a lane which placement is in use: its version and fingerprint, and in full, for whoever comes later.
-- KEYS L; ARGV ring nonce wid before config. {r, c}: what is in use here now. It is the caller's if r is its ring.
-- before: the ring that it is a change of. Of two changes of one ring the first that comes is taken; '' takes any.
local L, ring, before = KEYS[1], ARGV[1], ARGV[4]
call('PERSIST', L) -- as in invalidate: passes on a full server, refused where writing is not allowed
local seen = call('HGET', L, 'r')
local follows = seen and tonumber(string.match(ring, '^%d+')) == tonumber(string.match(seen, '^%d+')) + 1
-- A shard that was taken out last time has no fingerprint of that list, and may be taken in again.
local told = seen and string.find(seen, '-', 1, true) and sub(seen, -17) ~= '-0000000000000000'
if follows and before ~= '' and told and seen ~= before then
  return call('HMGET', L, 'r', 'c')
end
local m = lane(L, ring, ARGV[2])
if m and call('HGET', L, 'r') == ring then
  call('HSET', L, 'c', ARGV[5])
  if before ~= '' then call('HSET', L, 'q', before) end
end
return call('HMGET', L, 'r', 'c')
