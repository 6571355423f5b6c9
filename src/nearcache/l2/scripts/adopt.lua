-- Begins a new epoch on a primary that this lane has not been on before: after a failover, or a restart. Numbers of the old
-- epoch that are beyond its end here were lost, and those who wrote them can tell.
-- KEYS L; ARGV ring nonce wid fork. {adopted now?, epoch, h}. fork names the server process and its replication history.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate
local fresh = redis.call('EXISTS', KEYS[1]) == 0
-- include lane.lua
-- include announce.lua
local fork = ARGV[4]
local r = call('HMGET', L, 'f', 's', 'h')
local h = r[3] or ''
if r[1] == fork then return {0, m[1], h} end
if not fresh then
  local ends, n = {m[1] .. ':' .. r[2]}, 1
  for pair in string.gmatch(h, '[^,]+') do
    n = n + 1
    if n <= 8 then ends[n] = pair end
  end
  h = table.concat(ends, ',')
end
call('HSET', L, 'f', fork, 'h', h)
if fresh then return {1, m[1], h} end
call('HSET', L, 'e', ARGV[2])
m[1] = ARGV[2]
announce('E', ARGV[3])
return {1, m[1], h}
