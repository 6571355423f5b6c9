-- Gives the oldest records of the lane's queue to the one process at a time that owns it, and lets it own it for so long.
-- KEYS w o L; ARGV ring nonce token lease_ms count bytes from. from: '>' what nobody has been given yet, or the id after which
-- to repeat what a former owner was given and has not settled ('0': all of it). {0, length, ms} another process owns it, for so long;
-- {1, length, fresh, records, deliveries, urgent, now}: fresh 1 if the caller did not own it before; then from was '0', whatever it
-- said. urgent: somebody waits until all up to this record has been written, or has waited; '' nobody ever has. now: the
-- server's clock in milliseconds, by which the ids of records say when they were made.
redis.call('PERSIST', KEYS[#KEYS]) -- as in invalidate: only what is written leaves room on a full server
local call, w, o, token = redis.call, KEYS[1], KEYS[2], ARGV[3]
-- The end stands in the value: a key with a lifetime may be evicted, and there would be two owners.
-- include now.lua
local now = now_ms()
local owner, till = string.match(call('GET', o) or '', '^L(%x+) (%d+)$')
if owner and tonumber(till) <= now then owner = nil end
local mine = owner == token
local length = call('XLEN', w)
if owner and not mine then
  if till - now > 60000 then -- as in lease; but he who may own it for a minute is to own it still
    till = now + 60000
    call('SET', o, string.format('L%s %.0f', owner, till))
  end
  return {0, length, till - now}
end
if length == 0 then
  call('UNLINK', o)
  return {1, 0, mine and 0 or 1, {}, {}}
end
-- include lane.lua
call('SET', o, string.format('L%s %.0f', token, now + ARGV[4]))
local from, most, records, deliveries, size = ARGV[7], tonumber(ARGV[5]), {}, {}, 0
if not mine then from = '0' end
local function add(record, given)
  records[#records + 1], deliveries[#deliveries + 1] = record, given
  for _, field in ipairs(record[2]) do size = size + #field end
end
if from == '>' then
  while #records < most and size < tonumber(ARGV[6]) do
    local found = call('XREADGROUP', 'GROUP', 'w', 'w', 'COUNT', 1, 'STREAMS', w, '>')
    if not found then break end
    add(found[1][2][1], 1)
  end
else
  redis.pcall('XGROUP', 'CREATE', w, 'w', '0') -- fails if there is one
  for _, pending in ipairs(most > 0 and call('XPENDING', w, 'w', from == '0' and '-' or from, '+', most + 1) or {}) do
    local id = pending[1]
    if #records == most or size >= tonumber(ARGV[6]) then break end
    if id ~= from then
      local found = call('XRANGE', w, id, id)[1]
      if not found then
        call('XACK', w, 'w', id) -- somebody has deleted it
      else
        -- Counted once for each owner: who ends every process that is given it is to be found out.
        if not mine then call('XCLAIM', w, 'w', 'w', 0, id) end
        add(found, pending[4] + (mine and 0 or 1))
      end
    end
  end
end
return {1, length, mine and 0 or 1, records, deliveries, call('HGET', KEYS[3], 'u') or '', now}
