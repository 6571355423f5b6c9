-- Tells a lane which placement is in use: its version and fingerprint, and in full, for whoever comes later.
-- KEYS L; ARGV ring nonce wid before config. {r, c}: what is in use here now. It is the caller's if r is its ring.
-- before: the ring that it is a change of. Of two changes of one ring the first that comes is taken; '' takes any.
local call, sub, L, ring, before = redis.call, string.sub, KEYS[1], ARGV[1], ARGV[4]
call('PERSIST', L) -- as in invalidate: passes on a full server, refused where writing is not allowed
local seen = call('HGET', L, 'r')
local follows = seen and tonumber(string.match(ring, '^%d+')) == tonumber(string.match(seen, '^%d+')) + 1
-- A shard that was taken out last time has no fingerprint of that list, and may be taken in again.
local left = '-0000000000000000'
local told, stays = seen and string.find(seen, '-', 1, true) and sub(seen, -17) ~= left, sub(ring, -17) ~= left
if follows and before ~= '' and told and seen ~= before then
  return call('HMGET', L, 'r', 'c')
end
-- Of a server that has two names somebody may say that it stays and that it is left. It stays, whichever comes first.
if stays and seen == string.match(ring, '^%d+') .. left then call('HSET', L, 'r', ring) end
-- include record.lua
local m = lane(L, ring, ARGV[2])
if m and call('HGET', L, 'r') == ring then
  call('HSET', L, 'c', ARGV[5])
  if stays then call('HSET', L, 'm', ring) end
  if before ~= '' then call('HSET', L, 'q', before) end
end
return call('HMGET', L, 'r', 'c')
