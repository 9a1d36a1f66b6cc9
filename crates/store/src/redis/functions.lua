-- The ledger inside Redis: decides and counts a batch of one shard in one step.
--
-- KEYS[1] is the shard's base, "weir:{7}"; every other key begins with it, so all of them share its slot:
--   :counts                          hash   <service>/<app>:<metric> -> counter
--   :closed:<service>/<app>:<window> hash   metric -> count, in windows that are not the counter's own: those that
--                                           have ended, and those that a report has named before they came
--   :versions                        hash   <service>/<app> -> version, <service> -> version
--   :records                         hash   <service>/<app> -> record
--   :recent, :recent-older           hash   request id -> what was counted for it; two generations.
--                                           "writer:<writer>" -> number of its last batch; "since" -> ms
--   :report:<part>:<id>              string idempotency ids, kept ten minutes
--
-- A counter is what it holds in seven windows, from the minute to eternity, as doubles of eight bytes, the lowest first;
-- then the moment of its last change, around which the windows are. A moment is the name of its minute and of its week,
-- "2026-11-23T03:31 2026-W48", which name all seven. The first change in a new window moves what the old one held to
-- :closed.
--
-- What was counted for a request is MessagePack: the latest attempt, application, moment, the increments as they
-- came, and where one of them sets a value, by how much each counter changed. The attempt alone: it was taken back.
--
-- All that a batch needs is read at once, decided upon in order, and written at once. Numbers are whole, 0 to 2^53 - 1.
-- The script holds no policy: which counters change by how much under which ceilings is computed by the caller.
--
-- @SUFFIX@ is replaced by a hash of this text, since function names are global and versions live side by side.

local COUNT_MAX = 9007199254740991
local CLOCK_SKEW_MS_MAX = 1000
local RECENT_KEPT_MS = 10000
local REPORT_KEPT_MS = 600000
local CLOSED_KEPT_S = 73 * 3600
local CLOSED_MINUTE_KEPT_S = 120

-- Doubles hold whole numbers up to 2^53.
local COUNTS_FORMAT, COUNTS_BYTES = '<ddddddd', 56

-- Lua passes on only so many values at once.
local VALUES_MAX = 4000

-- An increment: {metric, sets (1) or adds (0), value, first period, period, max, period, max, ...};
-- periods count from 1 (minute) to 7 (eternity).
local METRIC, SETS, VALUE, FIRST, CEILINGS = 1, 2, 3, 4, 5

-- Increments by their MessagePack: most requests of a plan bring the same. `has_set`: one of them sets a value.
local DECODED_MAX, DECODED_BYTES_MAX = 1024, 1024
local decoded, decoded_count = {}, 0

local function increments_of(packed)
  local increments = decoded[packed]
  if not increments then
    increments = cmsgpack.unpack(packed)
    for _, increment in ipairs(increments) do
      increments.has_set = increments.has_set or increment[SETS] == 1
    end
    if #packed <= DECODED_BYTES_MAX then
      if decoded_count == DECODED_MAX then decoded, decoded_count = {}, 0 end
      decoded[packed], decoded_count = increments, decoded_count + 1
    end
  end
  return increments
end

local function windows_of(moment)
  local sub = string.sub
  return { sub(moment, 1, 16), sub(moment, 1, 13), sub(moment, 1, 10), sub(moment, 18), sub(moment, 1, 7),
    sub(moment, 1, 4), 'ever' }
end

-- Calls visit(first, last) for pieces of 1 to n that can be passed on at once.
local function in_pieces(n, visit)
  for first = 1, n, VALUES_MAX do visit(first, math.min(first + VALUES_MAX - 1, n)) end
end

local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Windows other than a counter's own.

local function closed_key(batch, counter, window)
  return batch.base .. ':closed:' .. counter.application .. ':' .. window
end

local function set_closed(batch, counter, window, value, expires_s)
  local key = closed_key(batch, counter, window)
  if redis.call('HSET', key, counter.metric, value) == 1 then redis.call('EXPIREAT', key, expires_s) end
end

local function closed_expiry(batch, period)
  return batch.now_s + (period == 1 and CLOSED_MINUTE_KEPT_S or CLOSED_KEPT_S)
end

-- Moves a counter on to the windows around the batch's moment. A report may have counted in them before they came.
local function turn(batch, counter)
  local windows, has_changed = windows_of(counter.moment), false
  for period, window in ipairs(batch.windows) do
    if windows[period] ~= window then
      if counter[period] > 0 then
        set_closed(batch, counter, windows[period], counter[period], closed_expiry(batch, period))
        has_changed = true
      end
      local key = closed_key(batch, counter, window)
      local early = redis.call('HGET', key, counter.metric)
      if early then
        redis.call('HDEL', key, counter.metric)
        has_changed = true
      end
      counter[period] = tonumber(early or 0)
    end
  end
  counter.moment, counter.windows = batch.moment, batch.windows
  if has_changed then batch.changed[counter.field] = counter end
end

-- Counters.

local function fill(batch, counter, packed)
  if packed then
    counter[1], counter[2], counter[3], counter[4], counter[5], counter[6], counter[7] =
      struct.unpack(COUNTS_FORMAT, packed)
    counter.moment = string.sub(packed, COUNTS_BYTES + 1)
  end
  if counter.moment == batch.moment then
    counter.windows = batch.windows
  elseif counter.moment < batch.moment then
    turn(batch, counter)
  else
    -- Another listener's clock is ahead.
    counter.windows = windows_of(counter.moment)
  end
end

-- The counters of increments, which `read_counters` fills.
local function counters_of(batch, application, increments)
  local counters = {}
  for place = 1, #increments do
    local metric = increments[place][METRIC]
    local field = application .. ':' .. metric
    local counter = batch.counters[field]
    if not counter then
      counter = { 0, 0, 0, 0, 0, 0, 0, field = field, application = application, metric = metric, moment = '',
        windows = false }
      batch.counters[field] = counter
      batch.unread[#batch.unread + 1] = field
    end
    counters[place] = counter
  end
  return counters
end

local function read_counters(batch)
  local fields = batch.unread
  in_pieces(#fields, function(first, last)
    local found = redis.call('HMGET', batch.base .. ':counts', unpack(fields, first, last))
    for place = first, last do fill(batch, batch.counters[fields[place]], found[place - first + 1]) end
  end)
  batch.unread = {}
end

local function write_counters(batch)
  local values, n, pack = {}, 0, struct.pack
  for field, c in pairs(batch.changed) do
    values[n + 1], values[n + 2] = field,
      pack(COUNTS_FORMAT, c[1], c[2], c[3], c[4], c[5], c[6], c[7]) .. c.moment
    n = n + 2
  end
  in_pieces(#values, function(first, last)
    redis.call('HSET', batch.base .. ':counts', unpack(values, first, last))
  end)
end

-- What a counter holds in a window; nil where it was never raised, or the window is forgotten.
local function find(batch, counter, period, window)
  if counter.windows[period] == window then return counter[period] end
  local closed = redis.call('HGET', closed_key(batch, counter, window), counter.metric)
  return closed and tonumber(closed) or nil
end

local function held(batch, counter, period, window)
  return find(batch, counter, period, window) or 0
end

local function put(batch, counter, period, window, value, expires_s)
  if counter.windows[period] == window then
    counter[period] = value
    batch.changed[counter.field] = counter
  else
    set_closed(batch, counter, window, value, expires_s or closed_expiry(batch, period))
  end
end

-- What the counter of each ceiling holds.
local function read_used(batch, counters, increments)
  local used, n, windows = {}, 0, batch.windows
  for place = 1, #increments do
    local counter, increment = counters[place], increments[place]
    local is_own = counter.windows == windows
    for at = CEILINGS, #increment, 2 do
      local period = increment[at]
      n = n + 1
      used[n] = is_own and counter[period] or held(batch, counter, period, windows[period])
    end
  end
  return used
end

-- The place of the first ceiling that would be exceeded, or nil.
local function first_exceeded(increments, used)
  local place = 0
  for n = 1, #increments do
    local increment = increments[n]
    for at = CEILINGS, #increment, 2 do
      place = place + 1
      local after = increment[VALUE]
      if increment[SETS] == 0 then after = after + used[place] end
      if after > increment[at + 1] then return place end
    end
  end
end

-- Counts increments so many times. `windows` and `expiries` default to the batch's. Returns by how much each counter
-- changed, if one of them was set.
local function count(batch, counters, increments, times, windows, expiries)
  local changes = increments.has_set and {} or nil
  windows = windows or batch.windows
  for place = 1, #increments do
    local counter, increment = counters[place], increments[place]
    local sets, value = increment[SETS] == 1, increment[VALUE] * times
    if value > 0 and not sets and not changes and counter.windows == windows then
      -- As below, without the detours: nearly all usage is added, and of now.
      for period = increment[FIRST], 7 do
        local after = counter[period] + value
        counter[period] = after < COUNT_MAX and after or COUNT_MAX
      end
      batch.changed[counter.field] = counter
    elseif value > 0 or sets then
      for period = increment[FIRST], 7 do
        local window = windows[period]
        local before = held(batch, counter, period, window)
        local after = sets and value or math.min(before + value, COUNT_MAX)
        put(batch, counter, period, window, after, expiries and expiries[period])
        if changes then changes[#changes + 1] = sets and value - before or value end
      end
    end
  end
  return changes
end

-- Recent requests.

-- Reads what is known of requests, and the writer's number and age of the generation in the same breath.
local function read_recent(batch, ids)
  local fields = { 'since', 'writer:' .. batch.writer }
  for _, id in ipairs(ids) do fields[#fields + 1] = id end
  for _, generation in ipairs({ ':recent-older', ':recent' }) do
    in_pieces(#fields, function(first, last)
      local found = redis.call('HMGET', batch.base .. generation, unpack(fields, first, last))
      for place = first, last do
        batch.recent[fields[place]] = found[place - first + 1] or batch.recent[fields[place]]
      end
    end)
  end
end

local function remember(batch, id, packed)
  batch.recent[id], batch.remembered[id] = packed, packed
end

local function forget(batch, id)
  batch.recent[id], batch.remembered[id] = nil, nil
  batch.forgotten[#batch.forgotten + 1] = id
end

-- Every ten seconds the recent requests grow a generation older.
local function write_recent(batch)
  local recent, older = batch.base .. ':recent', batch.base .. ':recent-older'
  local values = { 'writer:' .. batch.writer, string.format('%.0f', batch.number) }
  local since_ms = tonumber(batch.recent['since'])
  if not since_ms or batch.now_ms - since_ms > RECENT_KEPT_MS then
    if since_ms and redis.call('EXISTS', recent) == 1 then
      -- A rename would free what was there at once, and take its time for that.
      redis.call('UNLINK', older)
      redis.call('RENAME', recent, older)
      redis.call('EXPIRE', older, 3600)
    end
    values[3], values[4] = 'since', string.format('%.0f', batch.now_ms)
  end
  for _, id in ipairs(batch.forgotten) do
    redis.call('HDEL', recent, id)
    redis.call('HDEL', older, id)
  end
  for id, packed in pairs(batch.remembered) do
    values[#values + 1] = id
    values[#values + 1] = packed
  end
  in_pieces(#values, function(first, last) redis.call('HSET', recent, unpack(values, first, last)) end)
end

-- What is known of a request, or nil: the owner is the latest attempt.
local function recall(batch, id)
  local packed = batch.recent[id]
  if not packed then return nil end
  local owner, application, moment, increments, changes = cmsgpack.unpack(packed)
  return {
    owner = owner, application = application, moment = moment, increments = increments, changes = changes,
    is_buried = application == nil,
  }
end

local function undo(batch, known)
  local increments, windows, n = increments_of(known.increments), windows_of(known.moment), 0
  local counters = counters_of(batch, known.application, increments)
  read_counters(batch)
  for place, increment in ipairs(increments) do
    if increment[VALUE] > 0 or increment[SETS] == 1 then
      for period = increment[FIRST], 7 do
        n = n + 1
        local by = known.changes and known.changes[n] or increment[VALUE]
        local counter, window = counters[place], windows[period]
        local before = find(batch, counter, period, window)
        -- A window that is gone has nothing to give back.
        if before then
          put(batch, counter, period, window, math.min(math.max(before - by, 0), COUNT_MAX))
        end
      end
    end
  end
end

-- Takes back what was counted for a request, of one attempt or (-1) of any. Attempts up to `last` that come later
-- count nothing. Returns 1 if something was counted.
local function take_back(batch, id, attempt, last)
  local known, taken = recall(batch, id), 0
  if known and known.is_buried then
    last = math.max(last, known.owner)
  elseif known then
    -- It belongs to another attempt.
    if attempt ~= -1 and attempt ~= known.owner then return 0 end
    undo(batch, known)
    taken = 1
  end
  if known then forget(batch, id) end
  if last >= 0 then remember(batch, id, cmsgpack.pack(last)) end
  return taken
end

-- Operations. Each kind is read first, so that a batch knows what it needs, and decided later.

-- Cancels are 'C', id, attempt: -1 takes back whatever was or will be counted, else only what belongs to that attempt.
local function read_cancel(_, id, attempt)
  return { id = id, attempt = attempt }, { id }
end

local function cancel(batch, op)
  local last = op.attempt == -1 and COUNT_MAX or op.attempt
  return { 3, take_back(batch, op.id, op.attempt, last) }
end

-- Asks are 'A', id, looked up, application, its version, service, its version, counts, attempt, increments; and the
-- ids of all requests that ask for just this, where there are several.
local function read_ask(batch, id, looked_up, application, version, service, service_version, counts, attempt, packed,
    ids)
  local increments = increments_of(packed)
  local op = {
    id = id, ids = ids, attempt = attempt, looked_up = looked_up == 1,
    application = application, version = version, service = service, service_version = service_version,
    packed = packed, increments = increments, counts = counts == 1 and #increments > 0,
    counters = counters_of(batch, application, increments),
  }
  batch.versions[application], batch.versions[service] = false, false
  return op, ids or ((op.counts or op.looked_up) and { id } or {})
end

local function is_current(batch, op)
  return batch.versions[op.application] == op.version and batch.versions[op.service] == op.service_version
end

-- An answer of a kind with the values of all ceilings.
local function answer(kind, used, ...)
  local parts = { kind, ... }
  local before = #parts
  for n = 1, #used do parts[before + n] = used[n] end
  return parts
end

local function record_of(batch, op, changes)
  return changes and cmsgpack.pack(op.attempt, op.application, batch.moment, op.packed, changes)
    or cmsgpack.pack(op.attempt, op.application, batch.moment, op.packed)
end

local function decide(batch, op)
  if not is_current(batch, op) then
    -- Judged anew, it may be refused: what an earlier attempt counted must not stay.
    if op.looked_up then take_back(batch, op.id, -1, op.attempt - 1) end
    local version = batch.versions[op.application]
    local record = version and redis.call('HGET', batch.base .. ':records', op.application)
    return { 2, version, record, batch.versions[op.service] }
  end
  local increments, counters = op.increments, op.counters
  -- Even a first attempt may come after a later one, or after it was taken back.
  local known = (op.counts or op.looked_up) and recall(batch, op.id)
  if known and known.is_buried then
    if op.attempt <= known.owner then return { 5 } end
  elseif known then
    -- The latest attempt owns the outcome: taking back an earlier one must not touch it.
    if op.attempt > known.owner then
      remember(batch, op.id, cmsgpack.pack(op.attempt, select(2, cmsgpack.unpack(batch.recent[op.id]))))
    end
    return answer(0, read_used(batch, counters, increments))
  end
  local used = read_used(batch, counters, increments)
  local exceeded = first_exceeded(increments, used)
  if exceeded then return answer(1, used, exceeded - 1) end
  if op.counts then
    remember(batch, op.id, record_of(batch, op, count(batch, counters, increments, 1)))
    used = read_used(batch, counters, increments)
  end
  return answer(0, used)
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

local function knows_any(batch, ids)
  for _, id in ipairs(ids) do
    if batch.recent[id] then return true end
  end
  return false
end

-- First attempts of several requests that ask for the same and only add: counted together, as many as fit. Answers
-- how many that is, which ceiling refuses the others, and what the ceilings held before.
local function decide_together(batch, op)
  local increments, ids = op.increments, op.ids
  local used = is_current(batch, op) and read_used(batch, op.counters, increments)
  local fitting = used and count_fitting(increments, used, #ids)
  if not fitting or knows_any(batch, ids) then
    local answers = {}
    for place, id in ipairs(ids) do
      op.id = id
      answers[place] = decide(batch, op)
    end
    return { 7, answers }
  end
  if fitting > 0 then
    count(batch, op.counters, increments, fitting)
    local record = record_of(batch, op)
    for place = 1, fitting do remember(batch, ids[place], record) end
  end
  local exceeded = fitting < #ids and first_exceeded(increments, read_used(batch, op.counters, increments))
  return answer(6, used, fitting, exceeded and exceeded - 1 or 0)
end

-- Reports are 'R', idempotency id, entries {application, increments, moment, expiries}; the last two where the usage
-- is not of now.
local function read_report(batch, id, entries)
  local op = { id = id, entries = entries, counters = {}, increments = {} }
  for place, entry in ipairs(entries) do
    op.increments[place] = increments_of(entry[2])
    op.counters[place] = counters_of(batch, entry[1], op.increments[place])
  end
  return op, {}
end

local function report(batch, op)
  if not redis.call('SET', batch.base .. ':report:' .. op.id, 1, 'NX', 'PX', REPORT_KEPT_MS) then return { 4, 0 } end
  for place, entry in ipairs(op.entries) do
    local windows = entry[3] and windows_of(entry[3])
    count(batch, op.counters[place], op.increments[place], 1, windows, entry[4])
  end
  return { 4, 1 }
end

local function read_versions(batch)
  local names = {}
  for name in pairs(batch.versions) do names[#names + 1] = name end
  in_pieces(#names, function(first, last)
    local found = redis.call('HMGET', batch.base .. ':versions', unpack(names, first, last))
    for place = first, last do batch.versions[names[place]] = found[place - first + 1] end
  end)
end

local READ = { A = read_ask, R = read_report, C = read_cancel }
local DECIDE = { A = decide, R = report, C = cancel }

local function read_operation(batch, kind, ...)
  local op, ids = READ[kind](batch, ...)
  op.decide = op.ids and decide_together or DECIDE[kind]
  batch.operations[#batch.operations + 1] = op
  for _, id in ipairs(ids) do batch.ids[#batch.ids + 1] = id end
end

-- args: writer, number, now in ms, moment, operations.
local function step(keys, args)
  local now_ms = tonumber(args[3])
  local skew_ms = server_ms() - now_ms
  if math.abs(skew_ms) > CLOCK_SKEW_MS_MAX then
    return redis.error_reply(string.format('WEIRCLOCK %.0f', skew_ms))
  end
  local batch = {
    base = keys[1], writer = args[1], number = tonumber(args[2]), now_ms = now_ms, now_s = math.floor(now_ms / 1000),
    moment = args[4], windows = windows_of(args[4]), operations = {}, ids = {}, versions = {},
    counters = {}, unread = {}, changed = {}, recent = {}, remembered = {}, forgotten = {},
  }
  for at = 5, #args do read_operation(batch, cmsgpack.unpack(args[at])) end
  read_recent(batch, batch.ids)
  if tonumber(batch.recent['writer:' .. batch.writer] or 0) >= batch.number then
    return redis.error_reply('WEIRFENCED a later batch of this writer was seen')
  end
  read_versions(batch)
  read_counters(batch)
  local replies = {}
  for place, op in ipairs(batch.operations) do replies[place] = op.decide(batch, op) end
  write_counters(batch)
  write_recent(batch)
  return replies
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
