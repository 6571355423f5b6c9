-- The way to a load: returns the value if there is one by now, else leases the key to one loader, so that the others wait
-- for it, and so that `fill` can tell whether the key was written, invalidated or cleared while the loader ran.
-- KEYS v l [w] L; ARGV ring nonce token lease_ms mode. mode: ''; or 'REPLACE', where the value that is there is to be
-- loaded over; or that and 16 hex digits: only if it is the one of this wid.
-- {1, gen, envelope, pttl} a live value; {0, gen, token} load, and fill under this token; {2, gen, pttl} somebody loads:
-- wait for a message about the key, at most so long; {3, gen, pttl} on hold: load, but do not keep it;
-- {4, gen, envelope} a value that waits in w to be written behind the cache (or a deletion): the one to read, not to keep.
local call, sub = redis.call, string.sub
-- include envelope.lua
local v, l, L = KEYS[1], KEYS[2], KEYS[#KEYS]
local w = #KEYS > 3 and KEYS[3]
local found = call('HMGET', L, 'e', 'g', 'r')
local g = found[2]
if not found[1] or found[3] ~= ARGV[1] then
  -- include record.lua
  local m, refusal = lane(L, ARGV[1], ARGV[2])
  if refusal then return refusal end
  g = m[3]
end
local over = sub(ARGV[5], 1, 7) == 'REPLACE' and sub(ARGV[5], 8)
if over ~= '' and id_in(v, 12) == g and not (over and id_in(v, 4) == over) then
  return {1, g, call('GET', v), call('PTTL', v)}
end
local mark = call('GET', l)
local letter = mark and sub(mark, 1, 1)
if w and letter == 'P' then
  -- include waiting.lua
  local envelope = waiting(mark, w)
  if envelope then return {4, g, envelope} end
  mark, letter = false, false -- the queue was lost
end
local is_lease = letter == 'L' or letter == 'W'
-- A clear voids the leases of another generation without touching them.
if is_lease and sub(mark, 18) == g then
  local pttl = call('PTTL', l)
  -- No lease is for longer than a minute: the server's clock was set back. Whoever still loads prolongs what he is left.
  local is_astray = pttl > 60000
  if is_astray then pttl = tonumber(ARGV[4]) end
  if letter == 'L' or is_astray then call('SET', l, 'W' .. sub(mark, 2), 'PX', math.max(pttl, 1)) end
  return {2, g, pttl}
end
-- Marks that this version does not know are a later version's, and keep the key as a hold does.
if mark and not is_lease then return {3, g, call('PTTL', l)} end
call('SET', l, 'L' .. ARGV[3] .. g, 'PX', ARGV[4])
return {0, g, ARGV[3]}
