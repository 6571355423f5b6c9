-- What a record of a stream says under this name; nil: nothing.
local function field(fields, name)
  for a = 1, #fields, 2 do
    if fields[a] == name then return fields[a + 1] end
  end
end
