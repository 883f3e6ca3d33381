// tus-js-client against a folder: URL USER:PASSWORD FILE. Uploads the file once with its line cut in the middle and gone on with by a
// second client, and once in parallel parts.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
// Where scripts/test installs it.
const tus = require(path.join(__dirname, '../../target/clients/node_modules/tus-js-client'));

const [endpoint, login, file] = process.argv.slice(2);
const headers = { Authorization: `Basic ${Buffer.from(login).toString('base64')}` };
const size = fs.statSync(file).size;

function upload(options, cutAt) {
  return new Promise((resolve, reject) => {
    const one = new tus.Upload(fs.createReadStream(file), {
      endpoint,
      headers,
      uploadSize: size,
      retryDelays: [100, 500, 1000],
      onError: reject,
      onSuccess: () => resolve(one.url),
      onProgress: (sent) => {
        if (cutAt && sent >= cutAt) {
          const { url } = one;
          one.abort(false).then(() => resolve(url), reject);
        }
      },
      ...options,
    });
    one.start();
  });
}

async function main() {
  const metadata = { filename: 'resumed.bin', filetype: 'application/octet-stream' };
  const url = await upload({ metadata, chunkSize: 256 * 1024 }, size / 2);
  const told = await fetch(url, { method: 'HEAD', headers: { ...headers, 'Tus-Resumable': '1.0.0' } });
  const offset = Number(told.headers.get('upload-offset'));
  if (!(offset > 0 && offset < size)) throw new Error(`it is at ${offset} of ${size}`);
  await upload({ metadata, chunkSize: 256 * 1024, uploadUrl: url });
  // Parts are slices of the file: a path is enough for those.
  await new Promise((resolve, reject) => {
    const buffer = fs.readFileSync(file);
    const one = new tus.Upload(buffer, {
      endpoint,
      headers,
      parallelUploads: 3,
      metadata: { filename: 'parallel.bin' },
      onError: reject,
      onSuccess: resolve,
    });
    one.start();
  });
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
