---------------------------------------------------------------------------------------------------
-- Users' streams, over all nodes. Each node claims how many a user has there; granted is what fits
-- besides what was granted to the others, so that of nodes which find a user over the limit at once only
-- the later one is over it. What was granted stands as long as its node calls.
--
-- A node that finds a user over the limit has the others asked which of the streams there are alive:
-- the dead ones end, and the number of those that have answered stands beside what was granted.

local LEASES, USERS, ASKED = PREFIX .. '{node}:lease:', PREFIX .. '{node}:user:', PREFIX .. '{node}:asked:'
-- A node that was silent for so long is not counted; for longer than a lease, it is forgotten. (In
-- between it goes on as before, so that a moment's silence costs nothing.)
local SILENT_MS, LEASE_MS = 5000, '15000'
-- What was granted is kept for so long after it was written, which is done again when it is this old; nodes
-- claim all they have every quarter of an hour.
local USER_MS, OLD_SECONDS = '3600000', 600
-- What a node is asked waits for it for so long, and is so many bytes at most.
local ASKED_MS, ASKED_BYTES = '10000', 65536
-- No node has more streams of a user.
local MAX_STREAMS = 2 ^ 31

-- The text under a key; an empty one if there is none, or something else.
local function text_under(key)
  local value = attempt('GET', key)
  return kind(value) == 'string' and value or ''
end

-- A function that tells for how long another node was silent; false of one that is forgotten.
local function silences(now_ms)
  local silence = {}
  return function(other)
    if silence[other] == nil then
      local seen = tonumber(text_under(LEASES .. other))
      silence[other] = seen and now_ms - seen
    end
    return silence[other]
  end
end

-- The users' names in a list, each written as its length, a colon and itself. It ends with what is none: the
-- bound of the digits is what makes it end at all, for a place beyond all numbers is the beginning again.
local function names_in(list)
  local names, at = {}, 1
  while true do
    local length, from = list:match('^(%d%d?%d?%d?%d?):()', at)
    if not length then return names end
    at = from + length
    names[#names + 1] = sub(list, from, at - 1)
  end
end

-- What a node was asked since it was here last.
local function take_asked(node)
  local list = text_under(ASKED .. node)
  -- (Who may SET may perhaps not DEL.)
  if list ~= '' then attempt('SET', ASKED .. node, '', 'PX', '1') end
  return names_in(list)
end

-- Has a node asked about users. What does not fit is asked again a second later.
local function ask(node, users)
  local list, known = text_under(ASKED .. node), {}
  for _, user in ipairs(names_in(list)) do known[user] = true end
  local parts, length = { list }, #list
  for _, user in ipairs(users) do
    local part = #user .. ':' .. user
    if not known[user] and length + #part <= ASKED_BYTES then
      known[user], length = true, length + #part
      parts[#parts + 1] = part
    end
  end
  if #parts > 1 then attempt('SET', ASKED .. node, table.concat(parts), 'PX', ASKED_MS) end
end

-- What a user's text says: how many were granted to others, how many of those have answered, the others
-- that have not, what is kept of all of them, with an empty text for the node itself and where that
-- stands, and how many of its own have answered.
local function look_up(value, node, silent_for, anew)
  local elsewhere, alive, unheard, kept, mine, own = 0, 0, {}, {}, nil, nil
  for other, granted, answered in value:gmatch(' (%x+)=(%d+)!?(%d*)') do
    if other == node then
      mine, own = #kept + 1, tonumber(answered)
      kept[mine] = ''
    else
      local silent = silent_for(other)
      if silent then
        if anew then answered = '' end
        kept[#kept + 1] = ' ' .. other .. '=' .. granted .. (answered ~= '' and '!' .. answered or '')
        if silent < SILENT_MS then
          granted = math.min(granted, MAX_STREAMS)
          elsewhere = elsewhere + granted
          alive = alive + math.min(tonumber(answered) or 0, granted)
          if answered == '' then unheard[#unheard + 1] = other end
        end
      end
    end
  end
  return elsewhere, alive, unheard, kept, mine or #kept + 1, own
end

-- Writes down what is granted, if that is something else or was written long ago; an error of Redis.
local function keep(key, value, text, time)
  local written, before = value:match('^(%d*)(.*)$')
  local done
  if text == '' then
    if value ~= '' then done = attempt('SET', key, '', 'PX', '1') end
  elseif text ~= before or time - (tonumber(written) or 0) >= OLD_SECONDS then
    done = attempt('SET', key, time .. text, 'PX', USER_MS)
  end
  return kind(done) == 'table' and done.err or nil
end

-- For each user: the name, how many streams it has here; '-', or how many of them have answered when this
-- node was asked; whether the others are asked: '0', '1', or '2' where what they answered before does not
-- count. Replies { 0 if the node was forgotten, for each user { granted, granted elsewhere, answered
-- elsewhere }, flat, or -1 for the first if that cannot be kept, the users that this node is asked about,
-- why something cannot be kept or '' }.
local function claim(keys, args)
  if not call then prepare() end
  local node, most = args[1], tonumber(args[2])
  if #keys ~= 0 or not node or not find(node, '^%x+$') or not most or #args % 4 ~= 2 then
    return invalid('a node, a limit, and for each user four arguments are needed')
  end
  local time = call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local is_known = text_under(LEASES .. node) ~= ''
  call('SET', LEASES .. node, ('%.0f'):format(now_ms), 'PX', LEASE_MS)
  local silent_for, numbers, to_ask, fault = silences(now_ms), {}, {}, ''
  for at = 3, #args, 4 do
    local key, wanted = USERS .. args[at], tonumber(args[at + 1])
    if not wanted then return invalid('a count is a number') end
    -- Something else than a text under the key is written over.
    local value = text_under(key)
    local elsewhere, alive, unheard, grants, mine, own =
      look_up(value, node, silent_for, args[at + 3] == '2')
    local granted = math.max(math.min(wanted, most - elsewhere), 0)
    if granted > 0 then
      local answered = tonumber(args[at + 2]) or own
      grants[mine] = (' %s=%.0f'):format(node, granted) .. (answered and ('!%.0f'):format(answered) or '')
    end
    local why = keep(key, value, table.concat(grants), time[1])
    if why then granted, fault = -1, why end
    numbers[#numbers + 1], numbers[#numbers + 2], numbers[#numbers + 3] = granted, elsewhere, alive
    if wanted > granted or args[at + 3] ~= '0' then
      for _, other in ipairs(unheard) do
        to_ask[other] = to_ask[other] or {}
        table.insert(to_ask[other], args[at])
      end
    end
  end
  for other, users in pairs(to_ask) do ask(other, users) end
  return { is_known and 1 or 0, numbers, take_asked(node), fault }
end
