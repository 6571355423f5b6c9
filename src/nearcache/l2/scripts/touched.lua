-- Notes in the envelope under key v (bit 6 of its flags) whether its lifetime was changed since it was stored, or not.
local function touched(v, is)
  local flags = string.byte(call('GETRANGE', v, 1, 1))
  local was = math.floor(flags / 64) % 2 == 1
  if is ~= was then call('SETRANGE', v, 1, string.char(is and flags + 64 or flags - 64)) end
end
