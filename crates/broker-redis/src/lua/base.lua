#!lua name=@library@
--
-- Tidewire's function library for Redis 7 and Valkey: all that is ever stored is stored here.
--
--   FCALL    @library@_publish 1 @prefix@:<channel> <body> [<messageId>]
--   FCALL    @library@_publish 1 @prefix@:<channel> <envelope> <messageId or ""> <scope> <digest>
--   FCALL    @library@_publish_many 0 (@prefix@:<channel> <envelope> <messageId or ""> <scope> <digest>)...
--   FCALL_RO @library@_read    1 @prefix@:<channel> <after or ""> <before or ""> <limit> <newest> <bytes or 0>
--   FCALL    @library@_claim   0 <node> <most> (<user> <count> <answered or '-'> <asks>)...
--   FCALL_RO @library@_about   0
--
-- Backends use the first form, gateways the others. The nodes load the library: they replace what
-- stands between at signs by their configuration. docs/redis.md tells what is kept under which key.
--
-- It costs Redis's one thread, so that the usual way through it makes few calls and few texts; what is
-- odd about it for that reason says so. `scripts/redis-cost` measures it.

local PREFIX = '@prefix@:'
local FORMAT, REVISION, DIGEST = '@format@', '@revision@', '@digest@'

-- The namespaces' rules, each { size, ttl in ms }, and the bounds.
local BODY_BYTES, FRAME_BYTES, DEDUPE_MS = @body_bytes@, @frame_bytes@, '@dedupe_ms@'
-- Whether a restart and a promotion lose nothing that was acknowledged: then neither begins a new life.
local TRUSTS = @trusts@
local DEFAULT = @default@
local NAMED = @named@

-- Small numbers as texts, and after each the next with its hyphen.
local TEXT, NEXT = {}, {}
for number = 0, 300 do
  TEXT[number] = number .. ''
  NEXT[number .. ''] = '-' .. (number + 1)
end

-- The random text that is gone after a flush.
local EPOCH = PREFIX .. '{node}:epoch'
-- Begins a stored message's frame: the marker, the version, the flag of stored ones.
local MARK = '\193\1\128'
-- Begins the frame of a live message whose messageId was given besides the body.
local NAMED_MARK = '\193\1\64'
-- The last id outlives the messages: 30 days, or twice their time.
local TOP_MS = 30 * 24 * 3600 * 1000
local MAX_ID, MAX_EVENT, MAX_NESTING = 128, 64, 128

-- What is called for every message. Redis forbids the use of anything global while the library loads,
-- and looking it up each time costs.
local call, attempt, may, byte, sub, find, kind, xor

---------------------------------------------------------------------------------------------------
-- Refusals. Nothing has been written when one is returned.

local function invalid(why)
  return redis.error_reply('INVALID ' .. why)
end

local function too_large(length, most)
  return redis.error_reply('TOOLARGE ' .. length .. ' bytes; at most ' .. most .. ' are allowed')
end

