const axios = require('axios');

const [method, url] = process.argv.slice(2);
axios
  .request({ method, url, data: method === 'POST' ? '{}' : undefined, validateStatus: () => true, responseType: 'text' })
  .then((answer) => console.log(answer.status, answer.statusText, answer.data))
  .catch((error) => console.log('failed', error.message));
