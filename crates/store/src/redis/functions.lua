-- The ledger inside Redis: decides and counts a batch of one shard in one step.
--
-- KEYS[1] is the shard's base, "weir:{17}"; every other key begins with it, so all of them share its slot:
--   :count:<service>/<app>:<window>   hash   metric -> count; expires with its window
--   :applications                     hash   <service>/<app> -> version
--   :records                          hash   <service>/<app> -> record
--   :services                         hash   service -> version
--   :writers                          hash   writer -> "<number of its last batch> <ms>"; field "rotated" -> ms
--   :recent, :recent-older            hash   request id -> how to take it back, or up to which attempt it was
--                                            taken back; two generations
--   :report:<id>                      string idempotency ids, kept ten minutes
-- Numbers are whole, 0 to 2^53 - 1. The script holds no policy: which counters change by how much under which
-- ceilings is computed by the caller.
--
-- @SUFFIX@ is replaced by a hash of this text, since function names are global and versions live side by side.

local COUNT_MAX = 9007199254740991
local CLOCK_SKEW_MS_MAX = 1000
local RECENT_KEPT_MS = 10000
local WRITER_KEPT_MS = 60000
local REPORT_KEPT_MS = 600000

-- An increment: {metric, sets (1) or adds (0), value, first period, period, max, period, max, ...};
-- periods count from 1 (minute) to 7 (eternity).
local METRIC, SETS, VALUE, FIRST, CEILINGS = 1, 2, 3, 4, 5

local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function count_key(base, application, window)
  return base .. ':count:' .. application .. ':' .. window
end

-- What the counter of each ceiling holds.
local function read_used(base, application, windows, increments)
  local used = {}
  for _, increment in ipairs(increments) do
    for at = CEILINGS, #increment, 2 do
      local key = count_key(base, application, windows[increment[at]])
      used[#used + 1] = tonumber(redis.call('HGET', key, increment[METRIC]) or 0)
    end
  end
  return used
end

-- The place of the first ceiling that would be exceeded, or nil.
local function first_exceeded(increments, used)
  local place = 0
  for _, increment in ipairs(increments) do
    for at = CEILINGS, #increment, 2 do
      place = place + 1
      local after = increment[VALUE]
      if increment[SETS] == 0 then after = after + used[place] end
      if after > increment[at + 1] then return place end
    end
  end
end

local function expire(key, at_s)
  if at_s > 0 then redis.call('EXPIREAT', key, at_s) end
end

-- Changes one counter; returns what it holds after, and by how much it changed.
local function change(key, increment, expires_s)
  local metric, value = increment[METRIC], increment[VALUE]
  if increment[SETS] == 1 then
    local before = tonumber(redis.call('HGET', key, metric) or 0)
    redis.call('HSET', key, metric, value)
    expire(key, expires_s)
    return value, value - before
  end
  local after = redis.call('HINCRBY', key, metric, value)
  if after > COUNT_MAX then
    redis.call('HSET', key, metric, COUNT_MAX)
    after = COUNT_MAX
  end
  -- A first increment may have made the key; no other one can have.
  if after == value then expire(key, expires_s) end
  return after, value
end

-- Counts an entry {application, increments, windows, expiries}; the last two default to the batch's.
-- Returns the values of all ceilings after, and appends to `changes`, where given, what it changed.
local function count(base, batch, entry, changes)
  local windows, expiries = entry[3] or batch.windows, entry[4] or batch.expiries
  local used = {}
  for _, increment in ipairs(entry[2]) do
    local after = {}
    if increment[VALUE] > 0 or increment[SETS] == 1 then
      for period = increment[FIRST], 7 do
        local key = count_key(base, entry[1], windows[period])
        local delta
        after[period], delta = change(key, increment, expiries[period])
        if changes then
          changes[#changes + 1] = key
          changes[#changes + 1] = increment[METRIC]
          changes[#changes + 1] = delta
        end
      end
    end
    for at = CEILINGS, #increment, 2 do
      used[#used + 1] = after[increment[at]] or false
    end
  end
  return used
end

local function lower(key, metric, by)
  local held = redis.call('HGET', key, metric)
  -- A window that is gone, or a counter that was never raised, has nothing to give back.
  if held then
    local after = math.min(math.max(tonumber(held) - by, 0), COUNT_MAX)
    redis.call('HSET', key, metric, after)
  end
end

local function has_set(entries)
  for _, entry in ipairs(entries) do
    for _, increment in ipairs(entry[2]) do
      if increment[SETS] == 1 then return true end
    end
  end
  return false
end

-- Counts entries and remembers how to take them back. What only adds is remembered as it came; a set value needs
-- to know what it replaced.
local function count_and_remember(base, batch, id, attempt, entries, raw)
  local changes = has_set(entries) and { attempt } or nil
  local used
  for _, entry in ipairs(entries) do
    used = count(base, batch, entry, changes)
  end
  redis.call('HSET', base .. ':recent', id, changes and cmsgpack.pack(changes) or (batch.head .. raw))
  return used
end

-- An answer of a kind with the values of all ceilings. (`unpack` takes only so many values.)
local function answer(kind, more, used)
  local parts = { kind, more }
  for _, value in ipairs(used) do parts[#parts + 1] = value end
  return parts
end

local function find_recent(base, id)
  for _, generation in ipairs({ ':recent', ':recent-older' }) do
    local record = redis.call('HGET', base .. generation, id)
    if record then return base .. generation, record end
  end
end

-- Place of the attempt in an ask.
local ATTEMPT = 9

-- What is known of a request: a table {generation, head, ask or report, owner}, or nil. Without an ask or report the
-- head is {attempt, key, metric, change, ...}; {attempt} alone: it was taken back up to that attempt.
local function recall(base, id)
  local generation, record = find_recent(base, id)
  if not generation then return nil end
  local head, counted = cmsgpack.unpack(record)
  local known = { generation = generation, head = head, counted = counted }
  known.owner = counted and (counted[1] == 'A' and counted[ATTEMPT] or 0) or head[1]
  known.is_buried = not counted and #head == 1
  return known
end

local function undo(base, known)
  local head, counted = known.head, known.counted
  if not counted then
    for at = 2, #head, 3 do lower(head[at], head[at + 1], head[at + 2]) end
    return
  end
  for _, entry in ipairs(counted[4]) do
    for _, increment in ipairs(entry[2]) do
      for period = increment[FIRST], 7 do
        local window = entry[3] and entry[3][period] or head[period]
        lower(count_key(base, entry[1], window), increment[METRIC], increment[VALUE])
      end
    end
  end
  if counted[1] == 'R' and counted[3] ~= '' then redis.call('DEL', base .. ':report:' .. counted[3]) end
end

-- Takes back what was counted for a request, of one attempt or (-1) of any. Attempts up to `last` that come later
-- count nothing. Returns 1 if something was counted.
local function take_back(base, id, attempt, last)
  local known, taken = recall(base, id), 0
  if known and known.is_buried then
    last = math.max(last, known.owner)
  elseif known then
    -- It belongs to another attempt.
    if attempt ~= -1 and attempt ~= known.owner then return 0 end
    undo(base, known)
    taken = 1
  end
  if known then redis.call('HDEL', known.generation, id) end
  if last >= 0 then redis.call('HSET', base .. ':recent', id, cmsgpack.pack({ last })) end
  return taken
end

-- Cancels are {'C', id, attempt}: -1 takes back whatever was or will be counted, else only what belongs to that
-- attempt.
local function cancel(base, _, op)
  local last = op[3] == -1 and COUNT_MAX or op[3]
  return { 3, take_back(base, op[2], op[3], last) }
end

-- The versions in force of an ask's application and service, and whether the ask was judged by them.
local function versions(base, op)
  local application = redis.call('HGET', base .. ':applications', op[4][1][1])
  local service = redis.call('HGET', base .. ':services', op[6])
  return application, service, application == op[5] and service == op[7]
end

-- Asks are {'A', id, looked up, {entry}, application version, service, service version, counts, attempt}. A record of
-- a counted one is {window names} and the ask itself, or {attempt, key, metric, change, ...} alone.
local function decide(base, batch, op, raw)
  local entry = op[4][1]
  local application, increments = entry[1], entry[2]
  local version, service_version, is_current = versions(base, op)
  if not is_current then
    -- Judged anew, it may be refused: what an earlier attempt counted must not stay.
    if op[3] == 1 then take_back(base, op[2], -1, op[ATTEMPT] - 1) end
    return { 2, version, version and redis.call('HGET', base .. ':records', application), service_version }
  end
  local counts = op[8] == 1 and #increments > 0
  -- Even a first attempt may come after a later one, or after it was taken back.
  local known = (counts or op[3] == 1) and recall(base, op[2])
  if known and known.is_buried then
    if op[ATTEMPT] <= known.owner then return { 5 } end
  elseif known then
    -- The latest attempt owns the outcome: taking back an earlier one must not touch it.
    if op[ATTEMPT] > known.owner then
      local head, counted = known.head, known.counted
      if counted then counted[ATTEMPT] = op[ATTEMPT] else head[1] = op[ATTEMPT] end
      local packed = cmsgpack.pack(head)
      redis.call('HSET', known.generation, op[2], counted and (packed .. cmsgpack.pack(counted)) or packed)
    end
    return answer(0, nil, read_used(base, application, batch.windows, increments))
  end
  local used = read_used(base, application, batch.windows, increments)
  local exceeded = first_exceeded(increments, used)
  if exceeded then return answer(1, exceeded - 1, used) end
  if counts then
    local after = count_and_remember(base, batch, op[2], op[ATTEMPT], op[4], raw)
    for place, value in ipairs(after) do
      if value then used[place] = value end
    end
  end
  return answer(0, nil, used)
end

-- How often all increments of an ask fit one after the other, up to `wanted` times; nil when the sum is too large to
-- be counted at once.
local function count_fitting(increments, used, wanted)
  local fitting, place = wanted, 0
  for _, increment in ipairs(increments) do
    local value = increment[VALUE]
    if value * wanted > COUNT_MAX then return nil end
    for at = CEILINGS, #increment, 2 do
      place = place + 1
      local room = increment[at + 1] - used[place]
      if room < value then
        fitting = 0
      elseif value > 0 then
        fitting = math.min(fitting, math.floor(room / value))
      end
    end
  end
  return fitting
end

-- Whether any of these requests is known.
local function knows_any(base, ids)
  for _, generation in ipairs({ ':recent', ':recent-older' }) do
    for _, record in ipairs(redis.call('HMGET', base .. generation, unpack(ids))) do
      if record then return true end
    end
  end
  return false
end

-- First attempts of several requests that ask for the same: counted together, as many as fit. Answers how many that
-- is, which ceiling refuses the others, and what the ceilings held before.
local function decide_together(base, batch, op, ids)
  local application, increments = op[4][1][1], op[4][1][2]
  local _, _, is_current = versions(base, op)
  local used = is_current and read_used(base, application, batch.windows, increments)
  local fitting = is_current and count_fitting(increments, used, #ids)
  if not fitting or knows_any(base, ids) then
    local answers = {}
    for place, id in ipairs(ids) do
      op[2] = id
      answers[place] = decide(base, batch, op, cmsgpack.pack(op))
    end
    return { 7, answers }
  end
  local exceeded
  if fitting > 0 then
    local raw, records = batch.head .. cmsgpack.pack(op), {}
    for place = 1, fitting do
      records[2 * place - 1] = ids[place]
      records[2 * place] = raw
    end
    redis.call('HSET', base .. ':recent', unpack(records))
    local place, after = 0, {}
    for _, increment in ipairs(increments) do
      for _ = CEILINGS, #increment, 2 do
        place = place + 1
        after[place] = used[place] + increment[VALUE] * fitting
      end
    end
    exceeded = fitting < #ids and first_exceeded(increments, after)
    for _, increment in ipairs(increments) do increment[VALUE] = increment[VALUE] * fitting end
    count(base, batch, op[4][1])
  else
    exceeded = first_exceeded(increments, used)
  end
  local parts = { 6, fitting, exceeded and exceeded - 1 or 0 }
  for _, value in ipairs(used) do parts[#parts + 1] = value end
  return parts
end

-- Reports are {'R', id, idempotency id or '', entries}.
local function report(base, batch, op, raw)
  if op[3] ~= '' and not redis.call('SET', base .. ':report:' .. op[3], 1, 'NX', 'PX', REPORT_KEPT_MS) then
    return { 4, 0 }
  end
  count_and_remember(base, batch, op[2], 0, op[4], raw)
  return { 4, 1 }
end

-- Every ten seconds the recent requests grow a generation older, and writers long gone are forgotten.
local function rotate(base, now_ms)
  if redis.call('EXISTS', base .. ':recent') == 1 then
    redis.call('RENAME', base .. ':recent', base .. ':recent-older')
    redis.call('EXPIRE', base .. ':recent-older', 3600)
  end
  local writers = redis.call('HGETALL', base .. ':writers')
  for at = 1, #writers, 2 do
    local seen_ms = string.match(writers[at + 1], ' (%d+)$')
    if seen_ms and now_ms - tonumber(seen_ms) > WRITER_KEPT_MS then
      redis.call('HDEL', base .. ':writers', writers[at])
    end
  end
  redis.call('HSET', base .. ':writers', 'rotated', string.format('%.0f', now_ms))
end

-- args: writer, number, now in ms, 7 window names, 7 expiries in s, operations.
local function step(keys, args)
  local base, writer, number, now_ms = keys[1], args[1], tonumber(args[2]), tonumber(args[3])
  local skew_ms = server_ms() - now_ms
  if math.abs(skew_ms) > CLOCK_SKEW_MS_MAX then
    return redis.error_reply(string.format('WEIRCLOCK %.0f', skew_ms))
  end
  local known = redis.call('HMGET', base .. ':writers', writer, 'rotated')
  if known[1] and tonumber(string.match(known[1], '^%d+')) >= number then
    return redis.error_reply('WEIRFENCED a later batch of this writer was seen')
  end
  redis.call('HSET', base .. ':writers', writer, string.format('%.0f %.0f', number, now_ms))
  if now_ms - tonumber(known[2] or 0) > RECENT_KEPT_MS then rotate(base, now_ms) end

  local batch = { windows = {}, expiries = {} }
  for period = 1, 7 do
    batch.windows[period] = args[3 + period]
    batch.expiries[period] = tonumber(args[10 + period])
  end
  batch.head = cmsgpack.pack(batch.windows)
  local replies, kinds = {}, { A = decide, R = report, C = cancel }
  for at = 18, #args do
    -- An ask may be followed by the ids of all requests that ask for just this.
    local op, ids = cmsgpack.unpack(args[at])
    replies[#replies + 1] = ids and decide_together(base, batch, op, ids)
      or kinds[op[1]](base, batch, op, args[at])
  end
  return replies
end

-- args: revision, then triples (application, version, record); version '' removes it; then '' and pairs
-- (service, version), version '' removing it. A shard never goes back to a lower revision.
local function publish(keys, args)
  local base, revision = keys[1], tonumber(args[1])
  local held = tonumber(redis.call('GET', base .. ':revision') or 0)
  if held > revision then return redis.error_reply(string.format('WEIROLDER %.0f', held)) end
  redis.call('SET', base .. ':revision', string.format('%.0f', revision))
  local at = 2
  while args[at] ~= '' do
    if args[at + 1] == '' then
      redis.call('HDEL', base .. ':applications', args[at])
      redis.call('HDEL', base .. ':records', args[at])
    else
      redis.call('HSET', base .. ':applications', args[at], args[at + 1])
      redis.call('HSET', base .. ':records', args[at], args[at + 2])
    end
    at = at + 3
  end
  for pair = at + 1, #args, 2 do
    if args[pair + 1] == '' then
      redis.call('HDEL', base .. ':services', args[pair])
    else
      redis.call('HSET', base .. ':services', args[pair], args[pair + 1])
    end
  end
  return 1
end

redis.register_function('weir_step_@SUFFIX@', step)
redis.register_function('weir_publish_@SUFFIX@', publish)
