-- Gives a lease back without a value, and wakes who waits for it: the next of them loads.
-- KEYS v l L; ARGV ring nonce wid token. 1, or 0 if the lease is not the caller's any more.
local l, L = KEYS[2], KEYS[3]
call('PERSIST', L) -- as in invalidate: passes on a full server, refused where writing is not allowed
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local mark = call('GET', l)
local letter = mark and sub(mark, 1, 1)
if not (letter == 'L' or letter == 'W') or sub(mark, 2, 17) ~= ARGV[4] then return 0 end
call('UNLINK', l)
if letter == 'W' then announce_keys(L, m, 'A', ARGV[3], 1) end
return 1
