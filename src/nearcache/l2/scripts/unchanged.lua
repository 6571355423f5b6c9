-- Lets a value live once more that its loader has found unchanged, and gives the lease back. The value does not travel.
-- KEYS v l L; ARGV ring nonce wid gen token value_wid ttl_ms. value_wid: of the value that the loader was shown.
-- {1, gen, epoch, seq}, seq 0 where nothing was announced; or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
-- include envelope.lua
-- include touched.lua
local v, l, gen = KEYS[1], KEYS[2], ARGV[4]
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
local mark, lease = call('GET', l), ARGV[5] .. gen
if mark ~= 'L' .. lease and mark ~= 'W' .. lease then return {0, gen, 'LOST'} end
local found = id_in(v, 4) == ARGV[6]
if found then
  call('PEXPIRE', v, ARGV[7])
  touched(v, false)
end
call('UNLINK', l)
-- Who waits reads the value. Under the value's own wid, because copies of it are right, and stay.
local seq = 0
if sub(mark, 1, 1) == 'W' then
  -- include announce.lua
  seq = announce('A', found and ARGV[6] or ARGV[3], v)
end
if not found then return {0, gen, 'LOST'} end
return {1, gen, m[1], seq}
