-- `invalidate` for a shell, with the prelude in front of it: every process drops its copies of the keys.
-- redis-cli --eval cli_invalidate.lua v1..vn l1..ln L , ring nonce wid [hold_ms token]
-- With one key of the namespace shop, `sku:1`: nc:{shop:0}:v:ssku:1 nc:{shop:0}:l:ssku:1 nc:{shop:0}:L , 1 NONCE WID
-- Prelude of every script: the lane record, and the messages that keep the readers of a lane coherent.
-- Names: L is `nc:{ns:0}:L`; `nc:{ns:0}:` in front of it is common to the lane's values (v:), leases and holds (l:) and channel (i).
-- L is a hash: e epoch, s sequence, w wid of the last mutation, g generation, r newest placement seen (`version-fingerprint`),
-- q the one before it, c what that is in full (`ring`),
-- f fork (which primary adopted the lane last), h where earlier epochs ended: `epoch:seq,...`, newest first.
-- Ids are texts of 16 hex digits and stay texts: Lua would round them.
local call, sub = redis.call, string.sub

-- Whether a caller with this placement may go on where another one was seen last. Two versions may be in use at a time
-- during a change, never three, and one version means one list of shards. A bare version says nothing about the list.
local function admits(L, ring, seen)
  local mine, newest = tonumber(string.match(ring, '^%d+')), tonumber(string.match(seen, '^%d+'))
  local strict = string.find(ring, '-', 1, true) and string.find(seen, '-', 1, true)
  if mine < newest - 1 or (mine == newest and strict) then return false end
  if mine == newest - 1 then
    local before = call('HGET', L, 'q')
    return not (strict and before and before ~= ring)
  end
  if mine > newest or not string.find(seen, '-', 1, true) then
    if mine > newest then call('HSET', L, 'q', seen) end
    call('HSET', L, 'r', ring)
  end
  return true
end

-- Whether a placement is a step in the middle of a change: versions 2 and 3, 5 and 6, and so on.
local function is_changing(ring) return (tonumber(string.match(ring, '^%d+')) - 1) % 3 ~= 0 end

-- Returns {e, w, g, r}, or nil and an error reply.
local function lane(L, ring, nonce)
  local m = call('HMGET', L, 'e', 'w', 'g', 'r')
  if not m[1] then
    -- New, evicted or flushed. A random epoch shows the loss to every process; a random generation keeps the envelopes
    -- of the lost record's time dead, where a counter might come back to their number.
    m = {nonce, '0000000000000000', nonce, ring}
    call('HSET', L, 'e', nonce, 's', 0, 'w', m[2], 'g', nonce, 'r', ring)
    return m
  end
  if ring ~= m[4] and not admits(L, ring, m[4]) then return nil, redis.error_reply('NCTOPO ' .. m[4]) end
  return m
end

-- In Redis Cluster a plain message goes to all nodes, a sharded one stays where its slot is. A lane there has the number that puts
-- it in its slot in its name: `nc:{ns:5-1234}:L`. Redis 6.2 has no sharded messages.
local function publish(L, message)
  local channel = sub(L, 1, -2) .. 'i'
  if string.find(L, ':%d+%-%d+}:L$') then
    local told = redis.pcall('SPUBLISH', channel, message)
    if type(told) ~= 'table' or not told.err then return end
  end
  call('PUBLISH', channel, message)
end

-- One step of the sequence is one message, numbered and published in one script, so that order and number agree.
-- Returns the number.
local function announce(L, m, op, wid, keys)
  local s = string.format('%.0f', call('HINCRBY', L, 's', 1))
  call('HSET', L, 'w', wid)
  publish(L, op .. ' ' .. m[1] .. ' ' .. s .. ' ' .. m[2] .. ' ' .. wid .. '\n' .. keys)
  m[2] = wid
  return s
end

-- Announces KEYS[1..n] (value keys), in as many messages as 64 KB each allow: a subscriber's buffer is finite. Returns
-- the number of the last.
local function announce_keys(L, m, op, wid, n)
  local from, parts, size = #L + 2, {}, 0
  for i = 1, n do
    local key = sub(KEYS[i], from)
    if size > 0 and size + #key + 6 > 65536 then
      announce(L, m, op, wid, table.concat(parts))
      parts, size = {}, 0
    end
    parts[#parts + 1] = #key .. ':' .. key
    size = size + #key + 6
  end
  return announce(L, m, op, wid, table.concat(parts))
end

-- A mark under l is one of: `L` token generation (a lease: its holder loads), `W` token generation (the same, and somebody
-- waits for it), `H` token (a hold: a change is under way, nothing may be stored), `H*` (holds of several), `P` id (the last
-- write of the key is record id of the lane's queue, and not written behind the cache yet: nothing may be loaded into it).
local function is_hold(mark) return mark and sub(mark, 1, 1) == 'H' end
local function is_pending(mark) return mark and sub(mark, 1, 1) == 'P' end

-- The envelope that waits in queue w for being written behind the cache, by the key's mark: '' for a deletion; nil if none.
local function waiting(mark, w)
  local found = is_pending(mark) and call('XRANGE', w, sub(mark, 2), sub(mark, 2))
  return found and found[1] and found[1][2][4]
end

-- Whether the mark is a lease given out under this generation: a clear voids all others without touching them.
local function is_lease(mark, g)
  local letter = mark and sub(mark, 1, 1)
  return (letter == 'L' or letter == 'W') and sub(mark, 18) == g
end

-- UNLINKs KEYS[i..j]; returns how many existed. In pieces, because Lua's stack is finite.
local function unlink(i, j)
  local existed = 0
  for a = i, j, 1000 do existed = existed + call('UNLINK', unpack(KEYS, a, math.min(a + 999, j))) end
  return existed
end

-- Stores an envelope under key v; an empty one stands for the key `staged`, where the envelope has been SET beforehand:
-- what passes through Lua is copied twice, which for large values costs many times the SET.
local function store(v, envelope, staged, ttl_ms)
  if envelope ~= '' then
    call('SET', v, envelope, 'PX', ttl_ms)
  else
    call('RENAME', staged, v)
    call('PEXPIRE', v, ttl_ms)
  end
end

-- Whether all of KEYS[i..j] are there. Asked before the first `store`: what has been done is not undone by an error.
local function staged(i, j)
  for a = i, j do
    if call('EXISTS', KEYS[a]) == 0 then return false end
  end
  return true
end

-- The id that stands in an envelope from byte i on, as hex; nil: no envelope there. Reads eight bytes only.
local function id_in(v, i)
  local raw = call('GETRANGE', v, i, i + 7)
  return #raw == 8 and string.format('%02x%02x%02x%02x%02x%02x%02x%02x', string.byte(raw, 1, 8)) or nil
end

-- The generation that the envelope under key v was sealed with.
local function generation(v) return id_in(v, 12) end

-- Notes in the envelope under key v (bit 6 of its flags) whether its lifetime was changed since it was stored, or not.
local function touched(v, is)
  local flags = string.byte(call('GETRANGE', v, 1, 1))
  local was = math.floor(flags / 64) % 2 == 1
  if is ~= was then call('SETRANGE', v, 1, string.char(is and flags + 64 or flags - 64)) end
end
-- Removes values, voids the leases of loads in progress, and tells the readers, even if nothing was there: an L1 may
-- hold what L2 has evicted.
-- KEYS v1..vn l1..ln L; ARGV ring nonce wid [hold_ms token]. {1, gen, number of values that existed, epoch, seq}.
-- With hold_ms > 0 nothing can be stored under the keys for so long, or until the same token comes with hold_ms = 0.
-- Holds of several merge into one that only time ends: nobody can say then whose is the last. With neither, holds stay.
local L, n = KEYS[#KEYS], (#KEYS - 1) / 2
local hold_ms, token = tonumber(ARGV[4] or '0'), ARGV[5] or ''
-- A write without effect. Once a script has written, a full server lets it go on, so that an invalidation passes; and a
-- server that must not be written to refuses here, before anything is done.
call('PERSIST', L)
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
local existed = unlink(1, n)
for i = n + 1, 2 * n do
  local mark = call('GET', KEYS[i])
  local theirs = is_hold(mark) and sub(mark, 2) ~= token
  if is_pending(mark) then
    -- It stays: what waits to be written is what readers are to see, and will undo the change that is announced here.
  elseif hold_ms > 0 then
    local ms = hold_ms
    if theirs then ms = math.max(ms, call('PTTL', KEYS[i])) end
    call('SET', KEYS[i], 'H' .. (theirs and '*' or token), 'PX', ms)
  elseif mark and not theirs then
    call('UNLINK', KEYS[i])
  end
end
local seq = announce_keys(L, m, 'I', ARGV[3], n)
return {1, m[3], existed, m[1], seq}
