-- The id that stands in the envelope under key v from byte i on, as hex: its wid from 4, its generation from 12; nil: there
-- is no envelope. Reads eight bytes only.
local function id_in(v, i)
  local raw = call('GETRANGE', v, i, i + 7)
  if #raw < 8 then return nil end
  local a, b, c, d, e, f, g, h = string.byte(raw, 1, 8)
  return string.format('%08x%08x', ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h)
end
