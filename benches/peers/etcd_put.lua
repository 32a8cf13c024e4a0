-- Puts one key of 5 bytes with a value of 32 bytes through etcd's JSON gateway.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"key":"YmVuY2g=","value":"dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnY="}'
