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
