-- Lets a value live once more that its loader has found unchanged, and gives the lease back. The value does not travel.
-- KEYS v l L; ARGV ring nonce wid gen token value_wid ttl_ms. value_wid: of the value that the loader was shown.
-- {1, gen, epoch, seq}, seq 0 where nothing was announced; or {0, gen, 'LOST' | 'GENERATION'}: nothing done.
local v, l, L, gen = KEYS[1], KEYS[2], KEYS[3], ARGV[4]
call('PERSIST', L) -- as in invalidate: passes on a full server, refused where writing is not allowed
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= gen then return {0, m[3], 'GENERATION'} end
local mark = call('GET', l)
if not is_lease(mark, gen) or sub(mark, 2, 17) ~= ARGV[5] then return {0, gen, 'LOST'} end
local found = id_in(v, 4) == ARGV[6]
if found then
  call('PEXPIRE', v, ARGV[7])
  touched(v, false)
end
call('UNLINK', l)
-- Who waits reads the value. Under the value's own wid, because copies of it are right, and stay.
local seq = 0
if sub(mark, 1, 1) == 'W' then seq = announce_keys(L, m, 'A', found and ARGV[6] or ARGV[3], 1) end
if not found then return {0, gen, 'LOST'} end
return {1, gen, m[1], seq}
