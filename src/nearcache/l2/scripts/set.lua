-- Stores envelopes and tells the readers. One message, one wid, for all keys of the call.
-- KEYS v1..vn l1..ln s1..sm L; ARGV ring nonce wid gen mode ttl_ms env1..envn. m of the envelopes are
-- empty: they are under s1..sm, in this order (see `store`). mode: ''; or, with n = 1, 'NX': only if there is no live value,
-- or 'CAS' and 16 hex digits: only if there is one of this wid, whose lifetime is kept if ttl_ms is 'KEEP'; or 'HELD' and the
-- token of a hold: only where that hold has lasted until now, and nobody else has announced a change, a clear included;
-- it ends. 'Q' number ':' and one of these but the last: all is written behind the cache, too: KEYS .. w L, no s, and an envelope that is
-- empty, or says that there is no value, is a deletion.
-- '1 gen epoch seq held' stored, except the `held` keys (numbers from 1, each with `,`) that are on hold: of those
-- the old value is gone; '0 gen' sealed under another generation, nothing done; {2, gen, envelope, pttl} refused by the mode,
-- nothing done: the live value that there is; nil and -2 if there is none. With Q also '1 .. held existed', how many of the
-- deleted values there were; and '3 gen length': that many records wait in w already, nothing done.
-- Texts, not tables, because making a reply of a table costs a server as much as a command.
-- include lane.lua
local n, wid, mode, ttl = #ARGV - 6, ARGV[3], ARGV[5], ARGV[6]
-- The short way of nearly every write: one value, small enough not to be staged, whatever is there, and a key without a mark.
-- It does by itself what `announce` does for a lane that is none of a cluster: making a function takes its time, and so
-- does making text of a number, so the last digit is counted up where that is enough.
if n == 1 and #KEYS == 3 and mode == '' and ARGV[7] ~= '' and m[3] == ARGV[4] and m[5] and sub(L, -5) == ':0}:L'
    and not call('GET', KEYS[2]) then
  call('SET', KEYS[1], ARGV[7], 'PX', ttl)
  local s, key = m[5], sub(KEYS[1], #L + 2)
  local digit = string.byte(s, -1)
  s = digit < 57 and sub(s, 1, -2) .. string.char(digit + 1) or string.format('%.0f', s + 1)
  call('HSET', L, 's', s, 'w', wid)
  call('PUBLISH', sub(L, 1, -2) .. 'i', 'S ' .. m[1] .. ' ' .. s .. ' ' .. m[2] .. ' ' .. wid .. '\n' .. #key .. ':' .. key)
  return '1 ' .. m[3] .. ' ' .. m[1] .. ' ' .. s .. ' '
end
-- include announce.lua
if m[3] ~= ARGV[4] and sub(mode, 1, 4) ~= 'HELD' then return '0 ' .. m[3] end
-- include announce_keys.lua
-- include store.lua
-- include envelope.lua
-- include waiting.lua
-- include deletes.lua
local most, rest = string.match(mode, '^Q(%d+):(.*)$')
local w = most and KEYS[#KEYS - 1]
if w then
  -- include changing.lua
  -- While the list of shards changes, nobody would look for the record where the key is read then.
  if is_changing(m[4]) or is_changing(ARGV[1]) then return redis.error_reply('NCTOPO ' .. m[4]) end
  mode = rest
  local length = call('XLEN', w)
  if length >= tonumber(most) then return '3 ' .. m[3] .. ' ' .. length end
end
local own = sub(mode, 1, 4) == 'HELD' and 'H' .. sub(mode, 5)
if mode ~= '' and not own then
  -- A value that has expired or was evicted before it was written behind the cache is there all the same.
  local waits = w and id_in(KEYS[1], 12) ~= m[3] and waiting(call('GET', KEYS[2]), w)
  if waits and not deletes(waits) then store(KEYS[1], waits, nil, tonumber(ttl) or 3600000) end
  local live = id_in(KEYS[1], 12) == m[3]
  local fits = not live
  if mode ~= 'NX' then fits = live and id_in(KEYS[1], 4) == sub(mode, 4) end
  local pttl = live and call('PTTL', KEYS[1]) or -2
  if not fits then return {2, m[3], live and call('GET', KEYS[1]), pttl} end
  if ttl == 'KEEP' then ttl = math.max(pttl, 1) end
end
-- Asked before the first `store`: what has been done is not undone by an error.
for a = 2 * n + 1, w and 0 or #KEYS - 1 do
  if call('EXISTS', KEYS[a]) == 0 then return redis.error_reply('NCSTAGE the value is not there') end
end
local marks = n == 1 and {call('GET', KEYS[2])} or {}
if n > 1 then
  for a = n + 1, 2 * n, 1000 do
    for _, mark in ipairs(call('MGET', unpack(KEYS, a, math.min(a + 999, 2 * n)))) do marks[#marks + 1] = mark end
  end
end
-- This comes before the message: where memory is short the first SET is refused, and then nothing has been announced.
local s, held, existed, stores = 2 * n, '', 0, false
for i = 1, n do
  local there = ARGV[6 + i] == '' and not w
  if there then s = s + 1 end
  local id = w and call('XADD', w, '*', 'k', sub(KEYS[i], #L + 2), 'e', ARGV[6 + i])
  local mark = marks[i]
  local letter = mark and sub(mark, 1, 1)
  if own and (mark ~= own or m[3] ~= ARGV[4]) or not own and letter == 'H' then
    -- What is being written may be older than the change that the hold announces.
    call('UNLINK', KEYS[i])
    if there then call('UNLINK', KEYS[s]) end
    if mark and letter ~= 'H' and letter ~= 'P' or own and (mark == own or mark == own .. '!') then
      call('UNLINK', KEYS[n + i])
    elseif letter == 'H' and mark ~= 'H*' and sub(mark, -1) ~= '!' then
      -- As in invalidate: what he has written who holds the key may be the older value.
      call('SET', KEYS[n + i], mark .. '!', 'PX', math.max(1, call('PTTL', KEYS[n + i])))
    end
    held = held .. i .. ','
  else
    if w and deletes(ARGV[6 + i]) then
      existed = existed + call('UNLINK', KEYS[i])
    else
      store(KEYS[i], ARGV[6 + i], KEYS[s], ttl)
      stores = true
    end
    if id then
      call('SET', KEYS[n + i], 'P' .. id)
    elseif mark then
      call('UNLINK', KEYS[n + i])
    end
  end
end
local seq = announce_keys(stores and 'S' or 'I', wid, n)
return '1 ' .. m[3] .. ' ' .. m[1] .. ' ' .. seq .. ' ' .. held .. (w and ' ' .. existed or '')
