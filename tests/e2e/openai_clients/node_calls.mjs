// The openai package of npm. Usage: node node_calls.mjs SETTINGS: of one lane, as JSON; see checks.py.

import assert from "node:assert/strict";
import OpenAI from "openai";

const settings = JSON.parse(process.argv[2]);
const reached = new Set();
let requests = 0;
const local = (url, options) => {
  requests += 1;
  reached.add(new URL(url instanceof Request ? url.url : url).hostname);
  return fetch(url, options);
};
const client = new OpenAI({ baseURL: settings.url, apiKey: "unused", timeout: 60_000, maxRetries: 0, fetch: local });
const question = [{ role: "user", content: "Capital of France?" }];
const weather = [{ role: "user", content: "Weather in Paris?" }];
const asked = { model: settings.chat_model, temperature: 0, max_tokens: 3, messages: question };
// It cannot end before its limit, which takes half a minute, whatever the model.
const numbers = { type: "array", items: { type: "integer" }, minItems: 1000 };
const long = {
  ...asked,
  max_tokens: 1500,
  response_format: { type: "json_schema", json_schema: { name: "numbers", schema: numbers, strict: true } },
};
const citySchema = {
  type: "object",
  properties: { city: { enum: ["Paris", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};

/** The error is of this kind, has these properties, and was not tried again, though the client may. */
async function refused(kind, expected, call) {
  requests = 0;
  const error = await call(client.withOptions({ maxRetries: 2 })).then(
    () => assert.fail("was not refused"),
    (reason) => reason,
  );
  assert.ok(error instanceof kind, String(error));
  for (const [name, value] of Object.entries(expected)) assert.equal(error[name], value, `${name} of ${error}`);
  assert.ok(error.requestID, "no request id");
  assert.equal(requests, 1);
}

const checks = {
  async chat() {
    const reply = await client.chat.completions.create(asked);
    assert.equal(reply.object, "chat.completion");
    assert.equal(reply.choices[0].finish_reason, "length");
    assert.ok(reply.choices[0].message.content);
    assert.equal(reply.usage.completion_tokens, 3);
    assert.ok(reply.usage.prompt_tokens > 5);
    assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + 3);
    assert.ok(reply._request_id);
  },

  async stream() {
    const { data: whole, response, request_id } = await client.chat.completions.create(asked).withResponse();
    assert.equal(response.headers.get("content-type").split(";")[0], "application/json");
    assert.equal(request_id, whole._request_id);
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 3);
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    const reasons = chunks.map((chunk) => chunk.choices[0].finish_reason);
    assert.deepEqual(reasons.filter(Boolean), ["length"]);
    assert.equal(reasons.at(-1), "length");
  },

  async streamHelper() {
    const runner = client.chat.completions.stream(asked);
    let seen = "";
    runner.on("content.delta", ({ delta }) => (seen += delta));
    const final = await runner.finalChatCompletion();
    assert.ok(seen);
    assert.equal(final.choices[0].message.content, seen);
  },

  async leftStreams() {
    const started = Date.now();
    for (let round = 0; round < 2; round++) {
      const stream = await client.chat.completions.create({ ...long, stream: true });
      let pieces = 0;
      for await (const _ of stream) if (++pieces === 3) break;
      assert.equal(pieces, 3);
    }
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 300);
    const call = client.chat.completions.create(long, { signal: controller.signal });
    await assert.rejects(call, OpenAI.APIUserAbortError);
    await client.chat.completions.create(asked);
    assert.ok(Date.now() - started < 12_000, `${Date.now() - started} ms`);
  },

  async runTools() {
    if (settings.forwarded) return; // which is proved with the Python package
    const calls = [];
    const runner = client.chat.completions.runTools(
      {
        ...asked,
        max_tokens: 64,
        messages: weather,
        // A required tool would be called again and again.
        tool_choice: { type: "function", function: { name: "get_weather" } },
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              description: "Weather of a city",
              parameters: citySchema,
              parse: JSON.parse,
              function: (given) => {
                calls.push(given);
                return "Sunny.";
              },
            },
          },
        ],
      },
      { maxChatCompletions: 1 },
    );
    await runner.done();
    assert.deepEqual(Object.keys(calls[0]), ["city"]);
    assert.deepEqual(runner.messages.map((message) => message.role), ["user", "assistant", "tool"]);
    assert.ok(runner.messages[1].tool_calls[0].id);
    assert.equal(runner.messages[2].tool_call_id, runner.messages[1].tool_calls[0].id);
  },

  async parse() {
    const reply = await client.chat.completions.parse({
      ...asked,
      max_tokens: 64,
      response_format: { type: "json_schema", json_schema: { name: "city", schema: citySchema, strict: true } },
    });
    assert.equal(reply.choices[0].finish_reason, "stop");
    assert.deepEqual(Object.keys(JSON.parse(reply.choices[0].message.content)), ["city"]);
  },

  async completions() {
    const given = { model: settings.chat_model, prompt: "The capital of France is", temperature: 0, max_tokens: 3 };
    const reply = await client.completions.create(given);
    let text = "";
    for await (const chunk of await client.completions.create({ ...given, stream: true })) text += chunk.choices[0].text;
    assert.ok(text);
    assert.equal(text, reply.choices[0].text);
  },

  async embeddings() {
    const given = { model: settings.embedding_model, input: ["a llama", "an alpaca"] };
    const encoded = await client.embeddings.create(given);
    const floats = await client.embeddings.create({ ...given, encoding_format: "float" });
    assert.deepEqual(encoded.data.map((entry) => entry.embedding.length), [settings.dimension, settings.dimension]);
    encoded.data.forEach((entry, place) => {
      entry.embedding.forEach((value, at) => assert.ok(Math.abs(value - floats.data[place].embedding[at]) < 1e-6));
    });
    assert.ok(encoded.usage.prompt_tokens > 0);
  },

  async moderations() {
    const reply = await client.moderations.create({ model: settings.shield, input: ["Llamas spit.", "Llamas hum."] });
    assert.deepEqual(reply.results.map((result) => result.flagged), [true, false]);
  },

  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes(settings.chat_model), names.join());
    assert.equal((await client.models.retrieve(settings.chat_model)).id, settings.chat_model);
  },

  async errors() {
    const create = (changes) => (retrying) => retrying.chat.completions.create({ ...asked, ...changes });
    const invalid = { status: 400, type: "invalid_request_error", code: "invalid_value" };
    const unknown = { status: 404, code: "model_not_found", param: "model" };
    await refused(OpenAI.NotFoundError, unknown, create({ model: "nope" }));
    await refused(OpenAI.NotFoundError, unknown, (retrying) => retrying.models.retrieve("nope"));
    if (!settings.forwarded) {
      await refused(OpenAI.BadRequestError, { ...invalid, param: "top_p" }, create({ top_p: 1.5 }));
      await refused(OpenAI.BadRequestError, { ...invalid, param: "top_p" }, create({ top_p: 1.5, stream: true }));
      const unsupported = { status: 400, code: "unsupported_parameter", param: "audio" };
      await refused(OpenAI.BadRequestError, unsupported, create({ audio: { voice: "alloy", format: "wav" } }));
    }
    await assert.rejects(client.chat.completions.create(long, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  },
};

let failures = 0;
for (const [name, check] of Object.entries(checks)) {
  const started = Date.now();
  try {
    await check();
    console.log(`ok ${((Date.now() - started) / 1000).toFixed(1)} s  ${name}`);
  } catch (error) {
    failures += 1;
    console.log(`FAILED ${name}\n${error.stack}`);
  }
}
assert.deepEqual([...reached], ["127.0.0.1"]);
if (failures) process.exitCode = 1;
else console.log(`all ${Object.keys(checks).length} checks passed`);
