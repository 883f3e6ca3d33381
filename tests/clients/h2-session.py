"""HTTP/2 by the Python h2 library, frame by frame: h2-session.py HOST PORT [PID | drain]

Everything is served over TLS with ALPN; `/pub/a.txt` holds `hello`, `/pub/big` 300,000 bytes, `/pub/up` may be written by alice. Prints one line
for each thing tried; ends with 0 when all held. With the server's PID, what floods leave behind in its memory is measured. `drain` prints
`ready` and waits for the server's goodbye.
"""

import base64
import re
import socket
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hpack import Decoder, Encoder
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)

HOST, PORT = sys.argv[1], int(sys.argv[2])
PID = sys.argv[3] if sys.argv[3:] and sys.argv[3].isdigit() else None
ALICE = ("authorization", "Basic " + base64.b64encode(b"alice:wonder-land").decode())
BIG = bytes(n % 251 for n in range(300_000))
# what a flood may leave behind in the server's memory
MOST_LEFT = 48 << 20


def connect():
    sock = socket.create_connection((HOST, PORT), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(sock, server_hostname="localhost")
    assert sock.selected_alpn_protocol() == "h2"
    return sock


class Raw:
    """Frames as they come and go, for what no library would send or take."""

    def __init__(self):
        self.sock, self.decoder, self.left = connect(), Decoder(), b""
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SettingsFrame())

    def send(self, *frames):
        try:
            self.sock.sendall(b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames))
            return True
        except OSError:
            return False

    def frame(self):
        """The next frame; None at the end."""
        def need(count):
            while len(self.left) < count:
                try:
                    data = self.sock.recv(65536)
                except (ConnectionError, ssl.SSLError):
                    data = b""
                if not data:
                    return False
                self.left += data
            return True
        if not need(9):
            return None
        frame, length = Frame.parse_frame_header(memoryview(self.left[:9]))
        if not need(9 + length):
            return None
        frame.parse_body(memoryview(self.left[9:9 + length]))
        self.left = self.left[9 + length:]
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.send(SettingsFrame(flags=["ACK"]))
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.send(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        return frame

    def verdict(self):
        """What becomes of a request: a status, the word of a reset or of a goodbye, `closed`."""
        while frame := self.frame():
            if isinstance(frame, HeadersFrame):
                return int(dict(self.decoder.decode(frame.data))[":status"])
            if isinstance(frame, RstStreamFrame | GoAwayFrame):
                return h2.errors.ErrorCodes(frame.error_code).name
        return "closed"


class Client:
    def __init__(self, window=None):
        self.sock = connect()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()
        self.events, self.closed = [], False

    def flush(self):
        try:
            self.sock.sendall(self.h2.data_to_send())
        except OSError:
            self.closed = True

    def pump(self, acknowledge=True):
        """Takes what comes next; False at the end of the connection."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if acknowledge and isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    def until(self, kind, stream=None, acknowledge=True):
        """The next event of a kind; None when the connection ended before."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream):
                    self.events.remove(event)
                    return event
            if not self.pump(acknowledge):
                return None

    def start(self, method, path, *headers, end=True):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *headers], end_stream=end)
        self.flush()
        return stream

    def answer(self, stream, acknowledge=True):
        """Status, headers and body of a stream."""
        head = self.until(h2.events.ResponseReceived, stream)
        assert head is not None, "the connection ended"
        headers = {bytes(k).decode() if isinstance(k, bytes) else k: bytes(v).decode() if isinstance(v, bytes) else v for k, v in head.headers}
        ended = self.until((h2.events.StreamEnded, h2.events.StreamReset), stream, acknowledge)
        assert isinstance(ended, h2.events.StreamEnded), ended
        pieces = [event for event in self.events if isinstance(event, h2.events.DataReceived) and event.stream_id == stream]
        self.events = [event for event in self.events if event not in pieces]
        return int(headers[":status"]), headers, b"".join(event.data for event in pieces)

    def get(self, path, *headers, method="GET"):
        return self.answer(self.start(method, path, *headers))

    def put(self, path, body, *headers):
        stream = self.start("PUT", path, ALICE, *headers, end=False)
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            if room == 0:
                assert self.pump(), "the connection ended"
                continue
            self.h2.send_data(stream, body[:room])
            body = body[room:]
            self.flush()
        self.h2.end_stream(stream)
        self.flush()
        return self.answer(stream)

    def works(self):
        status, _, body = self.get("/pub/a.txt")
        assert (status, body) == (200, b"hello"), (status, body)
        self.sock.close()


def resident():
    with open(f"/proc/{PID}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) << 10


def methods_and_ranges():
    client = Client()
    status, headers, body = client.get("/pub/a.txt")
    assert (status, body, headers["content-length"]) == (200, b"hello", "5"), headers
    assert "connection" not in headers and "transfer-encoding" not in headers
    assert client.get("/pub/a.txt", method="HEAD")[::2] == (200, b"")
    assert client.get("/pub/a.txt", ("if-none-match", headers["etag"]))[::2] == (304, b"")
    assert client.get("/pub/big")[::2] == (200, BIG)
    status, headers, body = client.get("/pub/big", ("range", "bytes=1000-1999"))
    assert (status, body, headers["content-range"]) == (206, BIG[1000:2000], "bytes 1000-1999/300000")
    status, headers, body = client.get("/pub/big", ("range", "bytes=0-1,200000-200001"))
    assert status == 206 and headers["content-type"].startswith("multipart/byteranges") and len(body) == int(headers["content-length"])
    assert client.get("/pub/big", ("range", "bytes=400000-"))[0] == 416
    assert client.get("/pub/none")[0] == 404
    assert client.get("/pub/a.txt", method="BREW")[0] == 501
    assert client.get("*", method="OPTIONS")[0] == 200
    client.works()


def uploads():
    client = Client()
    assert client.put("/pub/up/one", b"first")[0] == 201
    assert client.put("/pub/up/one", BIG * 8)[0] == 204
    assert client.get("/pub/up/one")[2] == BIG * 8
    assert client.put("/pub/up/empty", b"")[0] == 201
    assert client.put("/pub/up/one", b"x", ("if-none-match", "*"))[0] == 412
    # a length that is not the body's
    raw = Raw()
    head = [(":method", "PUT"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pub/up/wrong"), ALICE, ("content-length", "10")]
    raw.send(HeadersFrame(1, Encoder().encode(head), flags=["END_HEADERS"]), DataFrame(1, b"short", flags=["END_STREAM"]))
    assert raw.verdict() in ("PROTOCOL_ERROR", 400, 408)
    raw.sock.close()
    assert Client().get("/pub/up/wrong")[0] == 404


def tiny_windows():
    client = Client(window=7)
    stream = client.start("GET", "/pub/a.txt")
    assert client.answer(stream)[2] == b"hello"
    stream = client.start("GET", "/pub/big", ("range", "bytes=0-99"))
    assert client.answer(stream)[2] == BIG[:100]
    # a window of nothing at all: other streams go on meanwhile
    client = Client(window=0)
    held = client.start("GET", "/pub/big")
    assert client.until(h2.events.ResponseReceived, held)
    other = client.start("GET", "/pub/a.txt")
    client.h2.increment_flow_control_window(5, other)
    client.flush()
    assert client.answer(other)[2] == b"hello"
    client.h2.increment_flow_control_window(300_000, held)
    client.flush()
    assert client.until(h2.events.StreamEnded, held)
    client.sock.close()


def resets_both_ways():
    client = Client()
    stream = client.start("GET", "/pub/big")
    client.until(h2.events.ResponseReceived, stream)
    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    # an upload that breaks off leaves the old file
    assert client.put("/pub/up/kept", b"old")[0] in (201, 204)
    stream = client.start("PUT", "/pub/up/kept", ALICE, end=False)
    client.h2.send_data(stream, b"new, but not all of it")
    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.get("/pub/up/kept")[2] == b"old"
    # the server refuses without the body: the connection goes on
    stream = client.start("PUT", "/pub/a.txt", end=False)
    assert client.until(h2.events.ResponseReceived, stream)
    client.until((h2.events.StreamReset, h2.events.StreamEnded), stream)
    client.works()


def many_streams():
    client = Client()
    client.until(h2.events.RemoteSettingsChanged)
    most = client.h2.remote_settings.max_concurrent_streams
    assert most <= 1000, most
    streams = [client.start("GET", "/pub/a.txt") for _ in range(most)]
    assert all(client.answer(stream)[2] == b"hello" for stream in streams)
    client.sock.close()
    # beyond what was agreed: refused, not queued
    raw, encoder = Raw(), Encoder()
    head = [(":method", "PUT"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pub/up/x"), ALICE]
    raw.send(*(HeadersFrame(1 + 2 * n, encoder.encode(head), flags=["END_HEADERS"]) for n in range(most + 20)))
    refused = 0
    while refused < 20:
        frame = raw.frame()
        if frame is None or isinstance(frame, GoAwayFrame):
            break
        refused += isinstance(frame, RstStreamFrame)
    raw.sock.close()
    Client().works()


def flood(name, frames, prior=None):
    """Sends frames until the server ends the connection; it must, and keep nothing of them."""
    before = resident() if PID else 0
    raw = Raw()
    if prior:
        raw.send(prior)
    sent = 0
    for data in frames:
        if not raw.send(data):
            break
        sent += len(data)
    else:
        # what was sent may still be on its way: the verdict comes by reading
        frame = raw.frame()
        while frame is not None and not isinstance(frame, GoAwayFrame):
            frame = raw.frame()
    raw.sock.close()
    left = resident() - before if PID else 0
    assert left < MOST_LEFT, f"{name}: {left} bytes are left"
    print(f"  {name}: ended after {sent} bytes", flush=True)
    Client().works()


def floods():
    encoder = Encoder()
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pub/a.txt")]
    head = encoder.encode(pseudo)
    # CVE-2024-27316 and its kin
    more = Encoder().encode([("x-flood", "y" * 4000)])
    flood("CONTINUATION", (ContinuationFrame(1, more).serialize() for _ in range(20_000)),
          prior=HeadersFrame(1, head).serialize())
    # CVE-2023-44487
    flood("rapid reset", (HeadersFrame(1 + 2 * n, head, flags=["END_HEADERS", "END_STREAM"]).serialize() + RstStreamFrame(1 + 2 * n, 8).serialize()
                          for n in range(100_000)))


def heads_that_are_none():
    # larger than the server's limit: refused, with 431 or by the stream
    good = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pub/a.txt")]
    raw, block = Raw(), Encoder().encode(good + [(f"x-{n}", "y" * 1000) for n in range(60)], huffman=False)
    pieces = [block[at:at + 16_000] for at in range(0, len(block), 16_000)]
    raw.send(HeadersFrame(1, pieces[0], flags=["END_STREAM"]), *(ContinuationFrame(1, one) for one in pieces[1:-1]),
             ContinuationFrame(1, pieces[-1], flags=["END_HEADERS"]))
    found = raw.verdict()
    assert found == 431 or isinstance(found, str), found
    raw.sock.close()
    for name, headers in {
        "no path": [one for one in good if one[0] != ":path"],
        "no method": good[1:],
        "two paths": good + [(":path", "/")],
        "an unknown pseudo header": good + [(":evil", "1")],
        "a pseudo header behind others": good[:3] + [("a", "b"), good[3]],
        "capitals": good + [("X-A", "b")],
        "Connection": good + [("connection", "close")],
        "Transfer-Encoding": good + [("transfer-encoding", "chunked")],
        "a line break": good + [("x-a", "b\r\nx-c: d")],
        "an empty path": good[:3] + [(":path", "")],
        "a response's": good + [(":status", "200")],
    }.items():
        raw = Raw()
        raw.send(HeadersFrame(1, Encoder().encode(headers), flags=["END_HEADERS", "END_STREAM"]))
        found = raw.verdict()
        assert found == "PROTOCOL_ERROR" or isinstance(found, int) and 400 <= found < 500, f"{name}: {found}"
        raw.sock.close()
    # frames that are none end the connection with the right word
    for name, data, code in [
        ("DATA on stream 0", b"\0\0\1\0\0\0\0\0\0x", "PROTOCOL_ERROR"),
        ("DATA on an idle stream", DataFrame(5, b"x"), "PROTOCOL_ERROR"),
        ("a window beyond all", WindowUpdateFrame(0, 0x7FFFFFFF), "FLOW_CONTROL_ERROR"),
        ("a frame larger than agreed", b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 100_000, "FRAME_SIZE_ERROR"),
        ("a header block that is none", HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"]), "COMPRESSION_ERROR"),
    ]:
        raw = Raw()
        raw.send(data)
        found = raw.verdict()
        # the h2 crate's word for a broken header block is the more general one
        assert found in ("closed", code, "PROTOCOL_ERROR"), f"{name}: {found}"
        raw.sock.close()
    Client().works()


def drain():
    raw = Raw()
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pub/a.txt")]
    raw.send(HeadersFrame(1, Encoder().encode(head), flags=["END_HEADERS", "END_STREAM"]))
    assert raw.verdict() == 200
    print("ready", flush=True)
    words = set()
    while frame := raw.frame():
        if isinstance(frame, GoAwayFrame):
            words.add(h2.errors.ErrorCodes(frame.error_code).name)
    assert words == {"NO_ERROR"}, words


def main():
    for step in (methods_and_ranges, uploads, tiny_windows, resets_both_ways, many_streams, heads_that_are_none, floods):
        start = time.time()
        step()
        print(f"{step.__name__}: {time.time() - start:.1f} s", flush=True)


if sys.argv[3:] == ["drain"]:
    drain()
else:
    main()
