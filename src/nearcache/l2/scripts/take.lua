-- Removes a value as `invalidate` does, and returns it: of several callers at once, one gets it.
-- KEYS v l L; ARGV ring nonce wid. {1, gen, envelope, epoch, seq}; the envelope is nil if there was no live value.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate
-- include lane.lua
-- include announce.lua
-- include envelope.lua
local v, l = KEYS[1], KEYS[2]
local envelope = id_in(v, 12) == m[3] and call('GET', v)
call('UNLINK', v)
local mark = call('GET', l)
local letter = mark and sub(mark, 1, 1)
if letter == 'H' and mark ~= 'H*' and sub(mark, -1) ~= '!' then
  call('SET', l, mark .. '!', 'PX', math.max(1, call('PTTL', l))) -- as in invalidate
elseif letter ~= 'H' and letter ~= 'P' then
  call('UNLINK', l)
end
local seq = announce('I', ARGV[3], v)
return {1, m[3], envelope, m[1], seq}
