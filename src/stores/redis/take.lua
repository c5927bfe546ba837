-- Takes from several counters of one subject, as one step, by this server's clock.
--
-- KEYS: the counters. ARGV: eight for each of them,
--   "flow",  shadow, want, least, cost, regain, full, unit in microseconds
--   "quota", shadow, want, least, permits, milliseconds to keep it, known use (-1: unknown), 0
-- Answers 1 (charged), 0 (refused, nothing charged) or -1 (a quota has no counter, nothing charged),
-- then for each counter what it grants, what remains, and the microseconds until there is more.
--
-- Every number is a whole one below 2^53, so doubles are exact; text is made by string.format, since
-- tostring rounds to 14 digits.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function flow(key, want, least, cost, regain, full, unit)
  local at, debt = math.floor(now / unit), 0
  local since = at
  local state = redis.call('GET', key)
  if state then
    local s, d, c, u = string.match(state, '^(%d+) (%d+) (%d+) (%d+)$')
    if s then
      since, debt, c, u = tonumber(s), tonumber(d), tonumber(c), tonumber(u)
      -- The rule has changed: what is in use stays in use.
      if u ~= unit then since = math.floor(since * u / unit) end
      if c ~= cost then debt = math.ceil(debt / c * cost) end
    end
  end
  if since < at then debt = math.max(0, debt - (at - since) * regain) end
  debt = math.min(debt, full)
  local granted = math.min(want, math.floor((full - debt) / cost))
  if granted < least then
    local wait = math.ceil((debt + least * cost - full) / regain)
    return 0, math.floor((full - debt) / cost), wait * unit
  end
  debt = debt + granted * cost
  local remaining = math.floor((full - debt) / cost)
  local wait = math.ceil((debt + (remaining + 1) * cost - full) / regain)
  local keep = math.ceil(debt / regain * unit / 1000) + 1000
  return granted, remaining, wait * unit,
    string.format('%.0f %.0f %.0f %.0f', at, debt, cost, unit), math.min(keep, 1e13)
end

local function quota(key, want, least, permits, keep, known)
  local state = redis.call('GET', key)
  local used = known
  if state then used = math.max(tonumber(state), known) end
  if used < 0 then return nil end
  local left = math.max(permits - used, 0)
  local granted = math.min(want, left)
  if granted < least then return 0, left, 0 end
  used = math.max(used + granted, 0)
  return granted, math.max(permits - used, 0), 0, string.format('%.0f', used), keep
end

local answer, writes, charged = { 1 }, {}, true
for i, key in ipairs(KEYS) do
  local a = {}
  for j = 1, 8 do a[j] = ARGV[(i - 1) * 8 + j] end
  local count = a[1] == 'flow' and flow or quota
  local granted, remaining, wait, text, keep = count(key, tonumber(a[3]), tonumber(a[4]),
    tonumber(a[5]), tonumber(a[6]), tonumber(a[7]), tonumber(a[8]))
  if not granted then return { -1 } end
  if text then
    writes[#writes + 1] = { key, text, keep }
  elseif a[2] == '0' then
    charged = false
  end
  answer[#answer + 1] = granted
  answer[#answer + 1] = remaining
  answer[#answer + 1] = wait
end
if not charged then
  answer[1] = 0
  return answer
end
for _, write in ipairs(writes) do
  redis.call('SET', write[1], write[2], 'PX', string.format('%.0f', write[3]))
end
return answer
