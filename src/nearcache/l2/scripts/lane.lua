-- The beginning of nearly every script: L, and m = {e, w, g, r, s} of the lane record, for a caller that may go on.
-- Names: L is `nc:{ns:0}:L`; `nc:{ns:0}:` in front of it is common to the lane's values (v:), leases and holds (l:) and channel (i).
-- L is a hash: e epoch, s sequence, w wid of the last mutation, g generation, r newest placement seen (`version-fingerprint`),
-- q the one before it, c what that is in full (`ring`), m r as it was when that last said that the shard is one of the list,
-- u the newest record of its queue that somebody has waited for (`hurry`),
-- f fork (which primary adopted the lane last), h where earlier epochs ended: `epoch:seq,...`, newest first,
-- k wids of the last clears: `wid,...,`, newest first.
-- A mark under l is one of: `L` token generation (a lease: its holder loads), `W` token generation (the same, and somebody
-- waits for it), `H` token (a hold: a change is under way, nothing may be stored; with `!` at its end if somebody else has
-- announced a change meanwhile), `H*` (holds of several), `P` id (the last write of the key is record id of the lane's
-- queue, and not written behind the cache yet: nothing may be loaded into it).
-- Ids are texts of 16 hex digits and stay texts: Lua would round them.
local call, sub, L = redis.call, string.sub, KEYS[#KEYS]
local m = call('HMGET', L, 'e', 'w', 'g', 'r', 's')
if not m[1] or m[4] ~= ARGV[1] then
  -- include record.lua
  local refusal
  m, refusal = lane(L, ARGV[1], ARGV[2])
  if refusal then return refusal end
end
