-- wrk's side of the loader: POSTs one body, and prints what came of it as a line of JSON.
-- Environment: BENCH_BODY, the file with the body; BENCH_END, what each reply must end with (unset: not looked at).

local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()

local ending = os.getenv("BENCH_END")
local thread_of_run
unfinished = 0

function setup(thread)
  thread_of_run = thread
end

if ending then
  local size = #ending
  function response(status, headers, body)
    if body:sub(-size) ~= ending then
      unfinished = unfinished + 1
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "seconds": %.6f, "received_bytes": %d, "p50_ms": %.4f, "p99_ms": %.4f, "errors": ' ..
    '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, "unfinished": %d}}',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    thread_of_run:get("unfinished")))
end
