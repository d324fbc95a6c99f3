---------------------------------------------------------------------------------------------------
-- Users' streams, over all nodes. Each node claims how many a user has there; granted is what fits
-- besides what was granted to the others, so that of nodes which find a user over the limit at once only
-- the later one is over it. What was granted stands as long as its node calls.

local LEASES, USERS = PREFIX .. '{node}:lease:', PREFIX .. '{node}:user:'
-- A node that was silent for so long is not counted; for longer than a lease, it is forgotten. (In
-- between it goes on as before, so that a moment's silence costs nothing.)
local SILENT_MS, LEASE_MS = 5000, '15000'
-- What was granted is kept for so long after it was written, which is done again when it is this old; nodes
-- claim all they have every quarter of an hour.
local USER_MS, OLD_SECONDS = '3600000', 600

-- Replies { 0 if the node was forgotten, then for each user: granted, granted elsewhere }.
local function claim(keys, args)
  if not call then prepare() end
  local node, most = args[1], tonumber(args[2])
  if #keys ~= 0 or not node or not find(node, '^%x+$') or not most or #args % 2 ~= 0 then
    return invalid('a node, a limit, and for each user two arguments are needed')
  end
  local time = call('TIME')
  local seconds = tonumber(time[1])
  local now_ms = seconds * 1000 + math.floor(time[2] / 1000)
  local reply = { call('GET', LEASES .. node) and 1 or 0 }
  call('SET', LEASES .. node, ('%.0f'):format(now_ms), 'PX', LEASE_MS)
  -- For how long each of the other nodes was silent; false of one that is forgotten.
  local silence = {}
  local function silent_for(other)
    if silence[other] == nil then
      local seen = tonumber(call('GET', LEASES .. other) or nil)
      silence[other] = seen and now_ms - seen
    end
    return silence[other]
  end
  for at = 3, #args, 2 do
    local key, wanted = USERS .. args[at], tonumber(args[at + 1])
    if not wanted then return invalid('a count is a number') end
    local value = call('GET', key) or ''
    local elsewhere, grants, mine = 0, {}, nil
    for other, granted in value:gmatch(' (%x+)=(%d+)') do
      if other == node then
        grants[#grants + 1], mine = '', #grants + 1
      else
        local silent = silent_for(other)
        if silent then
          grants[#grants + 1] = ' ' .. other .. '=' .. granted
          if silent < SILENT_MS then elsewhere = elsewhere + granted end
        end
      end
    end
    local granted = math.max(math.min(wanted, most - elsewhere), 0)
    if granted > 0 then
      grants[mine or #grants + 1] = (' %s=%.0f'):format(node, granted)
    end
    local text = table.concat(grants)
    local written, before = value:match('^(%d*)(.*)$')
    if text == '' then
      -- (Who may SET may perhaps not DEL.)
      if value ~= '' then call('SET', key, '', 'PX', '1') end
    elseif text ~= before or seconds - written >= OLD_SECONDS then
      call('SET', key, time[1] .. text, 'PX', USER_MS)
    end
    reply[#reply + 1], reply[#reply + 2] = granted, elsewhere
  end
  return reply
end

