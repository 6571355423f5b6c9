-- Takes in a dead letter from the lane that its key had before the list of shards was changed.
-- KEYS d L; ARGV ring nonce wid field value field value... {1, gen, id} of its record here.
-- include lane.lua
-- include changing.lua
if is_changing(m[4]) or is_changing(ARGV[1]) then return redis.error_reply('NCTOPO ' .. m[4]) end -- as in set
return {1, m[3], call('XADD', KEYS[1], '*', unpack(ARGV, 4))}
