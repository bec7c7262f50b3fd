// METHOD URL, both unused: a model list with the vendor's SDK, through undici's fetch by the environment.
const OpenAI = require('openai');
const { EnvHttpProxyAgent, fetch } = require('undici');

const client = new OpenAI({ fetch, fetchOptions: { dispatcher: new EnvHttpProxyAgent() }, maxRetries: 0 });
(async () => {
  const question = { model: 'gpt-test', messages: [{ role: 'user', content: 'hello' }] };
  console.log((await client.chat.completions.create(question)).choices[0].message.content);
  console.log((await client.models.list()).data[0].id);
})().catch((error) => console.log(error.status, error.message));
