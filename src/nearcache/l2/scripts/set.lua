-- Stores envelopes and tells the readers. One message, one wid, for all keys of the call.
-- KEYS v1..vn l1..ln s1..sm L; ARGV ring nonce wid gen mode ttl_ms env1..envn. mode: '' or 'NX' (then n = 1). m of the
-- envelopes are empty: they are under s1..sm, in this order (see `store`).
-- {1, gen} stored; {0, gen} sealed under another generation, nothing done; {2, gen, envelope} NX found a live value.
local L, n, wid = KEYS[#KEYS], #ARGV - 6, ARGV[3]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= ARGV[4] then return {0, m[3]} end
if ARGV[5] == 'NX' and generation(KEYS[1]) == m[3] then return {2, m[3], call('GET', KEYS[1])} end
if not staged(2 * n + 1, #KEYS - 1) then return redis.error_reply('NCSTAGE the value is not there') end
-- This comes before the message: where memory is short the first SET is refused, and then nothing has been announced.
local s = 2 * n
for i = 1, n do
  if ARGV[6 + i] == '' then s = s + 1 end
  store(KEYS[i], ARGV[6 + i], KEYS[s], ARGV[6])
end
unlink(n + 1, 2 * n)
announce_keys(L, m, 'S', wid, n)
return {1, m[3]}
