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
