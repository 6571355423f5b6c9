-- Removes a value as `invalidate` does, and returns it: of several callers at once, one gets it.
-- KEYS v l L; ARGV ring nonce wid. {1, gen, envelope, epoch, seq}; the envelope is nil if there was no live value.
local v, l, L = KEYS[1], KEYS[2], KEYS[3]
call('PERSIST', L) -- as in invalidate
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local envelope = generation(v) == m[3] and call('GET', v)
call('UNLINK', v)
local mark = call('GET', l)
if not is_hold(mark) and not is_pending(mark) then call('UNLINK', l) end
local seq = announce_keys(L, m, 'I', ARGV[3], 1)
return {1, m[3], envelope, m[1], seq}
