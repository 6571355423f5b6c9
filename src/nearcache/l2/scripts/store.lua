-- Stores an envelope under key v; an empty one stands for the key `staged`, where the envelope has been SET beforehand:
-- what passes through Lua is copied twice, which for large values costs many times the SET.
local function store(v, envelope, staged, ttl_ms)
  if envelope ~= '' then
    call('SET', v, envelope, 'PX', ttl_ms)
  else
    call('RENAME', staged, v)
    call('PEXPIRE', v, ttl_ms)
  end
end
