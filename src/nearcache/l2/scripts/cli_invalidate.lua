-- `invalidate` for a shell, in one file: every process drops its copies of the keys.
-- redis-cli --eval cli_invalidate.lua v1..vn l1..ln L , ring nonce wid [hold_ms token]
-- With one key of the namespace shop, `sku:1`: nc:{shop:0}:v:ssku:1 nc:{shop:0}:l:ssku:1 nc:{shop:0}:L , 1 NONCE WID
do
  -- What a hand gets wrong is refused before anything is done. A value without its mark, say, would not be invalidated,
  -- and the answer would look as if it had been.
  local prefix, id = string.match(KEYS[#KEYS] or '', '^(nc:{.+}:)L$'), '^' .. string.rep('[0-9a-f]', 16) .. '$'
  local count, ring, hold = (#KEYS - 1) / 2, ARGV[1] or '', ARGV[4]
  local wrong
  if not prefix then
    wrong = 'the last key is the lane record, such as nc:{shop:0}:L, and behind it come a blank, a comma and a blank'
  elseif count < 1 or count % 1 ~= 0 then
    wrong = 'give as many marks (l:) as values (v:), at least one, and then the lane record'
  elseif not (string.find(ring, '^%d+$') or string.find(ring, '^%d+%-%x+$')) then
    wrong = 'behind the comma comes the version of the list of shards, 1 if it was never changed: not ' .. ring
  elseif not string.find(ARGV[2] or '', id) or not string.find(ARGV[3] or '', id) or ARGV[3] == string.rep('0', 16) then
    wrong = 'nonce and wid are random ids, 16 digits 0-9 and a-f each'
  elseif hold and not (string.find(hold, '^%d+$') and string.find(ARGV[5] or '', id)) then
    wrong = 'a hold is its length in ms, or 0 to end it, and its token, 16 digits 0-9 and a-f'
  end
  for i = 1, wrong and 0 or count do
    local key = string.sub(KEYS[i], #prefix + 3)
    if KEYS[i] ~= prefix .. 'v:' .. key or not string.find(key, '^[sbixfn(!]') then
      wrong = 'not the name of a value on this lane (' .. prefix .. 'v:, then the encoded key: ssku:1 for sku:1): ' .. KEYS[i]
    elseif KEYS[count + i] ~= prefix .. 'l:' .. key then
      wrong = 'the mark of ' .. KEYS[i] .. ' is ' .. prefix .. 'l:' .. key .. ', not ' .. KEYS[count + i]
    end
  end
  if wrong then return redis.error_reply('ERR ' .. wrong) end
end
-- Removes values, voids the leases of loads in progress, and tells the readers, even if nothing was there: an L1 may
-- hold what L2 has evicted.
-- KEYS v1..vn l1..ln L; ARGV ring nonce wid [hold_ms token]. {1, gen, number of values that existed, epoch, seq}:
-- of one key only a live one; to look at each of many would take too long.
-- With hold_ms > 0 nothing can be stored under the keys for so long, or until the same token comes with hold_ms = 0.
-- Holds of several merge into one that only time ends: nobody can say then whose is the last. With neither, holds stay.
local hold_ms, token = tonumber(ARGV[4] or '0'), ARGV[5] or ''
-- A write without effect. Once a script has written, a full server lets it go on, so that an invalidation passes; and a
-- server that must not be written to refuses here, before anything is done.
redis.call('PERSIST', KEYS[#KEYS])
-- The beginning of nearly every script: L, and m = {e, w, g, r, s} of the lane record, for a caller that may go on.
-- Names: L is `nc:{ns:0}:L`; `nc:{ns:0}:` in front of it is common to the lane's values (v:), leases and holds (l:) and channel (i).
-- L is a hash: e epoch, s sequence, w wid of the last mutation, g generation, r newest placement seen (`version-fingerprint`),
-- q the one before it, c what that is in full (`ring`), m r as it was when that last said that the shard is one of the list,
-- u the newest record of its queue that somebody has waited for (`hurry`),
-- f fork (which primary adopted the lane last), h where earlier epochs ended: `epoch:seq,...`, newest first,
-- k wids of the last clears: `wid,...,`, newest first.
-- A mark under l is one of: `L` token generation (a lease: its holder loads), `W` token generation (the same, and somebody
-- waits for it), `H` token (a hold: a change is under way, nothing may be stored; with `!` at its end if somebody else has
-- announced a change meanwhile), `H*` (holds of several), `P` id (the last write of the key is record id of the lane's
-- queue, and not written behind the cache yet: nothing may be loaded into it).
-- Ids are texts of 16 hex digits and stay texts: Lua would round them.
local call, sub, L = redis.call, string.sub, KEYS[#KEYS]
local m = call('HMGET', L, 'e', 'w', 'g', 'r', 's')
if not m[1] or m[4] ~= ARGV[1] then
-- Returns {e, w, g, r, s} of the lane record, or nil and an error reply; makes the record where there is none.
local function lane(L, ring, nonce)
  local m = call('HMGET', L, 'e', 'w', 'g', 'r', 's')
  if not m[1] then
    -- New, evicted or flushed. A random epoch shows the loss to every process; a random generation keeps the envelopes
    -- of the lost record's time dead, where a counter might come back to their number.
    m = {nonce, '0000000000000000', nonce, ring, '0'}
    call('HSET', L, 'e', nonce, 's', '0', 'w', m[2], 'g', nonce, 'r', ring)
    return m
  end
  local seen = m[4]
  if ring == seen then return m end
  -- Whether a caller with this placement may go on where another one was seen last. Two versions may be in use at a time
  -- during a change, never three, and one version means one list of shards. A bare version says nothing about the list.
  local mine, newest = tonumber(string.match(ring, '^%d+')), tonumber(string.match(seen or '', '^%d+'))
  if not newest then return nil, redis.error_reply('NCRECORD no version of a list of shards: ' .. (seen or '')) end
  local strict = string.find(ring, '-', 1, true) and string.find(seen, '-', 1, true)
  -- Whoever knows that this shard is none any more is right against one who has not noticed that it is gone from his list,
  -- but not against one who has told it in full that it stays (`ring`): its server has two names then.
  local left = string.sub(ring, -17) == '-0000000000000000' and call('HGET', L, 'm') ~= seen
  local refused = mine < newest - 1 or (mine == newest and strict and not left)
  if mine == newest - 1 then
    local before = call('HGET', L, 'q')
    refused = strict and before and before ~= ring
  elseif mine > newest or (mine == newest and (left or not string.find(seen, '-', 1, true))) then
    if mine > newest then call('HSET', L, 'q', seen) end
    call('HSET', L, 'r', ring)
  end
  if refused then return nil, redis.error_reply('NCTOPO ' .. seen) end
  return m
end
  local refusal
  m, refusal = lane(L, ARGV[1], ARGV[2])
  if refusal then return refusal end
end
-- One step of the sequence is one message, numbered and published in one script, so that order and number agree.
-- v: the name of the value it is about; or keys: several, as they stand in the message. Returns the number.
local function announce(op, wid, v, keys)
  local s = string.format('%.0f', (m[5] or 0) + 1)
  call('HSET', L, 's', s, 'w', wid)
  if v then
    local key = sub(v, #L + 2)
    keys = #key .. ':' .. key
  end
  local channel = sub(L, 1, -2) .. 'i'
  local message = op .. ' ' .. m[1] .. ' ' .. s .. ' ' .. m[2] .. ' ' .. wid .. '\n' .. (keys or '')
  m[2], m[5] = wid, s
  -- In Redis Cluster a plain message goes to all nodes, a sharded one stays where its slot is. A lane there has the number
  -- that puts it in its slot in its name: `nc:{ns:5-1234}:L`. Redis 6.2 has no sharded messages.
  if sub(L, -5) ~= ':0}:L' and string.find(L, ':%d+%-%d+}:L$') then
    local told = redis.pcall('SPUBLISH', channel, message)
    if type(told) ~= 'table' or not told.err then return s end
    if not string.find(told.err, 'nknown') then call('SPUBLISH', channel, message) end -- it fails: others listen here
  end
  call('PUBLISH', channel, message)
  return s
end
-- Announces KEYS[1..n] (value keys), in as many messages as 64 KB each allow: a subscriber's buffer is finite. Returns
-- the number of the last.
local function announce_keys(op, wid, n)
  if n == 1 then return announce(op, wid, KEYS[1]) end
  local from, parts, count, size, heads = #L + 2, {}, 0, 0, {}
  for i = 1, n do
    local key = sub(KEYS[i], from)
    local length = #key
    if count > 0 and size + length + 6 > 65536 then
      announce(op, wid, nil, table.concat(parts, '', 1, count))
      count, size = 0, 0
    end
    local head = heads[length]
    if not head then
      head = length .. ':' -- making text of numbers takes its time, and there are few lengths
      heads[length] = head
    end
    count, size = count + 1, size + length + 6
    parts[count] = head .. key
  end
  return announce(op, wid, nil, table.concat(parts, '', 1, count))
end
-- Whether there is a value under key v: an envelope of this generation, and none that says that there is no value (bit 3 of
-- its flags). Not whether its tags are current: their records may be on other servers. What is no text is no envelope.
local function is_live(v, generation)
  local head = redis.pcall('GETRANGE', v, 0, 19)
  if #head < 20 or math.floor(string.byte(head, 2) / 8) % 2 == 1 then return false end
  return string.format('%02x%02x%02x%02x%02x%02x%02x%02x', string.byte(head, 13, 20)) == generation
end
local n = (#KEYS - 1) / 2
local was_live = n > 1 or is_live(KEYS[1], m[3])
local existed = 0
for a = 1, n, 1000 do -- in pieces, because Lua's stack is finite
  existed = existed + call('UNLINK', unpack(KEYS, a, math.min(a + 999, n)))
end
for i = n + 1, 2 * n do
  local mark = call('GET', KEYS[i])
  local letter = mark and sub(mark, 1, 1)
  local theirs = letter == 'H' and mark ~= 'H' .. token and mark ~= 'H' .. token .. '!'
  if letter == 'P' then
    -- It stays: what waits to be written is what readers are to see, and will undo the change that is announced here.
  elseif hold_ms > 0 then
    local ms = hold_ms
    if theirs then ms = math.max(ms, call('PTTL', KEYS[i])) end
    call('SET', KEYS[i], theirs and 'H*' or letter == 'H' and mark or 'H' .. token, 'PX', ms)
  elseif mark and not theirs then
    call('UNLINK', KEYS[i])
  elseif theirs and mark ~= 'H*' and sub(mark, -1) ~= '!' then
    -- This change may be the later one: who holds the key does not store what he has written.
    call('SET', KEYS[i], mark .. '!', 'PX', math.max(1, call('PTTL', KEYS[i])))
  end
end
local seq = announce_keys('I', ARGV[3], n)
return {1, m[3], was_live and existed or 0, m[1], seq}
