"""Prints `SHA-256 SIZE NAME` of each entry of a zip: `zipfile` reads the file named, `stream-unzip` standard input as it comes."""

import hashlib
import sys
import zipfile


def note(name, pieces):
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    print(digest.hexdigest(), size, name)


sys.stdout.reconfigure(encoding="utf-8")
if len(sys.argv) > 1:
    with zipfile.ZipFile(sys.argv[1]) as archive:
        for one in archive.infolist():
            with archive.open(one) as file:
                note(one.filename, iter(lambda: file.read(1 << 16), b""))
else:
    import stream_unzip

    for name, _, pieces in stream_unzip.stream_unzip(iter(lambda: sys.stdin.buffer.read1(1 << 16), b"")):
        note(name.decode(), pieces)
