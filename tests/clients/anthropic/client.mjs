// The @anthropic-ai/sdk as its own examples use it, with another base URL: says on its last line, as JSON, what it got.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.GATEWAY, apiKey: process.env.GATEWAY_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const asking = { model: "pointsman", max_tokens: 100, messages };
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "weather", description: "The weather of a city", input_schema: schema }];
const textOf = (message) => message.content.map((block) => block.text ?? "").join("");

const { data: whole, response } = await client.messages.create(asking).withResponse();

let streamed = "";
for await (const event of await client.messages.create({ ...asking, stream: true })) {
  if (event.type === "content_block_delta") streamed += event.delta.text;
}
const helped = await client.messages.stream(asking).finalText();

const asked = [];
async function withTools(ask) {
  const called = await ask({ ...asking, tools });
  const call = called.content.find((block) => block.type === "tool_use");
  asked.push(call.input.city);
  const result = { type: "tool_result", tool_use_id: call.id, content: "Sunny." };
  const turns = [{ role: "assistant", content: called.content }, { role: "user", content: [result] }];
  return textOf(await ask({ ...asking, tools, messages: [...messages, ...turns] }));
}
const ran = await withTools((body) => client.messages.create(body));
const streamedRan = await withTools((body) => client.messages.stream(body).finalMessage());

const json = await client.messages.create({ ...asking, output_config: { format: { type: "json_schema", schema } } });

const refusal = await client.messages.create({ ...asking, model: "nothing" }).catch((error) => error);

console.log(
  JSON.stringify({
    texts: [textOf(whole), streamed, helped, ran, streamedRan],
    tools: asked,
    json: JSON.parse(textOf(json)),
    refused: refusal instanceof Anthropic.NotFoundError,
    decision: response.headers.get("x-pointsman-decision-id"),
    models: (await client.models.list()).data.map((each) => each.id),
  }),
);
