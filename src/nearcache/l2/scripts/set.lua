-- Stores envelopes and tells the readers. One message, one wid, for all keys of the call.
-- KEYS v1..vn l1..ln s1..sm L; ARGV ring nonce wid gen mode ttl_ms env1..envn. m of the envelopes are
-- empty: they are under s1..sm, in this order (see `store`). mode: ''; or, with n = 1, 'NX': only if there is no live value,
-- or 'CAS' and 16 hex digits: only if there is one of this wid, whose lifetime is kept if ttl_ms is 'KEEP'.
-- {1, gen, epoch, seq, held} stored, except the `held` keys (numbers from 1, a string of `n,`) that are on hold: of those
-- the old value is gone; {0, gen} sealed under another generation, nothing done; {2, gen, envelope, pttl} refused by the mode,
-- nothing done: the live value that there is; nil and -2 if there is none.
local L, n, wid = KEYS[#KEYS], #ARGV - 6, ARGV[3]
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
if m[3] ~= ARGV[4] then return {0, m[3]} end
local mode, ttl = ARGV[5], ARGV[6]
if mode ~= '' then
  local live = generation(KEYS[1]) == m[3]
  local fits = not live
  if mode ~= 'NX' then fits = live and id_in(KEYS[1], 4) == sub(mode, 4) end
  local pttl = live and call('PTTL', KEYS[1]) or -2
  if not fits then return {2, m[3], live and call('GET', KEYS[1]), pttl} end
  if ttl == 'KEEP' then ttl = math.max(pttl, 1) end
end
if not staged(2 * n + 1, #KEYS - 1) then return redis.error_reply('NCSTAGE the value is not there') end
local marks = n == 1 and {call('GET', KEYS[2])} or {}
if n > 1 then
  for a = n + 1, 2 * n, 1000 do
    for _, mark in ipairs(call('MGET', unpack(KEYS, a, math.min(a + 999, 2 * n)))) do marks[#marks + 1] = mark end
  end
end
-- This comes before the message: where memory is short the first SET is refused, and then nothing has been announced.
local s, held = 2 * n, ''
for i = 1, n do
  local there = ARGV[6 + i] == ''
  if there then s = s + 1 end
  if is_hold(marks[i]) then
    -- What is being written may be older than the change that the hold announces.
    call('UNLINK', KEYS[i])
    if there then call('UNLINK', KEYS[s]) end
    held = held .. i .. ','
  else
    store(KEYS[i], ARGV[6 + i], KEYS[s], ttl)
    if marks[i] then call('UNLINK', KEYS[n + i]) end
  end
end
local seq = announce_keys(L, m, 'S', wid, n)
return {1, m[3], m[1], seq, held}
