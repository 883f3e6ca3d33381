"""The HTTP part of scripts/bench: Stoa beside nginx, caddy, lighttpd and h2o (all of Debian), in one run.

Environment, beside that of scripts/bench:
    PARTS=1k,10k,100k,1g,close,tls10k,tls100k,tls1g,handshake,h2-1k,h2-10k,h2-100k,private,idle      some of the parts; default: all
    PEERS=nginx,caddy,lighttpd,h2o                                                         some of the peers; default: all
    SECONDS=2                                                                              of load in each turn

nginx has sendfile, open_file_cache and a buffered access log; caddy, lighttpd and h2o keep no log; Stoa keeps its access log. Every server has
one worker on core 0. Each body is compared with the file, over each protocol, in the same run. `must` and `aim` are the project's goals for
CPU per request beside nginx.
"""

import hashlib
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import time

import __main__ as bench
import bench_ftp

GIB = bench.GIB
PARTS = ["1k", "10k", "100k", "1g", "close", "tls10k", "tls100k", "tls1g", "handshake", "h2-1k", "h2-10k", "h2-100k", "private", "idle"]
PEERS = ["nginx", "caddy", "lighttpd", "h2o"]
PACKAGES = {"nginx": ["nginx"], "caddy": ["caddy"], "lighttpd": ["lighttpd", "lighttpd-mod-openssl"], "h2o": ["h2o"]}
SIZES = {"1k": 1 << 10, "10k": 10 << 10, "100k": 100 << 10, "1g": GIB}
SECONDS = os.environ.get("SECONDS", "2")
# must and aim: nginx's CPU for a request over ours
GOALS = {"1k": (1.25, 1.5), "10k": (1.1, 1.25), "100k": (1.0, 1.2), "1g": (1.0, 1.2), "close": (0.9, 1.0), "tls10k": (1.3, 1.5),
         "tls100k": (1.6, 2.0), "tls1g": (1.2, 1.4), "handshake": (1.4, 1.6), "h2-1k": (1.05, 1.2), "h2-10k": (1.05, 1.2),
         "h2-100k": (1.05, 1.2)}
USER, PASSWORD = "bench", "bench-password"
BASIC = "Authorization: Basic YmVuY2g6YmVuY2gtcGFzc3dvcmQ="
IDLE = 10_000


class Web(bench.Server):
    """A server of `folder/pub` as /pub, with and without TLS."""

    def __init__(self, folder, certificates):
        super().__init__(type(self).__name__.lower(), folder)
        self.certificates = certificates
        self.plain, self.secure = bench.free_port(), bench.free_port()

    def begin(self):
        self.start()
        for port in (self.plain, self.secure):
            bench.wait_port(port, self.process)
        self.meter = bench_ftp.Meter(self)
        # workers that were there before their group
        for pid in bench.tree_of(self.root()) if self.meter.group else []:
            with open(f"{self.meter.group}/cgroup.procs", "w") as procs:
                procs.write(str(pid))
        return self

    def end(self):
        self.stop()
        if hasattr(self, "meter"):
            self.meter.close()

    def write(self, name, text):
        path = f"{self.folder}/{name}"
        with open(path, "w") as file:
            file.write(text)
        return path

    def run(self, *command, **env):
        log = open(f"{self.folder}/log", "w")
        self.process = bench.pinned(0, *command, env=dict(os.environ, **env), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def url(self, path, secure=False):
        return f"https://127.0.0.1:{self.secure}{path}" if secure else f"http://127.0.0.1:{self.plain}{path}"


class Stoa(Web):
    def start(self):
        self.write("password", PASSWORD + "\n")
        for folder in ("own", "drop"):
            os.makedirs(f"{self.folder}/{folder}", exist_ok=True)
        config = self.write("stoa.toml", f"""
data = "{self.folder}/data"
workers = 1
[limits]
connections = 50000
connections_per_address = 50000
connections_per_account = 50000
[log]
folder = "{self.folder}/log.d"
level = "warn,access=info"
[tls]
certificate = "{self.certificates}/cert.pem"
key = "{self.certificates}/key.pem"
[[listen]]
protocol = "http"
address = "127.0.0.1:{self.plain}"
[[listen]]
protocol = "http"
address = "127.0.0.1:{self.secure}"
tls = "implicit"
[[user]]
name = "{USER}"
password_file = "{self.folder}/password"
[[space]]
path = "/pub"
source = "{self.folder}/pub"
grants = [ {{ to = "everyone", allow = "view" }} ]
[[space]]
path = "/drop"
source = "{self.folder}/drop"
grants = [ {{ to = "everyone", allow = "edit" }} ]
[[space]]
path = "/own"
source = "{self.folder}/own"
grants = [ {{ to = "user:{USER}", allow = "edit" }} ]
""")
        self.run(bench.BINARY or os.path.join(bench.HERE, "target/release/stoa"), "serve", "--config", config)


class Nginx(Web):
    def start(self):
        paths = " ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.run("nginx", "-c", self.write("nginx.conf", f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error; user root; worker_rlimit_nofile 60000;
events {{ worker_connections 40000; multi_accept on; }}
http {{ sendfile on; tcp_nopush on; sendfile_max_chunk 0; keepalive_requests 100000000; keepalive_timeout 600s;
open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s; default_type application/octet-stream;
access_log {self.folder}/access combined buffer=64k flush=5s; {paths}
ssl_certificate {self.certificates}/cert.pem; ssl_certificate_key {self.certificates}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
ssl_buffer_size 16k; ssl_session_cache shared:SSL:10m; http2_chunk_size 16k;
server {{ listen 127.0.0.1:{self.plain} backlog=4096; listen 127.0.0.1:{self.secure} ssl http2 backlog=4096; root {self.folder}; }} }}
"""))


class Caddy(Web):
    def start(self):
        self.run("caddy", "run", "--adapter", "caddyfile", "--config", self.write("Caddyfile", f"""
{{
	auto_https off
	admin off
	default_sni bench
}}
http://127.0.0.1:{self.plain} {{
	root * {self.folder}
	file_server
}}
https://:{self.secure} {{
	bind 127.0.0.1
	tls {self.certificates}/cert.pem {self.certificates}/key.pem
	root * {self.folder}
	file_server
}}
"""), GOMAXPROCS="1", HOME=self.folder, XDG_DATA_HOME=self.folder, XDG_CONFIG_HOME=self.folder)


class Lighttpd(Web):
    def start(self):
        self.run("lighttpd", "-D", "-f", self.write("lighttpd.conf", f"""
server.modules = ( "mod_openssl" )
server.document-root = "{self.folder}"
server.bind = "127.0.0.1"
server.port = {self.plain}
server.network-backend = "sendfile"
server.stat-cache-engine = "simple"
server.max-keep-alive-requests = 100000000
server.max-keep-alive-idle = 600
server.max-connections = 25000
server.max-fds = 60000
server.listen-backlog = 4096
mimetype.assign = ( "" => "application/octet-stream" )
$SERVER["socket"] == "127.0.0.1:{self.secure}" {{ ssl.engine = "enable" ssl.pemfile = "{self.certificates}/both.pem" }}
"""))


class H2o(Web):
    def start(self):
        self.run("h2o", "-m", "worker", "-c", self.write("h2o.yaml", f"""
num-threads: 1
user: root
max-connections: 40000
pid-file: {self.folder}/pid
error-log: {self.folder}/error
http1-request-timeout: 600
http2-idle-timeout: 600
listen:
  host: 127.0.0.1
  port: {self.plain}
listen:
  host: 127.0.0.1
  port: {self.secure}
  ssl:
    certificate-file: {self.certificates}/cert.pem
    key-file: {self.certificates}/key.pem
hosts:
  default:
    paths:
      /:
        file.dir: {self.folder}
"""))


KINDS = {"nginx": Nginx, "caddy": Caddy, "lighttpd": Lighttpd, "h2o": H2o}


def wrk(url, connections=64, headers=()):
    words = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *(word for one in headers for word in ("-H", one)), url]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out and "Connection: close" not in headers:
        raise SystemExit(f"bench: {url}: not every answer was 200\n{out}")
    return int(re.search(r"(\d+) requests in", out).group(1))


def h2load(url, count):
    out = subprocess.run(["taskset", "-c", "1", "h2load", "-t1", "-c8", "-m16", f"-n{count}", url], capture_output=True, text=True, check=True).stdout
    if not re.search(rf"status codes: {count} 2xx", out) or "Application protocol: h2" not in out:
        raise SystemExit(f"bench: {url}: not every answer was 200\n{out}")
    return count


def whole(server, path):
    with socket.create_connection(("127.0.0.1", server.plain)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.plain}\r\nConnection: close\r\n\r\n".encode())
        if bench.drain(sock) < GIB:
            raise SystemExit("bench: the large file was cut")
    return 1


def fetch(url):
    subprocess.run(["taskset", "-c", "1", "curl", "-sSfk", "--http1.1", "--tlsv1.3", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "-o", "/dev/null", url],
                   check=True)
    return 1


def handshakes(server):
    """Connections, each with a full handshake and one small request; the client is Python, so only the server's CPU means something."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.minimum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3
    count, end = 0, time.time() + float(SECONDS)
    while time.time() < end:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", server.secure))) as sock:
            sock.sendall(b"GET /pub/1k HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            while sock.recv(65536):
                pass
            if sock.session_reused:
                raise SystemExit("bench: a session was resumed")
        count += 1
    return count


def compare(part, title, rows, rounds=None):
    """Interleaved rounds of `(label, server, load)`; the first is ours."""
    results = {label: [] for label, *_ in rows}
    for _ in range(rounds or bench.ROUNDS):
        for label, server, load in rows:
            busy, wall = server.meter.read(), time.perf_counter()
            done = bench.on_core_one(load)
            wall, busy = time.perf_counter() - wall, server.meter.read() - busy
            results[label].append((busy / done, done / wall))
    ours = results[rows[0][0]]
    for label, found in results.items():
        spent, rate = statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)
        words = ""
        if found is not ours:
            core = statistics.median(theirs[0] / mine[0] for theirs, mine in zip(found, ours))
            wall = statistics.median(mine[1] / theirs[1] for theirs, mine in zip(found, ours))
            words = f"   ours: per core x{core:.2f} wall x{wall:.2f}"
            if label == "nginx" and part in GOALS:
                must, aim = GOALS[part]
                words += f"   must {must} aim {aim}: {'aim' if core >= aim else 'must' if core >= must else 'MISSED'}"
        bench.say(f"{title:30} {label:9} {bench_ftp.figure(spent)} CPU/req {rate:10.1f} req/s{words}")


def idle(servers):
    """Growth of Pss for each keep-alive connection that had one answer and says no more."""
    for server in servers:
        warm = [ask(server) for _ in range(100)]
        time.sleep(1)
        before, held = bench.pss(server.root()), []
        try:
            for _ in range(IDLE):
                held.append(ask(server))
            time.sleep(3)
            each = (bench.pss(server.root()) - before) / IDLE
            start = time.perf_counter()
            held.append(ask(server))
            took = time.perf_counter() - start
            words = f"{each:9.0f} bytes each, {IDLE} of them; {before / 1e6:.1f} MB before; a new one in {took * 1e3:.2f} ms"
        except TimeoutError:
            words = f"does not answer beside {len(held)} of them"
        bench.say(f"{'idle connection':30} {server.name:9} {words}")
        for sock in warm + held:
            sock.close()
        time.sleep(1)


def ask(server):
    sock = socket.create_connection(("127.0.0.1", server.plain), timeout=20)
    sock.sendall(f"GET /pub/1k HTTP/1.1\r\nHost: 127.0.0.1:{server.plain}\r\n\r\n".encode())
    got = b""
    while len(got) < 1024 or b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < 1024:
        piece = sock.recv(65536)
        if not piece:
            raise SystemExit(f"bench: {server.name} closed a connection")
        got += piece
    return sock


def same_bodies(servers, name, source):
    want = digest(["cat", source])
    for server in servers:
        # HTTP/2 is not measured with the large file, and nginx 1.22 does not deliver it whole
        for way in ((), ("--http1.1",), ("--http2",))[:2 if name == "1g" else 3]:
            url = server.url(f"/pub/{name}", bool(way))
            if digest(["curl", "-sSfk", *way, url]) != want:
                raise SystemExit(f"bench: {url} is not the file {way}")


def digest(command):
    hasher = hashlib.sha256()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while piece := process.stdout.read(1 << 20):
            hasher.update(piece)
    if process.returncode:
        raise SystemExit(f"bench: {command} failed")
    return hasher.hexdigest()


def versions(peers):
    names = [one for peer in peers for one in PACKAGES[peer][:1]]
    if not names:
        return
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}, ", *names], capture_output=True, text=True).stdout
    bench.say("peers:", shown.rstrip(", "))


def run(folder):
    parts = os.environ.get("PARTS", ",".join(PARTS)).split(",")
    peers = [one for one in os.environ.get("PEERS", ",".join(PEERS)).split(",") if one]
    if unknown := [one for one in parts if one not in PARTS] + [one for one in peers if one not in PEERS]:
        raise SystemExit(f"bench: unknown {unknown}\n{__doc__}")
    bench.install([package for peer in peers for package in PACKAGES[peer]])
    bench_ftp.many_files()
    bench_ftp.certificates(folder)
    versions(peers)
    servers = [Stoa(f"{folder}/stoa", folder)] + [KINDS[peer](f"{folder}/{peer}", folder) for peer in peers]
    names = {part.removeprefix("tls").removeprefix("h2-") for part in parts} & set(SIZES) | {"1k", "10k"}
    for name in sorted(names):
        bench.make_file(f"{folder}/{name}", SIZES[name])
    # the same files for all, not copies: how a file lies in memory decides what sending it costs. Nor links, for Stoa keeps no
    # response of a file that could be changed by another name.
    os.makedirs(f"{folder}/stoa/pub")
    for name in names:
        os.rename(f"{folder}/{name}", f"{folder}/stoa/pub/{name}")
    for server in servers[1:]:
        os.makedirs(server.folder, exist_ok=True)
        os.symlink(f"{folder}/stoa/pub", f"{server.folder}/pub")
    os.makedirs(f"{folder}/stoa/own")
    shutil.copy(f"{folder}/stoa/pub/10k", f"{folder}/stoa/own/10k")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    try:
        for server in servers:
            server.begin()
        for name in sorted(names):
            same_bodies(servers, name, f"{folder}/stoa/pub/{name}")
        for part in parts:
            measure(part, servers)
    finally:
        for server in servers:
            server.end()


def measure(part, servers):
    def each(title, load):
        compare(part, title, [(server.name, server, lambda s=server: load(s)) for server in servers])
    size = part.removeprefix("tls").removeprefix("h2-")
    words = {"1k": "1 KiB", "10k": "10 KiB", "100k": "100 KiB", "1g": "1 GiB"}.get(size)
    if part == "1g":
        each("GET 1 GiB", lambda s: whole(s, "/pub/1g"))
    elif part == "tls1g":
        each("TLS 1.3, 1 GiB", lambda s: fetch(s.url("/pub/1g", True)))
    elif part in SIZES:
        each(f"GET {words}", lambda s: wrk(s.url(f"/pub/{size}")))
    elif part == "close":
        each("1 KiB, connection each", lambda s: wrk(s.url("/pub/1k"), headers=["Connection: close"]))
    elif part == "handshake":
        each("TLS 1.3, handshake each", handshakes)
    elif part.startswith("tls"):
        each(f"TLS 1.3, {words}", lambda s: wrk(s.url(f"/pub/{size}", True)))
    elif part.startswith("h2-"):
        count = {"1k": 40_000, "10k": 30_000, "100k": 6_000}[size]
        each(f"HTTP/2, {words}", lambda s: h2load(s.url(f"/pub/{size}", True), count))
    elif part == "private":
        ours = servers[0]
        compare(part, "10 KiB, public and private", [
            ("private", ours, lambda: wrk(ours.url("/own/10k"), headers=[BASIC])),
            ("public", ours, lambda: wrk(ours.url("/pub/10k")))])
    elif part == "idle":
        idle(servers)


# slowhttptest's forms: heads and bodies that never end, ranges of all sizes, readers that do not read; and what they ask for
SLOW = {
    "1,000 slow heads (-H)": ("/pub/8m", ["-H", "-i", "5", "-x", "24", "-p", "3"]),
    "1,000 slow bodies (-B)": ("/drop/up", ["-B", "-i", "5", "-s", "8192", "-t", "PUT", "-x", "10", "-p", "3"]),
    "1,000 range headers (-R)": ("/pub/8m", ["-R", "-a", "10", "-b", "3000", "-t", "HEAD", "-p", "3"]),
    "1,000 slow readers (-X)": ("/pub/8m", ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3", "-p", "3"]),
}


# takes every connection and says nothing: what the attackers cost the client by themselves, for they share its core
SINK = "import socket, sys\nsock, held = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=2048), []\nwhile True: held.append(sock.accept()[0])"


def beside_sink(server, alone, before):
    port = bench.free_port()
    with subprocess.Popen(["taskset", "-c", "1", "python3", "-c", SINK, str(port)]) as sink:
        bench.wait_port(port, sink)
        beside_attack("1,000 slow heads to another", f"http://127.0.0.1:{port}/", SLOW["1,000 slow heads (-H)"][1], server, alone, before)
        sink.terminate()


def beside_attack(name, url, words, server, alone, before):
    command = ["taskset", "-c", "1", "slowhttptest", "-c", "1000", "-r", "500", "-l", "40", "-u", url, *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as attack:
        # all of them are connected after two seconds; an attack that is answered at once (-R) is over soon
        time.sleep(4)
        shown(name, server, latency(server), alone, before)
        attack.terminate()


def run_slow(folder):
    """A normal client's latency alone, beside 1,000 peers of each slow kind, and beside 10,000 idle ones; what they take of the memory.
    The same for nginx, as far as it has such places."""
    bench_ftp.many_files()
    bench_ftp.certificates(folder)
    for kind in bench.some("PEERS", ["stoa", "nginx"]):
        server = {"stoa": Stoa, "nginx": Nginx}[kind](f"{folder}/{kind}", folder)
        os.makedirs(f"{server.folder}/pub")
        for name, size in (("1k", 1 << 10), ("8m", 8 << 20)):
            bench.make_file(f"{server.folder}/pub/{name}", size)
        server.begin()
        try:
            slow_peers(server)
        finally:
            server.end()


def slow_peers(server):
    latency(server)
    alone, before = latency(server), bench.pss(server.root())
    bench.say(server.name)
    shown("alone", server, alone, alone, before)
    beside_sink(server, alone, before)
    for name, (path, words) in SLOW.items():
        if path.startswith("/drop") and not isinstance(server, Stoa):
            continue
        beside_attack(name, server.url(path), words, server, alone, before)
    held = [ask(server) for _ in range(IDLE)]
    time.sleep(2)
    shown(f"{IDLE:,} idle connections", server, latency(server), alone, before)
    for sock in held:
        sock.close()


def latency(server, seconds=10):
    """Milliseconds of each request of one client on one connection, a hundred in a second. It goes before the attackers, with whom it
    shares a core: else it would wait for that, whichever server it asks."""
    def work():
        took, end = [], time.time() + seconds
        sock = ask(server)
        while time.time() < end:
            start = time.perf_counter()
            sock.sendall(b"GET /pub/1k HTTP/1.1\r\nHost: bench\r\n\r\n")
            got = 0
            while got < 1024:
                got += len(sock.recv(65536))
            took.append((time.perf_counter() - start) * 1e3)
            time.sleep(0.01)
        sock.close()
        return sorted(took)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    try:
        return bench.on_core_one(work)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def shown(name, server, took, alone, before):
    middle, late = took[len(took) // 2], took[len(took) * 99 // 100]
    times = middle / alone[len(alone) // 2]
    held = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in bench.tree_of(server.root()))
    memory = (bench.pss(server.root()) - before) / 1e6
    bench.say(f"{name:30} median {middle:.3f} ms (x{times:.2f}), 99 % {late:.3f} ms (x{late / alone[len(alone) * 99 // 100]:.2f}), "
              f"{held:,} descriptors, memory {memory:+.1f} MB")
