-- The owner of the lane's queue gives a record up: it goes to the dead letters, and its value from the cache.
-- KEYS v l w o d L; ARGV ring nonce wid token error attempts id.. : the last id is the record's, the others it has overtaken.
-- {0, gen} the caller does not own the queue any more, nothing done; {1, gen, epoch, seq, length}, seq 0: nothing was announced.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate
-- include lane.lua
-- include announce.lua
-- include field.lua
local v, l, w, o, d = unpack(KEYS)
if sub(call('GET', o) or '', 1, 17) ~= 'L' .. ARGV[4] then return {0, m[3]} end
-- If a failover has lost the last one, the one before is the newest that there is: it has been written by nobody.
local id = ARGV[#ARGV]
for i = #ARGV, 7, -1 do
  local found = call('XRANGE', w, ARGV[i], ARGV[i])[1]
  if found then
    id = ARGV[i]
    local key, envelope = field(found[2], 'k'), field(found[2], 'e') -- a stranger's record may lack one
    local fields = {'x', ARGV[5], 'n', ARGV[6]}
    if envelope then fields = {'e', envelope, unpack(fields)} end
    if key then fields = {'k', key, unpack(fields)} end
    call('XADD', d, '*', unpack(fields))
    break
  end
end
for i = 7, #ARGV do
  call('XACK', w, 'w', ARGV[i])
  call('XDEL', w, ARGV[i])
end
local mark, seq = call('GET', l), 0
local letter = mark and sub(mark, 1, 1)
if mark == 'P' .. id or letter ~= 'P' then
  call('UNLINK', v)
  if mark and letter ~= 'H' then call('UNLINK', l) end
  seq = announce('I', ARGV[3], v)
end
return {1, m[3], m[1], seq, call('XLEN', w)}
