-- The ledger inside Redis: decides and counts a batch, of one shard or of several, in one step.
--
-- KEYS are the shards' bases, "weir:{7}"; every other key of a shard begins with it, so all of them share its slot:
--   :counts                          hash   <service>/<app>:<metric> -> counter
--   :closed:<service>/<app>:<window> hash   metric -> count, in windows that are not the counter's own: those that
--                                           have ended, and those that a report has named before they came
--   :versions                        hash   <service>/<app> -> version, <service> -> version
--   :records                         hash   <service>/<app> -> record
--   :recent, :recent-older           hash   page of request ids -> what was counted for them; two generations.
--                                           "writer:<writer>" -> number of its last batch; "since" -> ms, with
--                                           "+" behind it once anything was out on lease in that time;
--                                           "lease:<id>" -> "" where a lease was closed
--   :leases                          hash   <service>/<app> -> its leases as MessagePack; none: no field
--   :due                             zset   <service>/<app> -> when the first of its leases is over, in ms
--   :report:<part>:<id>              string idempotency ids, kept ten minutes, or an hour
--   :events                          stream what happened to applications and is not acknowledged
--   :traffic                         hash   <service>/<app> -> the newest day whose first traffic was told; "" where
--                                           none was, but usage of other days was booked
--   :alerted:<service>/<app>:<step>  string the alert is not repeated while this is there: 24 hours
--
-- A counter is what it holds in seven windows, from the minute to eternity, as doubles of eight bytes, lowest first,
-- then the minute of its last change, counted from 1970, around which the windows are. Whoever first looks at it in a
-- new window moves what the old one held to :closed. All that is counted is counted in eternity, too, so what has no
-- counter has nothing in :closed either.
--
-- What was counted for a request is its latest attempt, the minute, the application and, as MessagePack, metric, value,
-- first period and whether it sets for each increment; then, where one of them sets a value, by how much each window
-- changed. Without an application: it was taken back.
--
-- Ids of requests lie in pages of 64 that follow each other, as those of a gateway do: a page's field is their first 15
-- bytes and the first two bits of the last. It holds the highest last byte of all, then entries, of which the last one
-- about an id counts: number of ids, their last bytes, length of what was counted for each, and that; empty where it is
-- forgotten. So of an id above the highest nothing is known, without another look: mostly ids come in their order.
--
-- All that a batch needs is read at once, decided upon in order, and written at once. Numbers are whole, 0 to 2^53 - 1.
-- The script holds no policy: which counters change by how much under which ceilings is computed by the caller.
--
-- @SUFFIX@ is replaced by a hash of this text, since function names are global and versions live side by side.

local COUNT_MAX = 9007199254740991
local ATTEMPT_MAX = 4294967295
local CLOCK_SKEW_MS_MAX = 1000
local RECENT_KEPT_MS = 10000
local REPORT_KEPT_MS = 600000
local GIVEN_BACK_KEPT_MS = 3600000
local CLOSED_KEPT_S = 73 * 3600
local CLOSED_MINUTE_KEPT_S = 120
local PLUS = 43

-- Lua passes on only so many values at once.
local VALUES_MAX = 4000

-- In memory a counter is {minute, hour, day, week, month, year, eternity, minute of the last change, has changed}. The
-- last place is what `struct.unpack` adds: where it stopped. Doubles hold whole numbers up to 2^53.
local COUNTER_FORMAT = '<dddddddd'
local CHANGED_AT, HAS_CHANGED = 8, 9

-- The first bytes of what was counted for a request.
local RECENT_FORMAT = '<I4I4s'

-- Usages by their MessagePack: most requests of a plan bring the same.
local USAGES_MAX, USAGE_BYTES_MAX = 1024, 1024
local usages, usage_count = {}, 0

-- Steps of limits at which alerts are raised, in per cent, by the bits that enable them.
local BINS = { 50, 80, 90, 100, 120, 150, 200, 300 }
local bins_by_bits = {}

local function bins_of(bits)
  local bins = bins_by_bits[bits]
  if not bins then
    bins = {}
    for place, bin in ipairs(BINS) do
      if math.floor(bits / 2 ^ (place - 1)) % 2 == 1 then bins[#bins + 1] = bin end
    end
    bins_by_bits[bits] = bins
  end
  return bins
end

-- The least that is no less than so many per cent of a limit; in two parts, since products beyond 2^53 are not exact.
local function step_of(bin, max)
  local rest = math.fmod(max, 100)
  return (max - rest) / 100 * bin + math.ceil(rest * bin / 100)
end

-- Of the n-th ceiling of a usage. Worked out when they are first asked for, which most never are.
local function steps_of(usage, ceiling)
  local steps = usage.steps[ceiling]
  if not steps then
    steps = {}
    local at = 3 * ceiling - 2
    for n, bin in ipairs(usage.bins[usage.ceilings[at]]) do steps[n] = step_of(bin, usage.ceilings[at + 2]) end
    usage.steps[ceiling] = steps
  end
  return steps
end

-- packed: for each increment {metric, sets (1) or adds (0) and twice the bits of its steps, value, first period,
-- period, max, period, max, ...}; periods count from 1 (minute) to 7 (eternity).
local function read_usage(packed)
  local usage = {
    packed = packed, fields = {}, sets = {}, values = {}, firsts = {}, ceilings = {}, has_set = false, value_max = 0,
    bins = {}, lowest = {}, steps = {},
  }
  local ceilings, undo = usage.ceilings, {}
  for place, increment in ipairs(cmsgpack.unpack(packed)) do
    local metric, sets, value, first = increment[1], increment[2] % 2 == 1, increment[3], increment[4]
    local bins = bins_of(math.floor(increment[2] / 2))
    usage.bins[place] = bins
    usage.fields[place], usage.sets[place], usage.values[place], usage.firsts[place] = ':' .. metric, sets, value, first
    usage.has_set, usage.value_max = usage.has_set or sets, math.max(usage.value_max, value)
    for at = 5, #increment, 2 do
      local n = #ceilings
      local max = increment[at + 1]
      ceilings[n + 1], ceilings[n + 2], ceilings[n + 3] = place, increment[at], max
      usage.lowest[#usage.lowest + 1] = max > 0 and bins[1] and step_of(bins[1], max) or math.huge
    end
    -- What is only looked at has nothing to be taken back.
    if value > 0 or sets then
      local n = #undo
      undo[n + 1], undo[n + 2], undo[n + 3], undo[n + 4] = metric, value, first, sets and 1 or 0
    end
  end
  usage.undo = cmsgpack.pack(undo)
  return usage
end

local function usage_of(packed)
  local usage = usages[packed]
  if not usage then
    usage = read_usage(packed)
    if #packed <= USAGE_BYTES_MAX then
      if usage_count == USAGES_MAX then usages, usage_count = {}, 0 end
      usages[packed], usage_count = usage, usage_count + 1
    end
  end
  return usage
end

-- Year, month and day of the month of a day counted from 1970-01-01: by eras of 400 years, in which days repeat, and
-- years that begin with March, so that a leap day ends them.
local function date_of(day)
  local from_era = day + 719468
  local of_era = from_era % 146097
  local leap_days = math.floor(of_era / 1460) - math.floor(of_era / 36524) + math.floor(of_era / 146096)
  local year = math.floor((of_era - leap_days) / 365)
  local from_march = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * from_march + 2) / 153)
  local of_month = from_march - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  return year + math.floor(from_era / 146097) * 400 + (month <= 2 and 1 or 0), month, of_month
end

-- Names of the windows around a minute. A week belongs to the year of its Thursday.
local WINDOWS_MAX = 1024
local windows_by_minute, windows_count = {}, 0

local function windows_of(minute)
  local windows = windows_by_minute[minute]
  if windows then return windows end
  local day = math.floor(minute / 1440)
  local year, month, of_month = date_of(day)
  local thursday = day - (day + 3) % 7 + 3
  local week_year = date_of(thursday)
  local leap_days = math.floor((week_year - 1969) / 4) - math.floor((week_year - 1901) / 100)
    + math.floor((week_year - 1601) / 400)
  local year_start = (week_year - 1970) * 365 + leap_days
  local date = string.format('%04d-%02d-%02d', year, month, of_month)
  local hour = string.format('%sT%02d', date, math.floor(minute / 60) % 24)
  windows = {
    string.format('%s:%02d', hour, minute % 60), hour, date,
    string.format('%04d-W%02d', week_year, math.floor((thursday - year_start) / 7) + 1),
    string.sub(date, 1, 7), string.sub(date, 1, 4), 'ever',
  }
  if windows_count == WINDOWS_MAX then windows_by_minute, windows_count = {}, 0 end
  windows_by_minute[minute], windows_count = windows, windows_count + 1
  return windows
end

-- Calls visit(first, last) for pieces of first to last that can be passed on at once.
local function in_pieces(first, last, visit)
  for from = first, last, VALUES_MAX do visit(from, math.min(from + VALUES_MAX - 1, last)) end
end

local function set_hash(key, values)
  in_pieces(1, #values, function(first, last) redis.call('HSET', key, unpack(values, first, last)) end)
end

local function server_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Windows other than a counter's own.

local function closed_key(shard, name, window)
  local application, metric = string.match(name, '^(.*):([^:]*)$')
  return shard.base .. ':closed:' .. application .. ':' .. window, metric
end

local function set_closed(shard, name, period, window, value, expires_s)
  local key, metric = closed_key(shard, name, window)
  if redis.call('HSET', key, metric, value) == 1 then
    local kept_s = period == 1 and CLOSED_MINUTE_KEPT_S or CLOSED_KEPT_S
    redis.call('EXPIREAT', key, expires_s or math.floor(shard.now_ms / 1000) + kept_s)
  end
end

-- Tells of an application's first usage of a day, if it is that; see events.lua.
local tell_first_traffic

-- Moves a counter on to the windows around the batch's minute. A report may have counted in them before they came: of
-- its day there is something to tell now, and what counts next would not see that.
local function turn(shard, name, counter)
  local before, after = windows_of(counter[CHANGED_AT]), windows_of(shard.minute)
  for period = 1, 6 do
    if before[period] ~= after[period] then
      if counter[period] > 0 then set_closed(shard, name, period, before[period], counter[period]) end
      local key, metric = closed_key(shard, name, after[period])
      local early = redis.call('HGET', key, metric)
      if early then redis.call('HDEL', key, metric) end
      counter[period] = tonumber(early or 0)
      if period == 3 and counter[period] > 0 then tell_first_traffic(shard, name, shard.minute) end
    end
  end
  counter[CHANGED_AT], counter[HAS_CHANGED] = shard.minute, true
end

-- Counters.

-- Reads those that are named from a place on.
local function read_counters(shard, from)
  local names, counters, minute, unpack_counter = shard.names, shard.counters, shard.minute, struct.unpack
  in_pieces(from, #names, function(first, last)
    local found = redis.call('HMGET', shard.base .. ':counts', unpack(names, first, last))
    for place = first, last do
      local name, packed = names[place], found[place - first + 1]
      if not counters[name] then
        local counter = packed and { unpack_counter(COUNTER_FORMAT, packed) } or { 0, 0, 0, 0, 0, 0, 0, minute, false }
        counter[HAS_CHANGED] = false
        counters[name] = counter
        -- Not where another listener's clock is ahead.
        if counter[CHANGED_AT] < minute then turn(shard, name, counter) end
      end
    end
  end)
end

local function write_counters(shard)
  local values, n, names, counters, pack = {}, 0, shard.names, shard.counters, struct.pack
  for place = 1, #names do
    local name = names[place]
    local c = counters[name]
    if c[HAS_CHANGED] then
      values[n + 1], values[n + 2] = name, pack(COUNTER_FORMAT, c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8])
      n = n + 2
      c[HAS_CHANGED] = false
    end
  end
  set_hash(shard.base .. ':counts', values)
end

local function name_counters(shard, application, fields)
  local names = shard.names
  local n = #names
  for place = 1, #fields do names[n + place] = application .. fields[place] end
end

local function is_own(counter, period, minute)
  return counter[CHANGED_AT] == minute or windows_of(counter[CHANGED_AT])[period] == windows_of(minute)[period]
end

-- What a counter holds in the window around a minute; nil where it was never raised, or the window is forgotten.
local function find(shard, name, period, minute)
  local counter = shard.counters[name]
  if is_own(counter, period, minute) then return counter[period] end
  local key, metric = closed_key(shard, name, windows_of(minute)[period])
  local closed = redis.call('HGET', key, metric)
  return closed and tonumber(closed) or nil
end

local function put(shard, name, period, minute, value, expires_s)
  local counter = shard.counters[name]
  if is_own(counter, period, minute) then
    counter[period], counter[HAS_CHANGED] = value, true
  else
    set_closed(shard, name, period, windows_of(minute)[period], value, expires_s)
  end
end

-- Counts a usage so many times; its counters are the names behind a place. `minute` and `expiries` where it is not of
-- now. Returns by how much each window changed, if one of them was set.
local function count(shard, named, usage, times, minute, expiries)
  local names, counters, changes = shard.names, shard.counters, usage.has_set and {} or nil
  minute = minute or shard.minute
  for place = 1, #usage.fields do
    local name, sets, value = names[named + place], usage.sets[place], usage.values[place] * times
    local counter = counters[name]
    if value > 0 and not changes and counter[CHANGED_AT] == minute then
      -- As below, without the detours: nearly all usage is added, and of now.
      if counter[3] == 0 then tell_first_traffic(shard, name, minute) end
      for period = usage.firsts[place], 7 do
        local after = counter[period] + value
        counter[period] = after < COUNT_MAX and after or COUNT_MAX
      end
      counter[HAS_CHANGED] = true
    elseif value > 0 or sets then
      for period = usage.firsts[place], 7 do
        local before = find(shard, name, period, minute) or 0
        local after = sets and value or math.min(before + value, COUNT_MAX)
        if period == 3 and before == 0 then tell_first_traffic(shard, name, minute) end
        put(shard, name, period, minute, after, expiries and expiries[period])
        if changes then changes[#changes + 1] = sets and value - before or value end
      end
    end
  end
  return changes
end

local function lower(shard, name, period, minute, by)
  local before = find(shard, name, period, minute)
  -- A window that is gone has nothing to give back.
  if before then put(shard, name, period, minute, math.min(math.max(before - by, 0), COUNT_MAX)) end
end

-- Recent requests.

local ENTRY_FORMAT = '<Bc0I4c0'
-- A longer page, whose ids came again and again, is written anew.
local PAGE_BYTES_MAX = 32768

-- Makes sure that a page is read.
local function want_page(shard, name)
  if not shard.pages[name] then
    shard.pages[name] = { name = name, newer = '', older = '', highest = -1, entries = {} }
    shard.fields[#shard.fields + 1] = name
  end
end

local function read_entries(index, packed, at)
  local last_bytes, record
  while at <= #packed do
    last_bytes, record, at = struct.unpack(ENTRY_FORMAT, packed, at)
    for place = 1, #last_bytes do index[string.byte(last_bytes, place)] = record end
  end
end

-- What was counted for the ids of a page, by their last byte; '' where it is forgotten.
local function index_of(page)
  local index = page.index
  if not index then
    index = {}
    read_entries(index, page.older, 2)
    read_entries(index, page.newer, 2)
    for _, entry in ipairs(page.entries) do read_entries(index, entry, 1) end
    page.index = index
  end
  return index
end

-- What is known of a request.
local function known_of(page, last_byte)
  local record = last_byte <= page.highest and index_of(page)[last_byte]
  return record and record ~= '' and record or nil
end

local function pack_entry(last_bytes, record)
  return struct.pack(ENTRY_FORMAT, #last_bytes, last_bytes, #record, record)
end

-- Remembers requests of a page whose last bytes ascend; '': they are forgotten.
local function remember(shard, page, last_bytes, record)
  local entries, highest, entry = page.entries, string.byte(last_bytes, -1), pack_entry(last_bytes, record)
  if #entries == 0 then shard.written_pages[#shard.written_pages + 1] = page end
  entries[#entries + 1] = entry
  if highest > page.highest then page.highest = highest end
  if page.index then read_entries(page.index, entry, 1) end
end

-- All that is known of a page, with what follows each other and is alike in one entry.
local function entries_anew(page)
  local index, entries, run, of_run = index_of(page), {}, {}, nil
  local function put()
    if #run > 0 then entries[#entries + 1] = pack_entry(string.char(unpack(run)), of_run) end
    run = {}
  end
  for last_byte = 0, 255 do
    local record = index[last_byte]
    if record and record ~= of_run then put() end
    if record then run[#run + 1], of_run = last_byte, record end
  end
  put()
  return entries
end

local function pack_page(page)
  if #page.newer > PAGE_BYTES_MAX then page.newer, page.entries = '', entries_anew(page) end
  return string.char(page.highest) .. string.sub(page.newer, 2) .. table.concat(page.entries)
end

-- Reads what is known of requests, and the writer's number and age of the generation in the same breath.
local function read_recent(shard)
  local fields, recent, pages = shard.fields, shard.recent, shard.pages
  for _, generation in ipairs({ ':recent-older', ':recent' }) do
    in_pieces(1, #fields, function(first, last)
      local found = redis.call('HMGET', shard.base .. generation, unpack(fields, first, last))
      for place = first, last do
        local field, packed = fields[place], found[place - first + 1]
        local page = pages[field]
        if packed and page then
          -- Only to the newer one more is added.
          page[generation == ':recent' and 'newer' or 'older'] = packed
          page.highest = math.max(page.highest, string.byte(packed))
        elseif packed then
          recent[field] = packed
        end
      end
    end)
    shard.older_since = shard.older_since or recent['since']
  end
end

local function since_ms_of(since) return since and (tonumber(since) or tonumber(string.sub(since, 1, -2))) end

-- Whether anything may be out on lease. Mostly nothing is, and this costs no look.
local function may_lend(shard)
  local since = shard.recent['since']
  return not since or string.byte(since, -1) == PLUS
end

local function remember_lease(shard, tombstone)
  shard.recent[tombstone], shard.written[#shard.written + 1] = '', tombstone
end

-- Every ten seconds the recent requests grow a generation older.
local function write_recent(shard)
  local recent, older, now_ms = shard.base .. ':recent', shard.base .. ':recent-older', shard.clock_ms
  local values, n = { shard.writer, string.format('%.0f', shard.number) }, 2
  local since_ms, lends = since_ms_of(shard.recent['since']), nil
  if not since_ms or now_ms - since_ms > RECENT_KEPT_MS then
    if since_ms and redis.call('EXISTS', recent) == 1 then
      -- A rename would free what was there at once, and take its time for that.
      redis.call('UNLINK', older)
      redis.call('RENAME', recent, older)
      redis.call('EXPIRE', older, 3600)
    end
    for _, page in ipairs(shard.written_pages) do page.newer = '' end
    since_ms, lends = now_ms, redis.call('EXISTS', shard.base .. ':leases') == 1
  elseif next(shard.lent) and not may_lend(shard) then
    lends = true
  end
  if lends ~= nil then
    values[3], values[4], n = 'since', string.format('%.0f', since_ms) .. (lends and '+' or ''), 4
  end
  for _, tombstone in ipairs(shard.written) do
    values[n + 1], values[n + 2] = tombstone, ''
    n = n + 2
  end
  for _, page in ipairs(shard.written_pages) do
    values[n + 1], values[n + 2] = page.name, pack_page(page)
    n = n + 2
  end
  set_hash(recent, values)
end

-- What is known of a request: its owner, the latest attempt; its application, unless it was taken back; the minute; and
-- the place behind.
local function recall(packed)
  local owner, minute, application, at = struct.unpack(RECENT_FORMAT, packed)
  return owner, application ~= '' and application or nil, minute, at
end

local function record_of(shard, attempt, application, usage, changes)
  local record = struct.pack(RECENT_FORMAT, attempt, shard.minute, application) .. usage.undo
  return changes and record .. cmsgpack.pack(changes) or record
end

local function undo(shard, packed)
  local _, application, minute, at = recall(packed)
  local increments, changes = cmsgpack.unpack(string.sub(packed, at))
  local named, fields, n = #shard.names, {}, 0
  for place = 1, #increments, 4 do fields[#fields + 1] = ':' .. increments[place] end
  name_counters(shard, application, fields)
  read_counters(shard, named + 1)
  for place = 1, #increments, 4 do
    local value, first, sets = increments[place + 1], increments[place + 2], increments[place + 3] == 1
    named = named + 1
    if value > 0 or sets then
      for period = first, 7 do
        n = n + 1
        lower(shard, shard.names[named], period, minute, changes and changes[n] or value)
      end
    end
  end
end

-- Takes back what was counted for a request, of one attempt or (-1) of any. Attempts up to `last` that come later
-- count nothing. Returns 1 if something was counted.
local function take_back(shard, page, last_byte, attempt, last)
  local known, taken = known_of(page, last_byte), 0
  if known then
    local owner, application = recall(known)
    if not application then
      last = math.max(last, owner)
    else
      -- It belongs to another attempt.
      if attempt ~= -1 and attempt ~= owner then return 0 end
      undo(shard, known)
      taken = 1
    end
  end
  if known or last >= 0 then
    remember(shard, page, string.char(last_byte), last >= 0 and struct.pack(RECENT_FORMAT, last, 0, '') or '')
  end
  return taken
end

