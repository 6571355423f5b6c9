-- The owner of the lane's queue has written records behind the cache: they leave it, and what was loaded meanwhile goes.
-- KEYS v1..vn l1..ln w o L; ARGV ring nonce wid token id1 wid1..idn widn id.. . id1..idn are the last records of the keys,
-- wid1..widn their write ids (deletions that are not sealed: '-'), the other ids all that were written or overtaken by these.
-- {0, gen} the caller does not own the queue any more, nothing done; {1, gen, epoch, seq, length}, seq 0: nothing was announced.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: passes on a full server, refused where writing is not allowed
-- include lane.lua
-- include envelope.lua
local o, w, n = KEYS[#KEYS - 1], KEYS[#KEYS - 2], (#KEYS - 3) / 2
if sub(call('GET', o) or '', 1, 17) ~= 'L' .. ARGV[4] then return {0, m[3]} end
local seq, lost = 0, false
for i = 1, n do
  local v, l, id, wid = KEYS[i], KEYS[n + i], ARGV[3 + 2 * i], ARGV[4 + 2 * i]
  local mark = call('GET', l)
  local letter = mark and sub(mark, 1, 1)
  if mark == 'P' .. id then
    call('UNLINK', l)
  elseif letter ~= 'P' and id_in(v, 4) ~= wid then
    -- The mark has not kept others from loading all the time: a hold was in the way, or a program that knows no queue.
    call('UNLINK', v)
    if mark and letter ~= 'H' then call('UNLINK', l) end
    lost = true
  end
end
for i = 5 + 2 * n, #ARGV do
  call('XACK', w, 'w', ARGV[i])
  call('XDEL', w, ARGV[i])
end
if lost then
  -- include announce.lua
  -- include announce_keys.lua
  seq = announce_keys('I', ARGV[3], n)
end
return {1, m[3], m[1], seq, call('XLEN', w)}
