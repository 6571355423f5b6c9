-- Says where the lane stands. Sent on the subscribed connection, its reply comes after every message before it.
-- KEYS L; ARGV ring nonce. {epoch, seq, wid, gen, newest placement version, h}.
-- A write without effect comes first: a replica, or a primary cut off from its replicas, must refuse a heartbeat
-- rather than vouch for what it holds; and a full server must not refuse it.
local call, L = redis.call, KEYS[1]
call('PERSIST', L)
local found = call('HMGET', L, 'e', 's', 'w', 'g', 'r', 'h')
if found[1] and found[5] == ARGV[1] then return found end
-- include record.lua
local m, refusal = lane(L, ARGV[1], ARGV[2])
if refusal then return refusal end
return call('HMGET', L, 'e', 's', 'w', 'g', 'r', 'h')
