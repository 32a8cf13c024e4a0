-- Sends requests that are listed in a file in turn, each line a method and a path. The arguments are
-- that file and, where the requests have a body, the file of that body and its content type.
local threads = 0
local requests, count

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(arguments)
  local body
  if arguments[2] then
    local file = assert(io.open(arguments[2], "rb"))
    body = file:read("*a")
    file:close()
    wrk.headers["Content-Type"] = arguments[3]
  end
  requests = {}
  for line in io.lines(arguments[1]) do
    local method, path = line:match("(%S+) (%S+)")
    requests[#requests + 1] = wrk.format(method, path, nil, body)
  end
  -- Threads don't go through the list in step.
  count = math.floor(#requests / 2) * number
end

function request()
  count = count + 1
  return requests[count % #requests + 1]
end
