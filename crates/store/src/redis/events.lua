-- What is worth telling of usage: an application's first, its first of a day, and limits whose use comes to a step. The
-- rule of steps is that of `weir_core::alert`, which says what is meant by it.
--
-- It is told in the step that counts, into a stream of the shard, and costs next to nothing where nothing is told: a
-- comparison for each counter and each ceiling, some more for a ceiling that is at its lowest step.

local EVENTS_KEPT_MAX, FIRSTS_KEPT_MAX = 20000, 10000
local ALERT_PAUSE_MS = '86400000'
local DAY = 3
local PERIODS = { 'minute', 'hour', 'day', 'week', 'month', 'year', 'eternity' }

local function application_of(name) return string.match(name, '^(.*):[^:]*$') end

-- Whether one of the steps of a ceiling lies behind `used` and not behind `most`.
local function comes_to_step(usage, ceiling, used, most)
  local steps = steps_of(usage, ceiling)
  for n = 1, #steps do
    if steps[n] > used then return steps[n] <= most end
  end
  return false
end

-- Adds an event as a line of words: moment in ms, application, what happened to it. Names have no blanks. The oldest
-- goes where there are too many.
local function tell(shard, application, what)
  local key = shard.base .. ':events'
  redis.call('XADD', key, '*', 'event', string.format('%.0f %s %s', shard.now_ms, application, what))
  shard.answers[3] = shard.answers[3] + redis.call('XTRIM', key, 'MAXLEN', '=', EVENTS_KEPT_MAX)
end

-- Every application has first traffic: that may fill the list to one half, and displace no alert.
local function tell_first(shard, application, what)
  if redis.call('XLEN', shard.base .. ':events') < FIRSTS_KEPT_MAX then return tell(shard, application, what) end
  shard.answers[3] = shard.answers[3] + 1
end

-- A counter is raised that held nothing in the day of a minute. The names of days ascend with them. Usage of other days
-- than this one, late or ahead, takes no day from those who come on it.
tell_first_traffic = function(shard, name, minute)
  local application, key = application_of(name), shard.base .. ':traffic'
  local day, told = windows_of(minute)[DAY], redis.call('HGET', key, application)
  local is_first_of_day = day == windows_of(shard.minute)[DAY] and (told or '') < day
  if told and not is_first_of_day then return end
  redis.call('HSET', key, application, is_first_of_day and day or '')
  if not told then tell_first(shard, application, 'first_traffic') end
  if is_first_of_day then tell_first(shard, application, 'first_daily_traffic') end
end

-- How often a whole number has to be added to come to another; exact beyond 2^53, as a plain division is not.
local function times_to(sum, by)
  local rest = math.fmod(sum, by)
  return (sum - rest) / by + (rest > 0 and 1 or 0)
end

-- What one alert after the other holds that a ceiling raises: step, time that comes to it, value then.
local function crossed(usage, ceiling, before, after, found)
  local at = 3 * ceiling - 2
  local place, period, max = usage.ceilings[at], usage.ceilings[at + 1], usage.ceilings[at + 2]
  local value, steps, bins = usage.values[place], steps_of(usage, ceiling), usage.bins[place]
  for n = 1, #steps do
    local step = steps[n]
    if step > after then break end
    if before < step then
      local time, current = 1, value
      if not usage.sets[place] then
        time = times_to(step - before, value)
        current = math.min(before + value * time, COUNT_MAX)
      end
      found = found or {}
      found[#found + 1] = {
        time = time, order = #found, bin = bins[n], metric = string.sub(usage.fields[place], 2),
        period = PERIODS[period], current = current, max = max,
      }
    end
  end
  return found
end

local function comes_first(one, other)
  if one.time ~= other.time then return one.time < other.time end
  return one.order < other.order
end

-- The steps that counting a usage so many times is going to cross, in their order; nil where there are none.
local function find_alerts(shard, named, usage, times, minute)
  local ceilings, lowest, found = usage.ceilings, usage.lowest, nil
  for ceiling = 1, #lowest do
    local at = 3 * ceiling - 2
    local place, name = ceilings[at], shard.names[named + ceilings[at]]
    local before = find(shard, name, ceilings[at + 1], minute) or 0
    local after = usage.values[place]
    if not usage.sets[place] then after = math.min(before + after * times, COUNT_MAX) end
    if after >= lowest[ceiling] and after > before then found = crossed(usage, ceiling, before, after, found) end
  end
  if found and #found > 1 then table.sort(found, comes_first) end
  return found
end

-- An application's alert of a step is not repeated for a day, whichever limit raised it.
local function tell_alerts(shard, application, alerts)
  for _, alert in ipairs(alerts) do
    local flag = shard.base .. ':alerted:' .. application .. ':' .. alert.bin
    if redis.call('SET', flag, 1, 'NX', 'PX', ALERT_PAUSE_MS) then
      local limit = string.format('%s %s %.0f %.0f', alert.metric, alert.period, alert.current, alert.max)
      tell(shard, application, 'alert ' .. alert.bin .. ' ' .. limit)
    end
  end
end

-- Counts a usage so many times, as `count` does, and tells what there is to tell. Where no ceiling comes to a step, for
-- all that is known, none is looked for.
local function count_and_tell(shard, application, named, usage, times, may_alert, minute, expiries)
  local alerts = may_alert and find_alerts(shard, named, usage, times, minute or shard.minute)
  local changes = count(shard, named, usage, times, minute, expiries)
  if alerts then tell_alerts(shard, application, alerts) end
  return changes
end
