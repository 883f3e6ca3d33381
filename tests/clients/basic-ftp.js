// basic-ftp against a server: PORT MODE VERSION CERTIFICATE, with MODE plain, explicit or implicit.
// The folder `up` goes to /files/up and comes back as `down`.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
// Where scripts/test installs it.
const ftp = require(path.join(__dirname, '../../target/clients/node_modules/basic-ftp'));

const [port, mode, version, certificate] = process.argv.slice(2);

async function main() {
  const client = new ftp.Client(60_000);
  const access = { host: 'localhost', port: Number(port), user: 'alice', password: 'wonder' };
  if (mode !== 'plain') {
    access.secure = mode === 'implicit' ? 'implicit' : true;
    access.secureOptions = { ca: fs.readFileSync(certificate), minVersion: version, maxVersion: version };
  }
  await client.access(access);
  await client.cd('/files');
  await client.uploadFromDir('up', 'up');
  await client.downloadToDir('down', 'up');
  await client.uploadFrom('up/big.bin', 'growing');
  await client.appendFrom('up/big.bin', 'growing');
  await client.rename('growing', 'appended');
  const size = fs.statSync('up/big.bin').size;
  const seen = (await client.list()).map((entry) => `${entry.name} ${entry.type}`).sort().join();
  if (seen !== 'appended 1,up 2') throw new Error(`listed: ${seen}`);
  if ((await client.size('appended')) !== 2 * size) throw new Error('SIZE');
  if (Math.abs(Date.now() - (await client.lastMod('appended'))) > 86_400_000) throw new Error('MDTM');
  fs.writeFileSync('tail', fs.readFileSync('up/big.bin').subarray(0, 1000));
  await client.downloadTo('tail', 'appended', 1000);
  if (fs.statSync('tail').size !== 2 * size) throw new Error('REST');
  await client.ensureDir('/files/a/deep/folder');
  await client.removeDir('/files/a');
  client.close();
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
