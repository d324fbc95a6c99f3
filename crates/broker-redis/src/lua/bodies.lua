---------------------------------------------------------------------------------------------------
-- Bodies of backends: refused here is what a gateway could not deliver.

local json
local MEMBERS = { event = true, payload = true, messageId = true, exclude = true }

-- The JSON value of a text, or nil and why it is none.
local function decode(text)
  if not json then
    -- One of our own: its settings are not those of other libraries.
    json = cjson.new()
    json.decode_max_depth(MAX_NESTING)
    json.decode_invalid_numbers(false)
  end
  local is_json, value = pcall(json.decode, text)
  if is_json then return value end
  return nil, tostring(value)
end

-- Whether JSON is nested too deep. Few bodies have as many brackets; only those are decoded.
local function is_too_deep(body)
  local count = 0
  for _, bracket in ipairs({ '{', '[' }) do
    local at = find(body, bracket, 1, true)
    while at do
      count = count + 1
      if count > MAX_NESTING then
        local _, fault = decode(body)
        return fault and fault:find('nested', 1, true) ~= nil
      end
      at = find(body, bracket, at + 1, true)
    end
  end
  return false
end

-- Where a JSON text that begins at a place ends, and itself; nil when it does not end.
local function walk_text(body, at)
  local close = at
  repeat
    close = find(body, '"', close + 1, true)
    if not close then return nil end
    local slashes = 0
    while byte(body, close - 1 - slashes) == 92 do slashes = slashes + 1 end
  until slashes % 2 == 0
  local escape = find(body, '\\', at + 1, true)
  if not escape or escape > close then return close + 1, sub(body, at + 1, close - 1) end
  local value = decode('[' .. sub(body, at, close) .. ']')
  return close + 1, value and value[1]
end

-- Where a JSON value that begins at a place ends, and what it is as far as that matters; nil when
-- unsure.
local function walk_value(body, at)
  local first = byte(body, at)
  if first == 34 then return walk_text(body, at) end
  if first == 123 then return body:match('^%b{}()', at), 0 end
  if first == 91 then return body:match('^%b[]()', at), 0 end
  local word, to = body:match('^([%w.+-]+)()', at)
  return to, word == 'null' and cjson.null or 0
end

-- The members of an object, without a look into the values: a table, false if one stands twice, nil
-- when unsure. It may be mistaken only about texts that are no JSON.
local function walk(body)
  local members, twice = {}, false
  local at = body:match('^[ \t\r\n]*{[ \t\r\n]*()')
  while true do
    local name, from = body:match('^"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*()', at)
    if not name then return nil end
    local to, value = walk_value(body, from)
    if not to or value == nil then return nil end
    twice = twice or members[name] ~= nil
    members[name] = value
    local mark, following = body:match('^[ \t\r\n]*([,}])[ \t\r\n]*()', to)
    if not mark then return nil end
    if mark == '}' then
      if following <= #body then return nil end
      return not twice and members
    end
    at = following
  end
end

-- Whether an object may have members that must be looked at. Where a name stands once, before a text
-- that is a good one, there is nothing to refuse, whether it is a member of the message or something
-- in its payload.
local function is_plain_enough(body, needs_id)
  if not find(body, '"payload"', 1, true) then return true end
  if find(body, '"exclude"', 1, true) then return false end
  if needs_id and find(body, '"messageId"', 1, true) then return false end
  local _, at = find(body, '"event"', 1, true)
  if not at then return true end
  local event = body:match('^[ \t\r\n]*:[ \t\r\n]*"([^"\\%c\194]+)"', at + 1)
  return event and #event <= MAX_EVENT and event:sub(1, 9) ~= 'tidewire:'
    and not find(body, '"event"', at + 1, true)
end

-- The members of a body that is a message; nil if the body is itself the payload.
local function message_of(body)
  local members = walk(body)
  if members == nil then members = decode(body) end
  if type(members) ~= 'table' or members.payload == nil then return nil end
  for name in pairs(members) do
    if not MEMBERS[name] then return nil end
  end
  return members
end

local function text_fault(text, most)
  if type(text) ~= 'string' then return 'must be a string' end
  if #text == 0 or #text > most then return 'must have 1 to ' .. most .. ' bytes' end
end

-- What is wrong with a message, if anything is.
local function message_fault(members)
  local function given(name)
    local value = members[name]
    if value ~= cjson.null then return value end
  end
  local event, id, exclude = given('event'), given('messageId'), given('exclude')
  local fault = event and text_fault(event, MAX_EVENT)
  if event and not fault then
    if has_control(event) then fault = 'holds no control characters' end
    if event:sub(1, 9) == 'tidewire:' then fault = "must not begin with 'tidewire:'" end
  end
  if fault then return "'event' " .. fault end
  fault = id and text_fault(id, MAX_ID)
  if fault then return "'messageId' " .. fault end
  -- 16 bytes of base64url.
  if exclude and (type(exclude) ~= 'string' or #exclude ~= 22
    or not exclude:find('^[%w_-]+[AQgw]$')) then
    return "'exclude' must be a session's id"
  end
end

-- Checks what a backend publishes: its own messageId, if it has one, and a refusal.
local function check_body(body, id)
  if #body > BODY_BYTES then return nil, too_large(#body, BODY_BYTES) end
  if id and (#id > MAX_ID or (find(id, '[\128-\255]') and not is_utf8(id))) then
    return nil, invalid('a messageId has 1 to ' .. MAX_ID .. ' bytes of UTF-8')
  end
  if byte(body) == 0xC1 then
    return nil, invalid("the byte 0xC1 begins a gateway's own frame")
  end
  local first = byte(body)
  if first and first <= 32 then first = byte(body, find(body, '[^ \t\r\n]') or 1) end
  if first ~= 123 and first ~= 91 then return nil end
  if #body > MAX_NESTING and is_too_deep(body) then
    return nil, invalid('JSON nested deeper than ' .. MAX_NESTING)
  end
  if first == 91 or is_plain_enough(body, not id) then return nil end
  local members = message_of(body)
  if not members then return nil end
  local fault = message_fault(members)
  if fault then return nil, invalid(fault) end
  local own = members.messageId
  return own ~= cjson.null and own or nil
end

