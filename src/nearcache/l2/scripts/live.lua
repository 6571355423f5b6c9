-- Whether there is a value under key v: an envelope of this generation, and none that says that there is no value (bit 3 of
-- its flags). Not whether its tags are current: their records may be on other servers. What is no text is no envelope.
local function is_live(v, generation)
  local head = redis.pcall('GETRANGE', v, 0, 19)
  if #head < 20 or math.floor(string.byte(head, 2) / 8) % 2 == 1 then return false end
  return string.format('%02x%02x%02x%02x%02x%02x%02x%02x', string.byte(head, 13, 20)) == generation
end
