// The openai SDK as its own examples use it, with another base URL: says on its last line, as JSON, what it got.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY}/v1`, apiKey: process.env.GATEWAY_KEY, maxRetries: 0 });
const model = "pointsman";
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const { data: whole, response } = await client.chat.completions.create({ model, messages }).withResponse();

let streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const asked = [];
const weather = {
  name: "weather",
  description: "The weather of a city",
  parameters: schema,
  parse: JSON.parse,
  function: ({ city }) => {
    asked.push(city);
    return "Sunny.";
  },
};
const tools = [{ type: "function", function: weather }];
const run = client.chat.completions.runTools({ model, messages, tools });
const ran = await run.finalContent();
const streamedRun = client.chat.completions.runTools({ model, messages, tools, stream: true });
const streamedRan = await streamedRun.finalContent();

const json = await client.chat.completions.create({
  model,
  messages,
  response_format: { type: "json_schema", json_schema: { name: "place", schema } },
});

const answer = await client.responses.create({ model, input: "Is all well?" });
let spoken = "";
for await (const event of await client.responses.create({ model, input: "Is all well?", stream: true })) {
  if (event.type === "response.output_text.delta") spoken += event.delta;
}

const refusal = await client.chat.completions.create({ model: "nothing", messages }).catch((error) => error);

console.log(
  JSON.stringify({
    texts: [whole.choices[0].message.content, streamed, ran, streamedRan, answer.output_text, spoken],
    tools: asked,
    json: JSON.parse(json.choices[0].message.content),
    refused: refusal instanceof OpenAI.NotFoundError,
    decision: response.headers.get("x-pointsman-decision-id"),
    models: (await client.models.list()).data.map((each) => each.id),
  }),
);
