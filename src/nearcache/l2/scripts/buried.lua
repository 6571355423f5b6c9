-- The owner of the lane's queue gives a record up: it goes to the dead letters, and its value from the cache.
-- KEYS v l w o d L; ARGV ring nonce wid token error attempts id.. : the last id is the record's, the others it has overtaken.
-- {0, gen} the caller does not own the queue any more, nothing done; {1, gen, epoch, seq, length}, seq 0: nothing was announced.
local v, l, w, o, d, L = unpack(KEYS)
call('PERSIST', L) -- as in invalidate
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if call('GET', o) ~= 'L' .. ARGV[4] then return {0, m[3]} end
local id = ARGV[#ARGV]
local found = call('XRANGE', w, id, id)
if found[1] then
  call('XADD', d, '*', 'k', found[1][2][2], 'e', found[1][2][4], 'x', ARGV[5], 'n', ARGV[6])
end
for i = 7, #ARGV do
  call('XACK', w, 'w', ARGV[i])
  call('XDEL', w, ARGV[i])
end
local mark, seq = call('GET', l), 0
if mark == 'P' .. id or not is_pending(mark) then
  call('UNLINK', v)
  if mark and not is_hold(mark) then call('UNLINK', l) end
  seq = announce_keys(L, m, 'I', ARGV[3], 1)
end
return {1, m[3], m[1], seq, call('XLEN', w)}
