-- The way to a load: returns the value if there is one by now, else marks the key, so that `fill` can tell whether the
-- key was written, invalidated or cleared while the loader ran.
-- KEYS v l L; ARGV ring nonce token fence_ms mode. mode: '' or 'REPLACE', where the caller cannot read the value that is
-- there and wants it loaded over. {1, gen, envelope, pttl} or {0, gen, token to fill under}.
-- The mark is 'F' token generation. Loaders that run at the same time share it: it is a fence, not a lock. The
-- generation in it lets a clear void all fences of the lane without touching them.
local v, l, L, token = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local g = m[3]
if ARGV[5] ~= 'REPLACE' and generation(v) == g then return {1, g, call('GET', v), call('PTTL', v)} end
local mark = call('GET', l)
-- Marks of other letters belong to versions to come. Left alone they make our fill LOST, which is always safe.
if mark and sub(mark, 1, 1) ~= 'F' then return {0, g, token} end
if mark and sub(mark, 18) == g then
  if call('PTTL', l) < tonumber(ARGV[4]) then call('PEXPIRE', l, ARGV[4]) end
  return {0, g, sub(mark, 2, 17)}
end
call('SET', l, 'F' .. token .. g, 'PX', ARGV[4])
return {0, g, token}
