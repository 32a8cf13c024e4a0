-- Renews leases in turn. The argument is a file with a lease's name and its fencing token per line.
local requests, count

function init(arguments)
  requests = {}
  count = 0
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(arguments[1]) do
    local name, token = line:match("(%S+) (%d+)")
    local body = '{"fencing_token":' .. token .. ',"ttl":"10m"}'
    requests[#requests + 1] = wrk.format("POST", "/v1/leases/" .. name .. "/renew", nil, body)
  end
end

function request()
  count = count + 1
  return requests[count % #requests + 1]
end
