-- Gives a lease back without a value, and wakes who waits for it: the next of them loads.
-- KEYS v l L; ARGV ring nonce wid token. 1, or 0 if the lease is not the caller's any more.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
local mark = call('GET', KEYS[2])
local letter = mark and sub(mark, 1, 1)
if not (letter == 'L' or letter == 'W') or sub(mark, 2, 17) ~= ARGV[4] then return 0 end
call('UNLINK', KEYS[2])
if letter == 'W' then
  -- include announce.lua
  announce('A', ARGV[3], KEYS[1])
end
return 1
