-- Puts a dead letter back into the lane's queue, as its newest record. Earlier ones of its key are named in front of it: it has
-- overtaken them, and they go.
-- KEYS v l d w L; ARGV ring nonce wid id1..idn. {0, gen} there is no such letter, or it has no key or envelope and
-- stays where it is; {2, gen} a newer write of its key waits in the queue: nothing done; {1, gen, epoch, seq, number of letters that are none any more}.
-- include lane.lua
-- include announce.lua
-- include waiting.lua
-- include changing.lua
-- include field.lua
local v, l, d, w = unpack(KEYS)
if is_changing(m[4]) or is_changing(ARGV[1]) then return redis.error_reply('NCTOPO ' .. m[4]) end -- as in set
local found, gone = call('XRANGE', d, ARGV[#ARGV], ARGV[#ARGV]), 0
local letter = found[1] and found[1][2] or {}
local key, envelope = field(letter, 'k'), field(letter, 'e')
if not key or not envelope then return {0, m[3]} end
local mark = call('GET', l)
if waiting(mark, w) then return {2, m[3]} end
-- A change that was made under a hold waits without a mark: it is looked for, a page at a time.
local from, page = '-', nil
repeat
  page = call('XRANGE', w, from, '+', 'COUNT', 500)
  for _, record in ipairs(page) do
    if record[2][2] == key then return {2, m[3]} end
  end
  if page[1] then from = '(' .. page[#page][1] end
until #page < 500
local id = call('XADD', w, '*', 'k', key, 'e', envelope)
for i = 4, #ARGV do
  gone = gone + call('XDEL', d, ARGV[i])
end
call('UNLINK', v)
if not mark or sub(mark, 1, 1) ~= 'H' then call('SET', l, 'P' .. id) end
return {1, m[3], m[1], announce('I', ARGV[3], v), gone}
