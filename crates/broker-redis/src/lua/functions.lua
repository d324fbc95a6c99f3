-- Replies { prefix, format, revision, digest of code and rules }.
local function about()
  return { PREFIX, FORMAT, REVISION, DIGEST }
end

redis.register_function('@library@_publish', publish)
redis.register_function('@library@_publish_many', publish_many)
redis.register_function('@library@_claim', claim)
redis.register_function{
  function_name = '@library@_read', callback = read, flags = { 'no-writes', 'allow-oom' },
}
redis.register_function{
  function_name = '@library@_about', callback = about, flags = { 'no-writes', 'allow-oom' },
}
