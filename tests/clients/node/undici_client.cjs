// [url] METHOD URL: undici by the environment, or by the proxy's URL. Every script here has these arguments.
const { EnvHttpProxyAgent, ProxyAgent, fetch } = require('undici');

const [how, method, url] = process.argv.length > 4 ? process.argv.slice(2) : ['env', ...process.argv.slice(2)];
const dispatcher = how === 'url' ? new ProxyAgent(process.env.HTTPS_PROXY) : new EnvHttpProxyAgent();
fetch(url, { method, body: method === 'POST' ? '{}' : undefined, dispatcher })
  .then(async (answer) => console.log(answer.status, answer.statusText, await answer.text()))
  .catch((error) => console.log('failed', error, error.cause));
