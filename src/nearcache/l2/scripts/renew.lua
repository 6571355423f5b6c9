-- Prolongs a lease whose loader still runs, or what the owner of a queue has.
-- KEYS l; ARGV token lease_ms. 1, or 0 if the lease is not the caller's any more.
local call, sub = redis.call, string.sub
local mark = call('GET', KEYS[1])
local letter = mark and sub(mark, 1, 1)
if not (letter == 'L' or letter == 'W') or sub(mark, 2, 17) ~= ARGV[1] then return 0 end
if sub(mark, 18, 18) == ' ' then -- of a queue: see dequeue
  call('PERSIST', KEYS[1]) -- as in invalidate
  -- include now.lua
  call('SET', KEYS[1], sub(mark, 1, 18) .. string.format('%.0f', now_ms() + ARGV[2]))
  return 1
end
return call('PEXPIRE', KEYS[1], ARGV[2])
