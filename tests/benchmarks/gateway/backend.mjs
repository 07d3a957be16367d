// The backend: one node process that answers from prepared bytes. It writes HTTP itself, since node's own http module
// would gather the events of a stream into one write; here each event is a write of its own, as a model's tokens are.
//
// Usage: node backend.mjs PORT REPLIES.json, with {"models": text, "chat": text, "events": [text, ...]}.
// PUT /streams/NAME says how the streams that follow go; GET /streams tells how many `idle` ones are open.
import { readFileSync } from 'node:fs'
import net from 'node:net'

const [port, file] = process.argv.slice(2)
const replies = JSON.parse(readFileSync(file, 'utf8'))

const reply = (type, text, status = '200 OK') =>
  Buffer.from(`HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
const chunk = (text) => Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`)

const MODELS = reply('application/json', replies.models)
const CHAT = reply('application/json', replies.chat)
const OK = reply('application/json', '{}')
const NOT_FOUND = reply('application/json', '{"error":{"message":"not here"}}', '404 Not Found')
const HEAD = Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n')
const EVENTS = replies.events.map(chunk)
const END = Buffer.from('0\r\n\r\n')
const PACED_EVENTS = [...EVENTS.slice(0, 8), ...EVENTS.slice(-2)]
const PACE_MS = 5

const idle = new Set()

const STREAMS = {
  // All events at once, a write each.
  fast(socket) {
    socket.write(HEAD)
    for (const event of EVENTS) socket.write(event)
    socket.write(END)
  },
  // An event per turn of the loop, so that those of several streams come by turns.
  mixed(socket) {
    socket.write(HEAD)
    let next = 0
    const step = () => {
      if (socket.destroyed) return
      socket.write(EVENTS[next++])
      if (next < EVENTS.length) setImmediate(step)
      else socket.write(END)
    }
    step()
  },
  // The first event at once, nine more 5 ms apart.
  paced(socket) {
    socket.write(HEAD)
    let next = 0
    const step = () => {
      if (socket.destroyed) return
      socket.write(PACED_EVENTS[next++])
      if (next < PACED_EVENTS.length) setTimeout(step, PACE_MS)
      else socket.write(END)
    }
    step()
  },
  // The first event at once, then silence until the other side closes.
  idle(socket) {
    idle.add(socket)
    socket.on('close', () => idle.delete(socket))
    socket.write(HEAD)
    socket.write(EVENTS[0])
  },
}
let stream = STREAMS.fast

function answer(socket, method, path, body) {
  if (method === 'POST' && path === '/v1/chat/completions') {
    if (/"stream": ?true/.test(body)) stream(socket)
    else socket.write(CHAT)
  } else if (method === 'GET' && path === '/v1/models') socket.write(MODELS)
  else if (method === 'POST' && path === '/v1/traces') socket.write(OK)
  else if (method === 'GET' && path === '/streams') socket.write(reply('application/json', `{"idle":${idle.size}}`))
  else if (method === 'PUT' && path.startsWith('/streams/') && STREAMS[path.slice(9)]) {
    stream = STREAMS[path.slice(9)]
    socket.write(OK)
  } else socket.write(NOT_FOUND)
}

const server = net.createServer({ noDelay: true }, (socket) => {
  let waiting = Buffer.alloc(0)
  socket.on('error', () => socket.destroy())
  socket.on('data', (data) => {
    waiting = waiting.length ? Buffer.concat([waiting, data]) : data
    for (;;) {
      const end = waiting.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = waiting.latin1Slice(0, end)
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)
      const start = end + 4
      if (waiting.length < start + length) return
      const body = waiting.latin1Slice(start, start + length)
      waiting = waiting.subarray(start + length)
      const [method, path] = head.split(' ', 2)
      answer(socket, method, path, body)
    }
  })
})
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
process.on('SIGTERM', () => process.exit(0))
