// Prints `SHA-256 SIZE NAME` of each entry of a zip: `unzipper` and `fflate` read standard input as it comes, `yauzl` the file named.
const { createHash } = require("node:crypto");

function note(name) {
  const digest = createHash("sha256");
  let size = 0;
  return {
    take(piece) {
      digest.update(piece);
      size += piece.length;
    },
    end() {
      console.log(`${digest.digest("hex")} ${size} ${name}`);
    },
  };
}

async function unzipper() {
  const entries = process.stdin.pipe(require("unzipper").Parse({ forceStream: true }));
  for await (const entry of entries) {
    const noted = note(entry.path);
    for await (const piece of entry) noted.take(piece);
    noted.end();
  }
}

async function fflate() {
  const { Unzip, UnzipInflate } = require("fflate");
  const unzip = new Unzip();
  unzip.register(UnzipInflate);
  let open = 0;
  unzip.onfile = (file) => {
    open++;
    const noted = note(file.name);
    file.ondata = (error, piece, final) => {
      if (error) throw error;
      noted.take(piece);
      if (final) {
        noted.end();
        open--;
      }
    };
    file.start();
  };
  for await (const piece of process.stdin) unzip.push(piece);
  unzip.push(new Uint8Array(), true);
  if (open) throw new Error("the zip ends within a file");
}

async function yauzl(path) {
  const zip = await require("yauzl").openPromise(path);
  for await (const entry of zip.eachEntry()) {
    const noted = note(entry.fileName);
    if (!entry.fileName.endsWith("/")) {
      for await (const piece of await zip.openReadStreamPromise(entry)) noted.take(piece);
    }
    noted.end();
  }
}

// A reader that stops without an answer has failed.
process.exitCode = 1;
({ unzipper, fflate, yauzl })[process.argv[2]](process.argv[3]).then(() => (process.exitCode = 0), console.error);
