-- The right to change the data behind a key by what it is: of all who write through, one has it at a time.
-- KEYS x L; ARGV ring nonce token lock_ms. {1, gen} it is the caller's, until `abort` (KEYS v x L); {0, gen, pttl} somebody
-- else's: wait for a message about the key, at most so long. Unlike a lease it outlasts a clear, which changes no data.
-- include lane.lua
local x = KEYS[1]
local mark = call('GET', x)
if mark and sub(mark, 2) ~= ARGV[3] then
  local pttl = math.max(call('PTTL', x), 1)
  if pttl > 60000 then pttl = tonumber(ARGV[4]) end -- as in lease
  call('SET', x, 'W' .. sub(mark, 2), 'PX', pttl)
  return {0, m[3], pttl}
end
call('SET', x, (mark and sub(mark, 1, 1) or 'L') .. ARGV[3], 'PX', ARGV[4])
return {1, m[3]}
