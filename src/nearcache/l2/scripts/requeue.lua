-- Puts a dead letter back into the lane's queue, as its newest record.
-- KEYS v l d w L; ARGV ring nonce wid id. {0, gen} there is no such letter; {2, gen} a newer write of its key waits in the queue:
-- nothing done; {1, gen, epoch, seq}.
local v, l, d, w, L = unpack(KEYS)
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if is_changing(m[4]) or is_changing(ARGV[1]) then return redis.error_reply('NCTOPO ' .. m[4]) end -- as in set
local found = call('XRANGE', d, ARGV[4], ARGV[4])
if not found[1] then return {0, m[3]} end
local mark = call('GET', l)
if waiting(mark, w) then return {2, m[3]} end
local id = call('XADD', w, '*', 'k', found[1][2][2], 'e', found[1][2][4])
call('XDEL', d, ARGV[4])
call('UNLINK', v)
if not is_hold(mark) then call('SET', l, 'P' .. id) end
return {1, m[3], m[1], announce_keys(L, m, 'I', ARGV[3], 1)}
