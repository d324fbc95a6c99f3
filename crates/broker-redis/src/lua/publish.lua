---------------------------------------------------------------------------------------------------
-- Publishing.

-- Appends an entry, whose one field is named by its head and holds the body; its id, or an error of
-- Redis. `renew`: the stream may have to be made, and its expiry is moved.
local function append(history, rules, renew, trim, id, head, body)
  local added
  if not renew then
    if trim then
      added = attempt('XADD', history, 'NOMKSTREAM', 'MAXLEN', '~', rules.size, id, head, body)
    else
      added = attempt('XADD', history, 'NOMKSTREAM', id, head, body)
    end
    -- False: the stream is gone (evicted, deleted), and with it its expiry.
    if added then return added end
  end
  added = attempt('XADD', history, 'MAXLEN', '~', rules.size, id, head, body)
  if kind(added) == 'string' then call('PEXPIRE', history, rules.history_ms) end
  return added
end

-- The newest entry's id, if there is an entry.
local function newest_id(history)
  local newest = call('XREVRANGE', history, '+', '-', 'COUNT', '1')[1]
  return newest and newest[1]
end

-- What stands between a frame's id and its body: the link, and the messageId that was given besides
-- the body.
local function head_of(last, id)
  if id == '' then return (last or '-') .. ' 0\n' end
  return (last or '-') .. ' ' .. TEXT[#id] .. '\n' .. id
end

-- Whether the caller may do what is done after the first write. (What comes before it fails by
-- itself, and a messageId whose XADD fails is forgotten.) `many`: the last id may become longer.
local function refusal_of(channel, many)
  local top, over = channel.top_key, channel.over
  local missing = not may('PUBLISH', channel.key, '') and 'PUBLISH'
    or (many or not over) and not may('SET', top, '') and 'SET'
    or over and not may('SETRANGE', top, '0', '') and 'SETRANGE'
    or channel.renew and not may('PEXPIRE', channel.history, '1') and 'PEXPIRE'
  if missing then return redis.error_reply('NOPERM ' .. missing .. ' is not allowed here') end
end

-- Whether the expiries have to be moved.
local function is_due(key, rules)
  local last = moved[key] or moved_before[key]
  if last == second then return false end
  local since = last and second - last
  -- The clock may step back.
  return not since or since < 0 or since >= rules.slack
end

-- What is known of a stored channel while something is published on it; a refusal. Nothing is written.
-- Once something was published: `settle`, whatever happens.
local function open(channel, key, rules, many)
  local tagged = '{' .. key .. '}:'
  local top_key = tagged .. 'top'
  local top = call('GET', top_key)
  channel.key, channel.rules, channel.tagged, channel.top_key = key, rules, tagged, top_key
  channel.history, channel.top, channel.added, channel.scope = tagged .. 'h', top, nil, nil
  local last, renew = top, not top or is_due(key, rules)
  channel.renew, channel.renewed = renew, false
  if not last then last = newest_id(channel.history) end
  -- A channel of which nothing is known may be the first one after a flush.
  if not last then present_life() end
  local place = id_above(last)
  if not place then
    last = newest_id(channel.history)
    place = id_above(last)
  end
  channel.last, channel.place = last, place
  -- Written over where it is as long, which is half as dear as SET, and keeps its expiry.
  channel.over = not renew and #top == #place
  -- One message in five, by chance, trims the stream: nothing has to be counted for that. Of many on
  -- one channel every eighth does so besides.
  channel.trim = chance == 0 and 8 or 1
  return refusal_of(channel, many)
end

-- Under which key a messageId is remembered. The scope's length makes it unambiguous.
local function remembered_as(channel, scope, id)
  if channel.scope ~= scope then
    channel.scope = scope
    channel.ids = channel.tagged .. 'id:' .. (TEXT[#scope] or #scope) .. ':' .. scope .. ':'
  end
  return channel.ids .. id
end

-- Appends after whatever is there: the message's id and its head, or an error of Redis.
local function append_somewhere(channel, place, given, body)
  local history, trim, head = channel.history, channel.trim, head_of(channel.last, given)
  channel.trim = trim % 8 + 1
  local added = append(history, channel.rules, channel.renew, trim == 8, place, head, body)
  if kind(added) == 'table' and find(added.err, 'equal or smaller', 1, true) then
    -- Somebody wrote to the stream or set the last id back: the stream knows better.
    local newest, last = newest_id(history), channel.last
    if newest and not (last and is_above(last, newest)) then last = newest end
    head = head_of(last, given)
    added = append(history, channel.rules, channel.renew, trim == 8, '*', head, body)
  end
  return added, head
end

-- Writes down where the channel is now.
local function settle(channel)
  local added = channel.added
  if not added then return end
  if channel.renewed then
    note_moved(channel.key, second)
    call('SET', channel.top_key, added, 'PX', channel.rules.top_ms)
  elseif channel.over and #channel.top == #added then
    call('SETRANGE', channel.top_key, '0', added)
  else
    call('SET', channel.top_key, added, 'KEEPTTL')
  end
end

-- The one channel of a call that publishes one message, which is settled before anybody hears of it.
local only = {}

-- Publishes on a stored channel that is open: the message's id and 1 for a duplicate, or nil and an
-- error. `given`: the messageId to add to the frame; `id`: the one to remember.
local function store(channel, body, given, id, scope, digest)
  local place = channel.place or id_above(channel.last)
  channel.place = place
  local remembered, free
  if id then
    remembered = remembered_as(channel, scope, id)
    local known = call('SET', remembered, place .. ' ' .. digest, 'NX', 'GET', 'PX', DEDUPE_MS)
    free = not known
    if known and known ~= '' then
      local first, said = known:match('^(%S+) (.*)$')
      if said == digest then
        -- Written anew as it is: what is not written is not waited for by WAIT, though the first
        -- attempt may be on no replica yet.
        call('SET', remembered, known, 'KEEPTTL')
        return first, 1
      end
      return nil, redis.error_reply('CONFLICT another body was published with this messageId')
    end
  end
  local added, head = append_somewhere(channel, place, given, body)
  if kind(added) == 'table' then
    -- Nothing is stored: the messageId is free again. (Who may SET may perhaps not DEL.)
    if remembered then call('SET', remembered, '', 'PX', '1') end
    return nil, added
  end
  channel.last, channel.place, channel.added = added, nil, added
  if channel.renew then channel.renew, channel.renewed = false, true end
  if remembered and not (free and added == place) then
    call('SET', remembered, added .. ' ' .. digest, 'PX', DEDUPE_MS)
  end
  if channel == only then settle(channel) end
  call('PUBLISH', channel.key, announcement .. added .. ' ' .. head .. body)
  return added, 0
end

-- Replies { cursor or '', 1 for a duplicate }; to a gateway { id or '', 1 for a duplicate, life }.
local function publish(keys, args)
  if not call then prepare() end
  local key, body, id, scope, digest = keys[1], args[1], args[2], args[3], args[4]
  if #keys ~= 1 or not body or #args == 3 or #args > 4 then
    return invalid('one key, a body and perhaps a messageId are needed')
  end
  local rules, refusal = rules_of(key)
  if not rules then return refusal end
  if id == '' then id = nil end
  local given = ''
  if scope then
    -- Its envelope has the messageId.
    if #body > FRAME_BYTES then return too_large(#body, FRAME_BYTES) end
  else
    local own
    -- Gateways have looked at it themselves; one that was published to is a good one.
    local fault = not (moved[key] or moved_before[key]) and name_fault(sub(key, #PREFIX + 1))
    if fault then return invalid('a channel name ' .. fault) end
    own, refusal = check_body(body, id)
    if refusal then return refusal end
    given, id = id or '', id or own
  end
  local added, duplicate
  if rules.is_live then
    if given ~= '' then body = NAMED_MARK .. string.char(#given) .. given .. body end
    call('PUBLISH', key, body)
  else
    digest = digest or id and redis.sha1hex(body):sub(1, 20)
    look_at_the_clock()
    refusal = open(only, key, rules, false)
    if refusal then return refusal end
    added, duplicate = store(only, body, given, id, scope or 'd', digest)
    -- The second one is an error.
    if not added then return duplicate end
  end
  if scope then return { added or '', duplicate or 0, added and life or '' } end
  return { added and cursor(key, added) or '', duplicate or 0 }
end

-- One message of a gateway: the line of the answer.
local function publish_one(channels, key, body, id, scope, digest)
  if #body > FRAME_BYTES then return nil, too_large(#body, FRAME_BYTES) end
  local channel = channels[key]
  if not channel then
    local rules, refusal = rules_of(key)
    if not rules then return nil, refusal end
    channel = { rules = rules }
    if not rules.is_live then
      refusal = open(channel, key, rules, true)
      if refusal then return nil, refusal end
    end
    channels[key] = channel
  end
  if channel.rules.is_live then
    call('PUBLISH', key, body)
    return ''
  end
  if id == '' then id = nil end
  local added, duplicate = store(channel, body, '', id, scope, digest)
  if duplicate == 1 then return '=' .. added end
  return added, duplicate
end

-- Many messages of a gateway at once, which costs less. Each fares by itself. Replies lines: the life;
-- then for each message its id, after '=' that of the first one if it is a duplicate, nothing on a live
-- channel, or '!' and an error.
local function publish_many(keys, args)
  if not call then prepare() end
  if #keys ~= 0 or #args == 0 or #args % 5 ~= 0 then
    return invalid('for each message five arguments are needed')
  end
  look_at_the_clock()
  local channels, lines, at = {}, {}, 1
  local function rest()
    while at < #args do
      local first = at
      at = at + 5
      local line, fault = publish_one(channels, args[first], args[first + 1], args[first + 2],
        args[first + 3], args[first + 4])
      lines[(at - 1) / 5] = line or '!' .. fault.err:gsub('[\r\n]', ' ')
    end
  end
  repeat
    local is_done, fault = pcall(rest)
    if not is_done then
      fault = kind(fault) == 'table' and fault.err or tostring(fault)
      lines[(at - 1) / 5] = '!' .. fault:gsub('[\r\n]', ' ')
    end
  until is_done
  for _, channel in pairs(channels) do settle(channel) end
  return life .. '\n' .. table.concat(lines, '\n')
end

