-- Leases: the rules of `weir_core::lease::ledger`, which says why they are as they are.
--
-- In memory and in :leases a lease is {id, holder, round, moment, deadline, is presumed (1 or 0), then for each of its
-- lines the usage of a unit, what is granted and what is settled}. Moments are of Redis' own clock, since a lease may
-- be renewed through any listener.

local ROUND, MOMENT, DEADLINE, PRESUMED, LINES = 3, 4, 5, 6, 7
local GRACE_MS, CORRECTABLE_MS, AHEAD_MAX_MS, LASTS_MAX_MS = 1000, 72 * 3600000, 2000, 603000

-- What a message comes to.
local GRANTED, CLOSED, SHORT = 0, 1, 2

-- One life of this Redis: a replica that takes over gives itself another id.
local function incarnation()
  local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  return math.max(tonumber(string.sub(id, 1, 12), 16), 1)
end

local function window_of(ms, period) return windows_of(math.floor(ms / 60000))[period] end

local function unsettled(lease, line)
  return #usage_of(lease[line]).ceilings > 0 and math.max(lease[line + 1] - lease[line + 2], 0) or 0
end

-- How much a unit adds to a counter, as far as that is limited.
local function weight_of(usage, field, period)
  local ceilings, weight = usage.ceilings, 0
  for at = 1, #ceilings, 3 do
    local place = ceilings[at]
    if ceilings[at + 1] == period and usage.fields[place] == field then weight = weight + usage.values[place] end
  end
  return weight
end

-- What an application's leases, except one, hold of a counter.
local function held_of(leases, field, period, window, except)
  local held = 0
  for _, lease in ipairs(leases) do
    if lease ~= except and lease[PRESUMED] == 0 and window_of(lease[MOMENT], period) == window then
      for line = LINES, #lease, 3 do
        held = held + unsettled(lease, line) * weight_of(usage_of(lease[line]), field, period)
      end
    end
  end
  return math.min(held, COUNT_MAX)
end

-- Makes sure that the counters of a lease's units are read.
local function read_units(shard, application, lease)
  local names, before = shard.names, #shard.names
  for line = LINES, #lease, 3 do
    for _, field in ipairs(usage_of(lease[line]).fields) do
      local name = application .. field
      if not shard.counters[name] then names[#names + 1] = name end
    end
  end
  read_counters(shard, before + 1)
end

-- Counts a unit so many times in the windows of a lease, or takes it back; its counters are read.
local function settle_unit(shard, application, lease, usage, times)
  local named, minute = #shard.names, math.floor(lease[MOMENT] / 60000)
  name_counters(shard, application, usage.fields)
  if times >= 0 then return count_and_tell(shard, application, named, usage, times, true, minute) end
  for place = 1, #usage.fields do
    for period = usage.firsts[place], 7 do
      lower(shard, shard.names[named + place], period, minute, -times * usage.values[place])
    end
  end
end

-- Settles each line of a lease by what `spent_of` says; what is counted comes before what is taken back.
local function settle(shard, application, lease, spent_of)
  local more = {}
  for line = LINES, #lease, 3 do
    local spent = spent_of(line)
    more[line], lease[line + 2] = spent - lease[line + 2], spent
  end
  for sign = 1, -1, -2 do
    for line = LINES, #lease, 3 do
      if more[line] * sign > 0 then settle_unit(shard, application, lease, usage_of(lease[line]), more[line]) end
    end
  end
end

local function due_of(lease)
  return lease[PRESUMED] == 1 and lease[DEADLINE] + CORRECTABLE_MS or lease[DEADLINE]
end

local function tombstone(id) return 'lease:' .. id end

-- Counts the leases of an application whose time is over, and forgets those that cannot be corrected any more.
local function presume(shard, application)
  local leases, kept = shard.leases[application], {}
  for _, lease in ipairs(leases) do
    local is_over = due_of(lease) <= shard.clock_ms
    if is_over then shard.lent[application] = true end
    if is_over and lease[PRESUMED] == 0 then
      read_units(shard, application, lease)
      settle(shard, application, lease, function(line) return lease[line + 2] + unsettled(lease, line) end)
      lease[PRESUMED] = 1
      shard.answers[1] = shard.answers[1] + 1
    elseif is_over then
      remember_lease(shard, tombstone(lease[1]))
    end
    if not is_over or due_of(lease) > shard.clock_ms then kept[#kept + 1] = lease end
  end
  shard.leases[application] = kept
end

-- Reads the leases of applications in a list from a place on, and presumes what is over.
local function read_leases(shard, applications, from)
  in_pieces(from, #applications, function(first, last)
    local found = redis.call('HMGET', shard.base .. ':leases', unpack(applications, first, last))
    for place = first, last do
      local application, packed = applications[place], found[place - first + 1]
      if packed and not shard.leases[application] then
        shard.leases[application] = cmsgpack.unpack(packed)
        presume(shard, application)
      end
    end
  end)
end

-- Presumes what is over of so many applications at most, and says of how many it was.
local function presume_due(shard, most)
  local now = string.format('%.0f', shard.clock_ms)
  local due = redis.call('ZRANGEBYSCORE', shard.base .. ':due', '-inf', now, 'LIMIT', 0, most)
  read_leases(shard, due, 1)
  for _, application in ipairs(due) do
    shard.leases[application] = shard.leases[application] or {}
    shard.lent[application] = true
  end
  return #due
end

-- Of how many applications something is out on lease and not over yet; what was presumed is due much later.
local function lent_count(shard)
  local from, to = string.format('(%.0f', shard.clock_ms), string.format('%.0f', shard.clock_ms + LASTS_MAX_MS)
  return redis.call('ZCOUNT', shard.base .. ':due', from, to)
end

local function write_leases(shard)
  for application in pairs(shard.lent) do
    local leases = shard.leases[application]
    if #leases > 0 then
      local due = math.huge
      for _, lease in ipairs(leases) do due = math.min(due, due_of(lease)) end
      redis.call('HSET', shard.base .. ':leases', application, cmsgpack.pack(leases))
      redis.call('ZADD', shard.base .. ':due', string.format('%.0f', due), application)
    else
      redis.call('HDEL', shard.base .. ':leases', application)
      redis.call('ZREM', shard.base .. ':due', application)
    end
  end
end

-- A period of a minute or an hour: the shortest that a lease counts in, in milliseconds.
local function shortest_ms(lease)
  for line = LINES, #lease, 3 do
    for _, period in ipairs(usage_of(lease[line]).firsts) do
      if period == 1 then return 60000 end
    end
  end
  return 3600000
end

-- How many gateways hold leases of an application, each run of one by itself: its name is in front of a lease's.
local function holders_of(leases)
  local seen, holders = {}, 0
  for _, lease in ipairs(leases) do
    local boot = string.sub(lease[1], 1, 16)
    if lease[PRESUMED] == 0 and not seen[boot] then seen[boot], holders = true, holders + 1 end
  end
  return holders
end

-- Calls visit(taken, max, weight) for each limit of a line: what is used of its counter, or held by leases except one.
local function visit_limits(shard, application, lease, line, except, visit)
  local usage, leases, minute = usage_of(lease[line]), shard.leases[application], math.floor(lease[MOMENT] / 60000)
  local ceilings = usage.ceilings
  for at = 1, #ceilings, 3 do
    local field, period = usage.fields[ceilings[at]], ceilings[at + 1]
    local used = find(shard, application .. field, period, minute) or 0
    local held = held_of(leases, field, period, windows_of(minute)[period], except)
    visit(used + held, ceilings[at + 2], weight_of(usage, field, period))
  end
end

-- How many more units of a line fit under all its limits.
local function free_of(shard, application, lease, line)
  local free = COUNT_MAX
  visit_limits(shard, application, lease, line, nil, function(taken, max, weight)
    if weight > 0 then free = math.min(free, math.floor(math.max(max - taken, 0) / weight)) end
  end)
  return free
end

-- Grants what is wanted, as far as it is there and fair, until the lease's next end.
local function extend(shard, message, lease)
  local now_ms, length_ms = shard.clock_ms, shortest_ms(lease)
  local start_ms = math.floor(lease[MOMENT] / length_ms) * length_ms
  local end_ms = math.min(math.max(now_ms, start_ms) + message.lasts_ms, start_ms + length_ms)
  lease[DEADLINE] = end_ms + GRACE_MS
  if end_ms <= now_ms then return end
  local share = 2 * holders_of(shard.leases[message.application])
  for line = LINES, #lease, 3 do
    local wish = message.wishes[(line - LINES) / 3 + 1]
    local settled, piece = lease[line + 2], COUNT_MAX
    local kept = math.max(lease[line + 1] - settled, 0)
    if #usage_of(lease[line]).ceilings > 0 then
      local free = free_of(shard, message.application, lease, line)
      piece = math.min(wish.want, math.floor((free + kept) / share))
    end
    if piece >= wish.least then lease[line + 1] = math.min(settled + math.max(kept, piece), COUNT_MAX) end
  end
end

-- A lease that is not known yet, of the past as far as its round and deadline go.
local function blank(message, moment_ms)
  local lease = { message.id, message.holder, 0, moment_ms, 0, 0 }
  for place, wish in ipairs(message.wishes) do
    local line = LINES + 3 * (place - 1)
    lease[line], lease[line + 1], lease[line + 2] = wish.unit, 0, 0
  end
  return lease
end

local function drop(shard, message, lease)
  local leases = shard.leases[message.application]
  for place, known in ipairs(leases) do
    if known == lease then
      table.remove(leases, place)
      shard.lent[message.application] = true
    end
  end
  remember_lease(shard, tombstone(message.id))
end

-- The last word on a lease: whatever its round, it is believed.
local function close(shard, message, lease)
  local given_back = 0
  settle(shard, message.application, lease, function(line)
    local wish = message.wishes[(line - LINES) / 3 + 1]
    local spent = wish and wish.spent or lease[line + 2]
    given_back = given_back + math.max(lease[line + 2] - spent, 0)
    return spent
  end)
  if lease[PRESUMED] == 1 then shard.answers[2] = shard.answers[2] + given_back end
  drop(shard, message, lease)
  return CLOSED
end

local function renew(shard, message, lease)
  settle(shard, message.application, lease, function(line)
    return message.wishes[(line - LINES) / 3 + 1].spent
  end)
  local is_known = message.incarnation == 0 or message.incarnation == shard.incarnation
  for place, wish in ipairs(message.wishes) do
    local line = LINES + 3 * (place - 1)
    -- From before a fail-over: what was forgotten may be more than what is known, and its holder may have been granted
    -- again since what it says it does without.
    local granted = (is_known and math.min or math.max)(wish.granted, lease[line + 1])
    -- Where the plan limits it since: what was granted without limit must not be held from everybody.
    local is_new = #usage_of(lease[line]).ceilings == 0 and #usage_of(wish.unit).ceilings > 0
    lease[line], lease[line + 1] = wish.unit, is_new and wish.spent or math.max(granted, wish.spent)
  end
  lease[ROUND] = message.round
  extend(shard, message, lease)
  shard.lent[message.application] = true
  return GRANTED, lease
end

-- opens: 1 for the windows of now, 2 for those that begin when the shortest of now ends.
local function open(shard, message)
  local now_ms, lease = shard.clock_ms, blank(message, shard.clock_ms)
  if message.opens == 2 then
    local length_ms = shortest_ms(lease)
    lease[MOMENT] = (math.floor(now_ms / length_ms) + 1) * length_ms
  end
  lease[ROUND] = message.round
  local leases, is_granted = shard.leases[message.application], false
  -- Asked for before a window's end, and come after it, that would be the window after the one that was meant.
  if lease[MOMENT] <= now_ms + AHEAD_MAX_MS then
    leases[#leases + 1] = lease
    extend(shard, message, lease)
    for line = LINES, #lease, 3 do is_granted = is_granted or lease[line + 1] > 0 end
  end
  if not is_granted then
    drop(shard, message, lease)
    return SHORT
  end
  shard.lent[message.application] = true
  return GRANTED, lease
end

-- A fail-over has forgotten the lease, so nothing of it is counted: what was written of it later is forgotten, too.
local function take_over(shard, message)
  local lease = blank(message, message.moment)
  for place, wish in ipairs(message.wishes) do lease[LINES + 3 * (place - 1) + 1] = wish.granted end
  if message.closes then return close(shard, message, lease) end
  local leases = shard.leases[message.application]
  leases[#leases + 1] = lease
  return renew(shard, message, lease)
end

local function is_forgotten(shard, message)
  local closed_since_ms = since_ms_of(shard.older_since) or shard.clock_ms
  return message.incarnation ~= 0 and message.incarnation ~= shard.incarnation
    and message.moment - AHEAD_MAX_MS >= closed_since_ms
end

-- What a message comes to, and the lease that is granted.
local function hear(shard, message)
  local leases, lease = shard.leases[message.application], nil
  for _, known in ipairs(leases) do
    if known[1] == message.id then lease = known end
  end
  if not lease then
    -- From before a fail-over, perhaps: it may have been answered, and the lease be spent and closed since.
    if message.opens > 0 and message.incarnation ~= shard.incarnation then return SHORT end
    local is_closed = shard.recent[tombstone(message.id)]
    if message.opens > 0 and not is_closed and not message.closes then return open(shard, message) end
    if message.opens == 0 and not is_closed and is_forgotten(shard, message) then return take_over(shard, message) end
    -- Closed before, or its opening was lost: should it come yet, it comes too late.
    drop(shard, message, lease)
    return CLOSED
  end
  read_units(shard, message.application, lease)
  if message.closes then return close(shard, message, lease) end
  -- Its holder has to stop, and say what it spent in all.
  if lease[PRESUMED] == 1 then return CLOSED end
  if message.round <= lease[ROUND] or #message.wishes ~= (#lease - LINES + 1) / 3 then return GRANTED, lease end
  return renew(shard, message, lease)
end
