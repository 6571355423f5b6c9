-- Somebody waits until all that is in the lane's queue up to a record has been written behind the cache: whoever owns the queue
-- is told by the lane record, and does not wait for the end of its delay. KEYS w L; ARGV ring nonce id. 1: some of it waits
-- still; 0: none. It asks nothing of `ring`: it is no reason to refuse, that shards are being added meanwhile.
local w, L = KEYS[1], KEYS[2]
redis.call('PERSIST', L) -- as in invalidate
if not redis.call('XRANGE', w, '-', ARGV[3], 'COUNT', 1)[1] then return 0 end
if redis.call('EXISTS', L) == 1 then redis.call('HSET', L, 'u', ARGV[3]) end
return 1
