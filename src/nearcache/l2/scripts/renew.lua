-- Prolongs leases whose loaders still run, or what the owner of a queue has.
-- KEYS l1..ln; ARGV token1..tokenn lease_ms. How many of them are the caller's still; the others are left alone.
local call, sub = redis.call, string.sub
local kept, lease_ms = 0, ARGV[#KEYS + 1]
for i, l in ipairs(KEYS) do
  local mark = call('GET', l)
  local letter = mark and sub(mark, 1, 1)
  if (letter == 'L' or letter == 'W') and sub(mark, 2, 17) == ARGV[i] then
    if sub(mark, 18, 18) == ' ' then -- of a queue: see dequeue
      call('PERSIST', l) -- as in invalidate
      -- include now.lua
      call('SET', l, sub(mark, 1, 18) .. string.format('%.0f', now_ms() + lease_ms))
    else
      call('PEXPIRE', l, lease_ms)
    end
    kept = kept + 1
  end
end
return kept
