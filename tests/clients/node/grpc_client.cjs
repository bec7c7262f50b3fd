// METHOD URL: calls the gRPC method in the URL's path; METHOD is Unary or Stream.
const grpc = require('@grpc/grpc-js');

const [kind, target] = process.argv.slice(2);
const url = new URL(target);
const same = (bytes) => bytes;
const client = new grpc.Client(`${url.hostname}:${url.port || 443}`, grpc.credentials.createSsl());
const failed = (error) => console.log(error.code, error.details);
if (kind === 'Stream') {
  const parts = [];
  const call = client.makeServerStreamRequest(url.pathname, same, same, Buffer.from('hello'));
  call.on('data', (part) => parts.push(part));
  call.on('error', failed);
  call.on('end', () => console.log('OK', parts.join(' ')));
} else {
  const deadline = { deadline: Date.now() + 30_000 };
  client.makeUnaryRequest(url.pathname, same, same, Buffer.from('hello'), new grpc.Metadata(), deadline, (error, answer) =>
    error ? failed(error) : console.log('OK', answer.toString()),
  );
}
