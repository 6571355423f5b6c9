-- Whether a placement is a step in the middle of a change: versions 2 and 3, 5 and 6, and so on.
local function is_changing(ring) return (tonumber(string.match(ring, '^%d+')) - 1) % 3 ~= 0 end
