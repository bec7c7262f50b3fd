import https from 'node:https';
import { createRequire } from 'node:module';

// NODE_PATH is for require() alone.
const { HttpsProxyAgent } = createRequire(process.env.NODE_PATH + '/')('https-proxy-agent');

const [method, url] = process.argv.slice(2);
const request = https.request(url, { method, agent: new HttpsProxyAgent(process.env.HTTPS_PROXY) }, (answer) => {
  let body = '';
  answer.on('data', (data) => (body += data));
  answer.on('end', () => console.log(answer.statusCode, answer.statusMessage, body));
});
request.on('error', (error) => console.log('failed', error));
request.end(method === 'POST' ? '{}' : undefined);
