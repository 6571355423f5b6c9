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
