-- Whether an envelope in a queue says that its key is to be deleted: it is empty, or, where values are signed or encrypted, one that
-- says that there is no value (bit 3 of the flags).
local function deletes(envelope)
  return envelope == '' or math.floor((string.byte(envelope, 2) or 0) / 8) % 2 == 1
end
