-- Gives the oldest records of the lane's queue to the one process at a time that owns it, and lets it own it for so long.
-- KEYS w o L; ARGV ring nonce token lease_ms count bytes from. from: '>' what nobody has been given yet, or the id after which
-- to repeat what a former owner was given and has not settled ('0': all of it). {0, length, pttl} another process owns it;
-- {1, length, fresh, records, deliveries}: fresh 1 if the caller did not own it before; then from was '0', whatever it said.
local w, o, L, token = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
local owner = call('GET', o)
local mine = owner == 'L' .. token
local length = call('XLEN', w)
if owner and not mine then return {0, length, call('PTTL', o)} end
if length == 0 then
  if mine then call('UNLINK', o) end
  return {1, 0, mine and 0 or 1, {}, {}}
end
local m, err = lane(L, ARGV[1], ARGV[2])
if err then return err end
call('SET', o, 'L' .. token, 'PX', ARGV[4])
local from, records, deliveries, size = ARGV[7], {}, {}, 0
if not mine then from = '0' end
while #records < tonumber(ARGV[5]) and size < tonumber(ARGV[6]) do
  local found = redis.pcall('XREADGROUP', 'GROUP', 'w', 'w', 'COUNT', 1, 'STREAMS', w, from)
  if found and found.err then
    if sub(found.err, 1, 7) ~= 'NOGROUP' and not string.find(found.err, 'NOGROUP', 1, true) then return found end
    call('XGROUP', 'CREATE', w, 'w', '0')
    found = call('XREADGROUP', 'GROUP', 'w', 'w', 'COUNT', 1, 'STREAMS', w, from)
  end
  local record = found and found[1] and found[1][2][1]
  if not record then break end
  records[#records + 1] = record
  if from ~= '>' then
    from = record[1]
    local known = call('XPENDING', w, 'w', from, from, 1)
    deliveries[#deliveries + 1] = known[1] and known[1][4] or 1
  end
  local fields = record[2]
  for i = 1, fields and #fields or 0 do size = size + #fields[i] end
end
return {1, length, mine and 0 or 1, records, deliveries}
