// METHOD URL: says hello on a WebSocket and prints what comes back.
import { createRequire } from 'node:module';

// NODE_PATH is for require() alone.
const require = createRequire(process.env.NODE_PATH + '/');
const { HttpsProxyAgent } = require('https-proxy-agent');
const { WebSocket } = require('ws');

const url = process.argv[3].replace('https://', 'wss://');
const socket = new WebSocket(url, { agent: new HttpsProxyAgent(process.env.HTTPS_PROXY) });
socket.on('open', () => socket.send('hello'));
socket.on('message', (data) => {
  console.log('101', data.toString());
  socket.close();
});
socket.on('unexpected-response', (_request, answer) => {
  let body = '';
  answer.on('data', (data) => (body += data));
  answer.on('end', () => console.log(answer.statusCode, answer.statusMessage, body));
});
socket.on('error', (error) => console.log('failed', error.message));
