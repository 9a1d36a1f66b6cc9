-- Answers begin with one of these. TOGETHER: how many of the requests fit, the place of the ceiling that refuses the
-- others, and what the ceilings held before; ONE: likewise of one. ADMITTED: without meaning twice, what they hold.
-- Where leases hold something of a ceiling, LENT is added to these three, and what they hold of each follows. Before
-- all answers of a shard stand how many leases were presumed, how much of what had been is given back, and how many
-- events were lost.
local TOGETHER, ONE, ADMITTED, STALE, BURIED, TAKEN_BACK, REPORTED, HEARD, PRESUMED_DUE = 0, 1, 2, 3, 4, 5, 6, 7, 8
local LENT = 16

-- Operations. Each kind is read first, so that a batch knows what it needs, and decided later; both walk through the
-- values from a place on and return the place behind. What the reading has put into `names` and `asked`, the deciding
-- finds there in the same order, behind `named` and `answered`.

local function reply(shard, ...)
  for _, value in ipairs({ ... }) do shard.answers[#shard.answers + 1] = value end
end

-- Cancels are 'C', page and last byte of the id, attempt: -1 takes back whatever was or will be counted, else only what
-- belongs to that attempt.
local function read_cancel(shard, at)
  want_page(shard, shard.values[at + 1])
  return at + 4
end

local function cancel(shard, at)
  local page, last_byte, attempt = shard.pages[shard.values[at + 1]], shard.values[at + 2], shard.values[at + 3]
  reply(shard, TAKEN_BACK, take_back(shard, page, last_byte, attempt, attempt == -1 and ATTEMPT_MAX or attempt))
  return at + 4
end

-- Asks are 'A', application, its version, place of service and usage in their lists, whether it counts, whether an
-- earlier ask of it may have, attempt, number of requests that ask for just this, number of values that name them, and
-- these: page and ascending last bytes of some, then of others.
local function read_ask(shard, at)
  local values, asked = shard.values, shard.asked
  local application = values[at + 1]
  asked[#asked + 1] = application
  name_counters(shard, application, shard.usages[values[at + 4]].fields)
  local behind = at + 10 + values[at + 9]
  for place = at + 10, behind - 1, 2 do want_page(shard, values[place]) end
  return behind
end

-- Puts what the counter of each ceiling holds behind a place of the answers. Returns how often a usage fits, up to
-- `wanted` times, the place of the ceiling that refuses one more, and what leases hold, if there are any. Notes whether
-- one of the ceilings may come to a step of its alerts.
local function fit(shard, named, usage, wanted, behind, leases)
  local names, counters, minute, answers = shard.names, shard.counters, shard.minute, shard.answers
  local ceilings, values, sets = usage.ceilings, usage.values, usage.sets
  local fitting, refusing, place_of_ceiling, held = wanted, 0, 0, leases and {}
  local lowest, may_alert = usage.lowest, false
  for at = 1, #ceilings, 3 do
    local place, period, max = ceilings[at], ceilings[at + 1], ceilings[at + 2]
    local name, value = names[named + place], values[place]
    local counter = counters[name]
    local used = counter[CHANGED_AT] == minute and counter[period] or find(shard, name, period, minute) or 0
    local room = max - (sets[place] and 0 or used)
    if leases then
      local lent = held_of(leases, usage.fields[place], period, windows_of(minute)[period])
      held[place_of_ceiling + 1] = lent
      -- Leases never exceed a limit: nothing more asks only what is used.
      if value > 0 or sets[place] then room = room - lent end
    end
    local times = room < value and 0 or value > 0 and math.floor(room / value) or wanted
    if times < fitting then fitting, refusing = times, place_of_ceiling end
    place_of_ceiling = place_of_ceiling + 1
    local most = used + value * wanted
    if most >= lowest[place_of_ceiling] and comes_to_step(usage, place_of_ceiling, used, most) then may_alert = true end
    answers[behind + place_of_ceiling] = used
  end
  shard.may_alert = may_alert
  return fitting, refusing, held
end

-- Answers with how often a usage fits and what the ceilings hold; returns how often.
local function answer(shard, kind, named, usage, wanted, leases)
  local answers = shard.answers
  local n = #answers
  -- In their order, or Lua would not keep them as a list.
  answers[n + 1], answers[n + 2], answers[n + 3] = kind, 0, 0
  local fitting, refusing, held = fit(shard, named, usage, wanted, n + 3, leases)
  answers[n + 2], answers[n + 3] = fitting, refusing
  local most = 0
  for place = 1, held and #held or 0 do most = math.max(most, held[place]) end
  if most > 0 then
    answers[n + 1] = kind + LENT
    for place = 1, #held do answers[#answers + 1] = held[place] end
  end
  return fitting
end

local function answer_stale(shard, application, held_version, held_service)
  local record = held_version and redis.call('HGET', shard.base .. ':records', application)
  reply(shard, STALE, held_version, record or false, held_service)
end

-- Decides one request by itself.
local function decide(shard, ask, page, last_byte)
  if not ask.is_current then
    -- Judged anew, it may be refused: what an earlier attempt counted must not stay.
    if ask.looked_up then take_back(shard, page, last_byte, -1, ask.attempt - 1) end
    return answer_stale(shard, ask.application, ask.held_version, ask.held_service)
  end
  -- Even a first attempt may come after a later one, or after it was taken back.
  local known = (ask.counts or ask.looked_up) and known_of(page, last_byte)
  if known then
    local owner, application = recall(known)
    if application then
      -- The latest attempt owns the outcome: taking back an earlier one must not touch it.
      if ask.attempt > owner then
        remember(shard, page, string.char(last_byte), struct.pack('<I4', ask.attempt) .. string.sub(known, 5))
      end
      return answer(shard, ADMITTED, ask.named, ask.usage, 1, ask.leases)
    elseif ask.attempt <= owner then
      return reply(shard, BURIED)
    end
  end
  if answer(shard, ONE, ask.named, ask.usage, 1, ask.leases) == 1 and ask.counts then
    local changes = count_and_tell(shard, ask.application, ask.named, ask.usage, 1, shard.may_alert)
    local record = record_of(shard, ask.attempt, ask.application, ask.usage, changes)
    remember(shard, page, string.char(last_byte), record)
  end
end

-- Whether anything is known of the requests of an ask, or one is named twice.
local function knows_any(shard, first, last)
  local values, pages = shard.values, shard.pages
  for place = first, last, 2 do
    local page, last_bytes = pages[values[place]], values[place + 1]
    local lowest = string.byte(last_bytes)
    if page.asked == first and lowest <= page.asked_highest then return true end
    page.asked, page.asked_highest = first, string.byte(last_bytes, -1)
    if lowest <= page.highest then
      for byte = 1, #last_bytes do
        if known_of(page, string.byte(last_bytes, byte)) then return true end
      end
    end
  end
  return false
end

local function decide_ask(shard, at)
  local values, held, answered, named = shard.values, shard.held, shard.answered + 1, shard.named
  local service, usage, counts = values[at + 3], shard.usages[values[at + 4]], values[at + 5] == 1
  local attempt, wanted, first = values[at + 7], values[at + 8], at + 10
  local last, leases = first + values[at + 9] - 1, shard.leases[values[at + 1]]
  local is_current = held[answered] == values[at + 2] and held[service] == shard.service_versions[service]
  shard.named, shard.answered = named + #usage.fields, answered
  -- Those of which nothing is known, and that only add, less than counters hold, are counted together: as many as fit.
  local only_adds = counts and not usage.has_set and usage.value_max * wanted <= COUNT_MAX
  if is_current and only_adds and not knows_any(shard, first, last) then
    local fitting = answer(shard, TOGETHER, named, usage, wanted, leases)
    if fitting > 0 then
      count_and_tell(shard, values[at + 1], named, usage, fitting, shard.may_alert)
      local record = record_of(shard, attempt, values[at + 1], usage)
      local left = fitting
      for place = first, last, 2 do
        local last_bytes = values[place + 1]
        if #last_bytes > left then last_bytes = string.sub(last_bytes, 1, left) end
        if left > 0 then remember(shard, shard.pages[values[place]], last_bytes, record) end
        left = left - #last_bytes
      end
    end
    return last + 1
  end
  local ask = {
    application = values[at + 1], usage = usage, counts = counts, looked_up = values[at + 6] == 1, attempt = attempt,
    named = named, is_current = is_current, held_version = held[answered], held_service = held[service],
    leases = leases,
  }
  for place = first, last, 2 do
    local page, last_bytes = shard.pages[values[place]], values[place + 1]
    for byte = 1, #last_bytes do decide(shard, ask, page, string.byte(last_bytes, byte)) end
  end
  return last + 1
end

-- Reports are 'R', or 'G' where they give back, idempotency id, number of entries, and for each the application, the place of its usage, and minute
-- and expiries of the windows, or false twice where the usage is of now.
local function read_report(shard, at)
  local values = shard.values
  local behind = at + 3 + 4 * values[at + 2]
  for entry = at + 3, behind - 1, 4 do
    name_counters(shard, values[entry], shard.usages[values[entry + 1]].fields)
  end
  return behind
end

-- How much of a usage that was just counted lies beyond limits.
local function beyond(shard, named, usage, minute)
  local ceilings, most = usage.ceilings, 0
  for at = 1, #ceilings, 3 do
    local place = ceilings[at]
    local used = find(shard, shard.names[named + place], ceilings[at + 1], minute) or 0
    most = math.max(most, math.min(used - ceilings[at + 2], usage.values[place]))
  end
  return most
end

local function report(shard, at)
  local values = shard.values
  local key, behind = shard.base .. ':report:' .. values[at + 1], at + 3 + 4 * values[at + 2]
  local is_new, over = redis.call('SET', key, 1, 'NX', 'PX', REPORT_KEPT_MS), 0
  for entry = at + 3, behind - 1, 4 do
    local usage = shard.usages[values[entry + 1]]
    if is_new then
      local minute, expiries = values[entry + 2] or nil, values[entry + 3] or nil
      count_and_tell(shard, values[entry], shard.named, usage, 1, true, minute, expiries)
      over = over + beyond(shard, shard.named, usage, values[entry + 2] or shard.minute)
    end
    shard.named = shard.named + #usage.fields
  end
  reply(shard, REPORTED, is_new and 1 or 0, over)
  return behind
end

-- Messages about leases are 'L', application, its version, place of the service, the lease's id, its holder, round,
-- whether it opens one (1: now, 2: next), whether it closes it, incarnation (0: none is known) and moment that were
-- declared, how long it lasts in ms, number of lines, and for each the place of a unit, what is spent, granted, wanted,
-- and least of use.
local LEASE_HEAD, LEASE_LINE = 13, 5

local function behind_lease(values, at) return at + LEASE_HEAD + LEASE_LINE * values[at + LEASE_HEAD - 1] end

local function read_lease(shard, at)
  local values = shard.values
  local behind = behind_lease(values, at)
  shard.asked[#shard.asked + 1] = values[at + 1]
  shard.fields[#shard.fields + 1] = tombstone(values[at + 4])
  shard.incarnation = shard.incarnation or incarnation()
  for line = at + LEASE_HEAD, behind - 1, LEASE_LINE do
    name_counters(shard, values[at + 1], shard.usages[values[line]].fields)
  end
  return behind
end

local function message_of(shard, at)
  local values = shard.values
  local message = {
    application = values[at + 1], id = values[at + 4], holder = values[at + 5], round = values[at + 6],
    opens = values[at + 7], closes = values[at + 8] == 1, incarnation = values[at + 9], moment = values[at + 10],
    lasts_ms = values[at + 11], wishes = {},
  }
  for line = at + LEASE_HEAD, behind_lease(values, at) - 1, LEASE_LINE do
    message.wishes[#message.wishes + 1] = {
      unit = shard.usages[values[line]].packed, spent = values[line + 1], granted = values[line + 2],
      want = values[line + 3], least = values[line + 4],
    }
  end
  return message
end

-- Answered with the incarnation and what the message comes to; where a lease is out, also with the clock, the lease,
-- and what is used of each limit of each line, or held by others.
local function hear_lease(shard, at)
  local values, held, message = shard.values, shard.held, message_of(shard, at)
  local application, service = message.application, values[at + 3]
  shard.answered = shard.answered + 1
  for _, wish in ipairs(message.wishes) do shard.named = shard.named + #usage_of(wish.unit).fields end
  local version = held[shard.answered]
  local is_current = version == values[at + 2] and held[service] == shard.service_versions[service]
  if not is_current and not message.closes then
    answer_stale(shard, application, version, held[service])
  else
    shard.leases[application] = shard.leases[application] or {}
    local came_to, lease = hear(shard, message)
    reply(shard, HEARD, shard.incarnation, came_to)
    if lease then
      reply(shard, shard.clock_ms, cmsgpack.pack(lease))
      for line = LINES, #lease, 3 do
        visit_limits(shard, application, lease, line, lease, function(taken)
          reply(shard, math.min(taken, COUNT_MAX))
        end)
      end
    end
  end
  return behind_lease(values, at)
end

-- Presuming is 'P' and of how many applications at most; answered with of how many it was.
local function read_presume(_, at) return at + 2 end

local function presume_some(shard, at)
  reply(shard, PRESUMED_DUE, presume_due(shard, shard.values[at + 1]), lent_count(shard))
  return at + 2
end

-- What is given back is taken from windows that are there; it tells of nothing.
local function give_back(shard, at)
  local values = shard.values
  local key, behind = shard.base .. ':report:' .. values[at + 1], at + 3 + 4 * values[at + 2]
  local is_new = redis.call('SET', key, 1, 'NX', 'PX', GIVEN_BACK_KEPT_MS)
  for entry = at + 3, behind - 1, 4 do
    local usage, minute = shard.usages[values[entry + 1]], values[entry + 2] or shard.minute
    for place = 1, is_new and #usage.fields or 0 do
      local name = shard.names[shard.named + place]
      for period = usage.firsts[place], 7 do lower(shard, name, period, minute, usage.values[place]) end
    end
    shard.named = shard.named + #usage.fields
  end
  reply(shard, REPORTED, is_new and 1 or 0, 0)
  return behind
end

local READ = { A = read_ask, R = read_report, G = read_report, C = read_cancel, L = read_lease, P = read_presume }
local DECIDE = { A = decide_ask, R = report, G = give_back, C = cancel, L = hear_lease, P = presume_some }

-- values: number of services, their names and versions; number of usages, their MessagePack; operations.
local function read_shard(base, packed, writer, number, now_ms, clock_ms)
  local values = cmsgpack.unpack(packed)
  local shard = {
    base = base, values = values, writer = 'writer:' .. writer, number = number, now_ms = now_ms,
    clock_ms = clock_ms, minute = math.floor(now_ms / 60000), service_versions = {}, usages = {}, operations_at = 0,
    names = {}, counters = {}, named = 0, asked = {}, held = {}, answered = values[1],
    fields = { 'since', 'writer:' .. writer }, recent = {}, written = {}, pages = {}, written_pages = {},
    answers = { 0, 0, 0 },
    leases = {}, lent = {},
  }
  local at = 2
  for place = 1, values[1] do
    shard.asked[place], shard.service_versions[place], at = values[at], values[at + 1], at + 2
  end
  for place = 1, values[at] do shard.usages[place] = usage_of(values[at + place]) end
  shard.operations_at = at + values[at] + 1
  at = shard.operations_at
  while at <= #values do at = READ[values[at]](shard, at) end
  read_recent(shard)
  return shard
end

local function read_versions(shard)
  local asked, held = shard.asked, shard.held
  in_pieces(1, #asked, function(first, last)
    local found = redis.call('HMGET', shard.base .. ':versions', unpack(asked, first, last))
    for place = first, last do held[place] = found[place - first + 1] end
  end)
end

local function decide_shard(shard)
  read_versions(shard)
  read_counters(shard, 1)
  if may_lend(shard) then read_leases(shard, shard.asked, shard.values[1] + 1) end
  local values, at = shard.values, shard.operations_at
  while at <= #values do at = DECIDE[values[at]](shard, at) end
  write_counters(shard)
  write_leases(shard)
  write_recent(shard)
  return cmsgpack.pack(shard.answers)
end

-- args: writer, number, now in ms, and for each shard what it is to do. Answers for each shard with what came of it.
local function step(keys, args)
  local number, now_ms = tonumber(args[2]), tonumber(args[3])
  local clock_ms = server_ms()
  local skew_ms = clock_ms - now_ms
  if math.abs(skew_ms) > CLOCK_SKEW_MS_MAX then
    return redis.error_reply(string.format('WEIRCLOCK %.0f', skew_ms))
  end
  local shards = {}
  for place, base in ipairs(keys) do
    local shard = read_shard(base, args[place + 3], args[1], number, now_ms, clock_ms)
    -- Before anything is written, since a batch is done as a whole or not at all.
    if tonumber(shard.recent[shard.writer] or 0) >= number then
      return redis.error_reply('WEIRFENCED a later batch of this writer was seen')
    end
    shards[place] = shard
  end
  local answers = {}
  for place, shard in ipairs(shards) do answers[place] = decide_shard(shard) end
  return answers
end

-- A field this long makes a hash of :versions at once. Up to 512 fields would be a list, searched from its start.
local NO_LIST = '-----------------------------------------------------------------'

-- args: revision, then triples (application, version, record); version '' removes it; then '' and pairs
-- (service, version), version '' removing it. A shard never goes back to a lower revision.
local function publish(keys, args)
  local base, revision = keys[1], tonumber(args[1])
  local held_revision = tonumber(redis.call('GET', base .. ':revision') or 0)
  if held_revision > revision then return redis.error_reply(string.format('WEIROLDER %.0f', held_revision)) end
  redis.call('SET', base .. ':revision', string.format('%.0f', revision))
  redis.call('HSET', base .. ':versions', NO_LIST, '')
  local at = 2
  while args[at] ~= '' do
    if args[at + 1] == '' then
      redis.call('HDEL', base .. ':versions', args[at])
      redis.call('HDEL', base .. ':records', args[at])
    else
      redis.call('HSET', base .. ':versions', args[at], args[at + 1])
      redis.call('HSET', base .. ':records', args[at], args[at + 2])
    end
    at = at + 3
  end
  for pair = at + 1, #args, 2 do
    if args[pair + 1] == '' then
      redis.call('HDEL', base .. ':versions', args[pair])
    else
      redis.call('HSET', base .. ':versions', args[pair], args[pair + 1])
    end
  end
  return 1
end

redis.register_function('weir_step_@SUFFIX@', step)
redis.register_function('weir_publish_@SUFFIX@', publish)
