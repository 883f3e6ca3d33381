"""The FTP part of scripts/bench: Stoa beside vsftpd, pure-ftpd, proftpd (Debian) and pyftpdlib (PyPI), in one run.

Environment, beside that of scripts/bench:
    PARTS=retr,stor,disk,small,smalldisk,login,idle,tls      some of the parts; default: all
    PEERS=vsftpd,pureftpd,proftpd,pyftpdlib                  some of the peers; default: all

The Debian packages conflict with each other, so they are unpacked into target/peers and run from there.
`pub` of Stoa is an ordinary space with a quota: history, quota and access log are kept. `fast` is the same with `durable = false`,
which is what the peers promise: none of them syncs anything.
"""

import glob
import hashlib
import mmap
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time

import __main__ as bench

GIB = bench.GIB
PARTS = ["retr", "stor", "disk", "small", "smalldisk", "login", "idle", "tls"]
PEERS = ["vsftpd", "pureftpd", "proftpd", "pyftpdlib"]
ROOT = os.path.join(bench.HERE, "target/peers")
DEBS = ["vsftpd", "pure-ftpd", "pure-ftpd-common", "proftpd-core", "proftpd-mod-crypto", "libhiredis0.14", "libmemcached11",
        "libmemcachedutil2", "libhashkit2", "libpcre2-posix3"]
NEEDED = ["adduser", "python3-venv", "openssl", "libssl3", "libpam0g", "libcap2", "libsodium23", "libacl1", "libidn2-0", "libpcre2-8-0",
          "libwrap0", "libnsl2"]
PYTHON = ["pyftpdlib==2.2.0", "pyOpenSSL==26.4.0"]
SMALL = 1 << 10
FILES = int(os.environ.get("FILES", "1000"))
USER, PASSWORD = "bench", "bench-password"


def prepare():
    """Unpacks the peers; says which one is missing."""
    bench.install(NEEDED)
    os.makedirs(ROOT, exist_ok=True)
    missing = [one for one in DEBS if not glob.glob(f"{ROOT}/{one}_*.deb")]
    if missing:
        bench.say("bench: fetching", *missing)
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        for one in missing:
            subprocess.run(["dpkg-deb", "-x", glob.glob(f"{ROOT}/{one}_*.deb")[0], ROOT], check=True)
    if not os.path.exists(f"{ROOT}/venv/bin/python"):
        subprocess.run([sys.executable, "-m", "venv", f"{ROOT}/venv"], check=True)
        subprocess.run([f"{ROOT}/venv/bin/pip", "-q", "install", *PYTHON], check=True)
    if subprocess.run(["id", "ftp"], capture_output=True).returncode:
        subprocess.run(["adduser", "--system", "--home", "/srv/ftp", "--quiet", "ftp"], check=True)
    libraries = f"{ROOT}/usr/lib/x86_64-linux-gnu"
    for binary in ("vsftpd", "pure-ftpd", "proftpd"):
        lacks = [line for line in subprocess.run(["ldd", f"{ROOT}/usr/sbin/{binary}"], capture_output=True, text=True,
                 env=dict(os.environ, LD_LIBRARY_PATH=libraries)).stdout.splitlines() if "not found" in line]
        if lacks:
            raise SystemExit(f"bench: {binary} cannot run here:\n" + "\n".join(lacks))


class Meter:
    """CPU time of a server and all it starts: a cgroup where there is one, which also sees processes that ended."""

    def __init__(self, server):
        self.server, self.file, self.group = server, None, None
        for base, file, factor in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1), ("/sys/fs/cgroup", "cpu.stat", 1000)):
            group = f"{base}/stoa-bench-{server.name}-{server.root()}"
            try:
                os.mkdir(group)
                if os.path.exists(f"{group}/{file}"):
                    with open(f"{group}/cgroup.procs", "w") as procs:
                        procs.write(str(server.root()))
                    self.group, self.file, self.factor = group, f"{group}/{file}", factor
                    return
                os.rmdir(group)
            except OSError:
                pass

    def read(self):
        if not self.file:
            return bench.cpu(self.server.root())
        with open(self.file) as file:
            words = file.read().split()
        return int(words[1] if words[0] == "usage_usec" else words[0]) * self.factor

    def close(self):
        if self.group:
            try:
                os.rmdir(self.group)
            except OSError:
                pass


class Peer(bench.Server):
    """A peer serves `folder/pub` as `/pub`."""

    user, password = USER, PASSWORD
    places = ["pub"]
    base = ""

    def __init__(self, folder):
        super().__init__(type(self).__name__.lower(), folder)
        self.port = None

    def run(self, *command, **options):
        env = dict(os.environ, LD_LIBRARY_PATH=f"{ROOT}/usr/lib/x86_64-linux-gnu", **options.pop("env", {}))
        log = open(f"{self.folder}/log", "w")
        self.process = bench.pinned(0, *command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        bench.wait_port(self.port, self.process)

    def begin(self):
        os.makedirs(f"{self.folder}/pub", exist_ok=True)
        subprocess.run(["chmod", "755", self.folder], check=True)
        subprocess.run(["chown", "-R", "ftp", f"{self.folder}/pub"], check=True)
        self.port = bench.free_port()
        self.start()
        self.meter = Meter(self)
        return self

    def end(self):
        self.stop()
        self.meter.close()

    def path(self, place, name):
        return f"{self.folder}/{place}/{name}"


class Stoa(Peer):
    """Ours: two spaces, one as durable as promised, one as durable as the peers."""

    places = ["pub", "fast"]
    user, password = USER, PASSWORD

    def start(self):
        os.makedirs(f"{self.folder}/fast", exist_ok=True)
        data = f"{self.folder}/data"
        with open(f"{self.folder}/password", "w") as file:
            file.write(PASSWORD + "\n")
        grants = f'grants = [ {{ to = "everyone", allow = "view" }}, {{ to = "user:{USER}", allow = "edit" }} ]'
        with open(f"{self.folder}/stoa.toml", "w") as file:
            file.write(f"""
data = "{data}"
workers = 1
[limits]
connections = 50000
connections_per_address = 50000
connections_per_account = 50000
[log]
folder = "{self.folder}/log.d"
level = "warn,access=info"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:{self.port}"
tls = "upgrade"
[[user]]
name = "{USER}"
password_file = "{self.folder}/password"
[[space]]
path = "/pub"
source = "{self.folder}/pub"
quota = "100 GiB"
{grants}
[[space]]
path = "/fast"
source = "{self.folder}/fast"
quota = "100 GiB"
durable = false
{grants}
""")
        binary = bench.BINARY or os.path.join(bench.HERE, "target/release/stoa")
        self.run(binary, "serve", "--config", f"{self.folder}/stoa.toml")


class Vsftpd(Peer):
    user, password = "anonymous", "x"

    def start(self):
        os.makedirs(f"{self.folder}/empty", exist_ok=True)
        config = f"{self.folder}/vsftpd.conf"
        with open(config, "w") as file:
            file.write(f"""listen=YES
listen_address=127.0.0.1
listen_port={self.port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={self.folder}
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
write_enable=YES
use_sendfile=YES
xferlog_enable=NO
secure_chroot_dir={self.folder}/empty
allow_writeable_chroot=YES
seccomp_sandbox=NO
max_per_ip=0
max_clients=0
ssl_enable=YES
allow_anon_ssl=YES
force_local_data_ssl=NO
force_local_logins_ssl=NO
require_ssl_reuse=NO
ssl_ciphers=HIGH
rsa_cert_file={self.folder}/../cert.pem
rsa_private_key_file={self.folder}/../key.pem
""")
        os.chown(config, 0, 0)
        self.run(f"{ROOT}/usr/sbin/vsftpd", config)


class Pureftpd(Peer):
    def start(self):
        words = f"{self.folder}/words"
        subprocess.run([f"{ROOT}/usr/bin/pure-pw", "useradd", USER, "-f", words, "-u", "ftp", "-g", "nogroup", "-d", self.folder, "-m"],
                       input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, capture_output=True,
                       env=dict(os.environ, PURE_DBFILE=f"{self.folder}/users.pdb", PURE_PASSWDFILE=words))
        subprocess.run([f"{ROOT}/usr/bin/pure-pw", "mkdb", f"{self.folder}/users.pdb", "-f", words], check=True, capture_output=True)
        subprocess.run(["chmod", "644", f"{self.folder}/users.pdb"], check=True)
        self.run(f"{ROOT}/usr/sbin/pure-ftpd", "-S", f"127.0.0.1,{self.port}", "-l", f"puredb:{self.folder}/users.pdb", "-H", "-A", "-u", "1",
                 "-c", "20000", "-C", "20000", "-I", "60", "-Y", "1", "-2", f"{self.folder}/../both.pem", "-g", f"{self.folder}/pid",
                 env={"FTP_ANON_DIR": self.folder})


class Proftpd(Peer):
    def start(self):
        config, words = f"{self.folder}/proftpd.conf", f"{self.folder}/words"
        hashed = subprocess.run(["openssl", "passwd", "-1", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
        uid = subprocess.run(["id", "-u", "ftp"], capture_output=True, text=True, check=True).stdout.strip()
        with open(words, "w") as file:
            file.write(f"{USER}:{hashed}:{uid}:65534::{self.folder}:/bin/false\n")
        os.chmod(words, 0o600)
        with open(config, "w") as file:
            file.write(f"""ServerType standalone
DefaultAddress 127.0.0.1
SocketBindTight on
Port {self.port}
UseReverseDNS off
UseIPv6 off
ModulePath {ROOT}/usr/lib/proftpd
LoadModule mod_tls.c
PidFile {self.folder}/pid
ScoreboardFile {self.folder}/board
DelayEngine off
MaxInstances none
UseSendfile on
WtmpLog off
TransferLog NONE
SystemLog NONE
AuthOrder mod_auth_file.c
AuthUserFile {words}
RequireValidShell off
DefaultRoot {self.folder}
User ftp
Group nogroup
AllowOverwrite on
TimeoutIdle 3600
TLSEngine on
TLSRequired off
TLSProtocol TLSv1.2 TLSv1.3
TLSOptions NoSessionReuseRequired
TLSRSACertificateFile {self.folder}/../rsa.pem
TLSRSACertificateKeyFile {self.folder}/../rsa-key.pem
""")
        self.run(f"{ROOT}/usr/sbin/proftpd", "-n", "-q", "-c", config)


class Pyftpdlib(Peer):
    def start(self):
        with open(f"{self.folder}/serve.py", "w") as file:
            file.write(f"""
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import TLS_FTPHandler
from pyftpdlib.servers import FTPServer
import logging
logging.basicConfig(level=logging.ERROR)
users = DummyAuthorizer()
users.add_user("{USER}", "{PASSWORD}", "{self.folder}", perm="elradfmwMT")
class Handler(TLS_FTPHandler):
    authorizer = users
    certfile = "{self.folder}/../both.pem"
    use_sendfile = True
server = FTPServer(("127.0.0.1", {self.port}), Handler)
server.max_cons = server.max_cons_per_ip = 0
server.serve_forever()
""")
        self.run(f"{ROOT}/venv/bin/python", f"{self.folder}/serve.py")


KINDS = {"vsftpd": Vsftpd, "pureftpd": Pureftpd, "proftpd": Proftpd, "pyftpdlib": Pyftpdlib}


class Client:
    """One control connection, and the operations that are measured."""

    def __init__(self, server, secure=False):
        self.port, self.context = server.port, None
        self.sock = socket.create_connection(("127.0.0.1", server.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        self.reply("220")
        if secure:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
            self.command("AUTH TLS", "234")
            self.sock = self.context.wrap_socket(self.sock)
            self.file = self.sock.makefile("rb")
        self.command(f"USER {server.user}", "331" if server.user == USER else None)
        self.command(f"PASS {server.password}", "230")
        if secure:
            self.command("PBSZ 0", "200")
            self.command("PROT P", "200")
        self.command("TYPE I", "200")

    def reply(self, want=None):
        while True:
            line = self.file.readline().decode()
            if not line:
                raise SystemExit("bench: the server closed the connection")
            if line[:3].isdigit() and line[3:4] == " ":
                if want and not line.startswith(want):
                    raise SystemExit(f"bench: wanted {want}, got {line}")
                return line

    def command(self, text, want=None):
        self.sock.sendall(text.encode() + b"\r\n")
        return self.reply(want)

    def data(self):
        port = int(self.command("EPSV", "229").split("|")[3])
        return socket.create_connection(("127.0.0.1", port))

    def wrapped(self, lane):
        return self.context.wrap_socket(lane, session=self.sock.session) if self.context else lane

    def retr(self, path, size):
        lane = self.data()
        self.command(f"RETR {path}", "1")
        lane = self.wrapped(lane)
        if self.context:
            buffer, got = bytearray(1 << 20), 0
            while more := lane.recv_into(buffer):
                got += more
        else:
            got = bench.drain(lane)
        lane.close()
        if got != size:
            raise SystemExit(f"bench: {got} bytes of {size} came")
        self.reply("226")
        return 1

    def body(self, path):
        lane = self.data()
        self.command(f"RETR {path}", "1")
        lane, digest = self.wrapped(lane), hashlib.sha256()
        while piece := lane.recv(1 << 20):
            digest.update(piece)
        lane.close()
        self.reply("226")
        return digest.hexdigest()

    def stor(self, path, source, size):
        lane = self.data()
        self.command(f"STOR {path}", "1")
        lane = self.wrapped(lane)
        with open(source, "rb") as file:
            if self.context:
                with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
                    for at in range(0, size, 1 << 20):
                        lane.sendall(memoryview(view)[at:at + (1 << 20)])
                try:
                    lane = lane.unwrap()
                except OSError:
                    pass
            else:
                sent = 0
                while sent < size:
                    sent += os.sendfile(lane.fileno(), file.fileno(), sent, min(size - sent, 1 << 26))
        lane.close()
        self.reply("226")
        return 1

    def put(self, path, content):
        lane = self.data()
        self.command(f"STOR {path}", "1")
        lane.sendall(content)
        lane.close()
        self.reply("226")

    def close(self):
        self.file.close()
        self.sock.close()


def figure(nanoseconds):
    return f"{nanoseconds / 1e3:9.1f} us" if nanoseconds < 1e7 else f"{nanoseconds / 1e6:9.1f} ms"


def compare(title, unit, candidates, rounds=bench.ROUNDS, after=lambda: None):
    """Interleaved rounds of `(label, server, load, check)`; the first is ours and so is every other `stoa`."""
    results = {label: [] for label, *_ in candidates}
    for _ in range(rounds):
        for label, server, load, check in candidates:
            busy, wall = server.meter.read(), time.perf_counter()
            done = bench.on_core_one(load)
            wall, busy = time.perf_counter() - wall, server.meter.read() - busy
            results[label].append((busy / done, done / wall))
            if check:
                check()
            after()
    mine = [label for label in results if label.startswith("stoa")]
    for label, rows in results.items():
        spent, rate = statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)
        words = []
        for ours in mine if label not in mine else []:
            pairs = list(zip(rows, results[ours]))
            core = statistics.median(theirs[0] / our[0] for theirs, our in pairs)
            wall = statistics.median(our[1] / theirs[1] for theirs, our in pairs)
            words.append(f"{ours if len(mine) > 1 else 'ours'}: per core x{core:.2f} wall x{wall:.2f}")
        bench.say(f"{title:24} {label:17} {figure(spent)} CPU/{unit} {rate:9.1f} {unit}/s   {'   '.join(words)}")


class Field:
    """All the servers, running, in one folder."""

    def __init__(self, folder, peers):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)
        certificates(folder)
        self.folder, self.stoa = folder, Stoa(f"{folder}/stoa")
        self.servers = [self.stoa] + [KINDS[one](f"{folder}/{one}") for one in peers]
        for server in self.servers:
            for place in server.places:
                os.makedirs(f"{server.folder}/{place}")

    def file(self, name, size):
        bench.make_file(f"{self.folder}/{name}", size)
        os.chmod(f"{self.folder}/{name}", 0o644)
        for server in self.servers:
            os.link(f"{self.folder}/{name}", f"{server.folder}/pub/{name}")
        return f"{self.folder}/{name}"

    def __enter__(self):
        for server in self.servers:
            server.begin()
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.end()

    def targets(self, both):
        """`(label, server, place)`; ours twice where durability matters."""
        for server in self.servers:
            if server is self.stoa and both:
                yield "stoa durable", server, "pub"
                yield "stoa not durable", server, "fast"
            else:
                yield server.name, server, "pub"


def certificates(folder):
    def make(cert, key, *kind):
        subprocess.run(["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", "-subj", "/CN=bench", "-keyout", f"{folder}/{key}",
                        "-out", f"{folder}/{cert}"], check=True, capture_output=True)
    make("cert.pem", "key.pem", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    make("rsa.pem", "rsa-key.pem", "rsa:2048")
    with open(f"{folder}/both.pem", "w") as both:
        for name in ("cert.pem", "key.pem"):
            both.write(open(f"{folder}/{name}").read())
    for name in ("key.pem", "rsa-key.pem"):
        os.chmod(f"{folder}/{name}", 0o600)


def same_files(one, other):
    if subprocess.run(["cmp", "-s", one, other]).returncode:
        raise SystemExit(f"bench: {one} differs from {other}")


def same_bodies(clients, path, source):
    want = hashlib.file_digest(open(source, "rb"), "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
        hashlib.sha256(open(source, "rb").read()).hexdigest()
    for client in clients:
        if client.body(path) != want:
            raise SystemExit(f"bench: another body than {source}")


def large(field, title, source, way, both=False, secure=False, after=lambda: None):
    rows = []
    clients = {server.name: Client(server, secure) for server in field.servers}
    if way == "RETR":
        same_bodies(clients.values(), "/pub/1g", source)
        for server in field.servers:
            rows.append((server.name, server, lambda c=clients[server.name]: c.retr("/pub/1g", GIB), None))
    else:
        for label, server, place in field.targets(both):
            there = server.path(place, "up")

            def check(there=there):
                same_files(there, source)
                os.remove(there)
            rows.append((label, server, lambda c=clients[server.name], p=place: c.stor(f"/{p}/up", source, GIB), check))
    compare(title, "file", rows, after=after)
    for client in clients.values():
        client.close()


def settled(server):
    """Waits until a server has nothing to do any more: Stoa takes note, half a second later, of files that others remove."""
    time.sleep(0.7)
    for _ in range(40):
        before = server.meter.read()
        time.sleep(0.1)
        if server.meter.read() - before < 1_000_000:
            return


def small(field, where, both):
    clients = {server.name: Client(server) for server in field.servers}
    source = f"{field.folder}/1k"
    content = open(source, "rb").read()
    same_bodies(clients.values(), "/pub/1k", source)

    def fetch(client):
        for _ in range(FILES):
            client.retr("/pub/1k", SMALL)
        return FILES

    def push(client, place):
        for number in range(FILES):
            client.put(f"/{place}/s{number}", content)
        return FILES

    def check(server, place):
        for number in range(FILES):
            with open(server.path(place, f"s{number}"), "rb") as file:
                if file.read() != content:
                    raise SystemExit(f"bench: {server.name} stored other bytes")
            os.remove(server.path(place, f"s{number}"))
        settled(server)

    if where == "memory":
        compare("RETR 1 KiB", "file", [(s.name, s, lambda c=clients[s.name]: fetch(c), None) for s in field.servers])
    compare(f"STOR 1 KiB, {where}", "file", [(label, s, lambda c=clients[s.name], p=place: push(c, p), lambda s=s, p=place: check(s, p))
                                            for label, s, place in field.targets(both)])
    for client in clients.values():
        client.close()


def logins(field):
    def sign_in(server, count):
        for _ in range(count):
            Client(server).close()
        return count
    sign_in(field.stoa, 2)
    # pure-ftpd and proftpd know no cache: each sign-in pays for the password's hash, as ours would without `remember`
    counts = {"stoa": 1000, "pyftpdlib": 500, "vsftpd": 200}
    compare("sign-in", "login", [(s.name, s, lambda s=s: sign_in(s, counts.get(s.name, 10)), None) for s in field.servers])


def idle_memory(field):
    """Growth of the proportional set size for each signed-in session that fetched a small file and is idle now."""
    for server in field.servers:
        count = {"stoa": 5000, "pyftpdlib": 1000}.get(server.name, 200)
        warm = [Client(server) for _ in range(10)]
        time.sleep(0.5)
        before, held = bench.pss(server.root()), []
        for _ in range(count):
            client = Client(server)
            client.retr("/pub/1k", SMALL)
            held.append(client)
        time.sleep(2)
        each = (bench.pss(server.root()) - before) / count
        bench.say(f"{'idle session':24} {server.name:17} {each:9.0f} bytes, {count} sessions; {before / 1e6:.1f} MB before them")
        for client in held + warm:
            client.close()


def run(folder):
    prepare()
    many_files()
    parts = os.environ.get("PARTS", ",".join(PARTS)).split(",")
    peers = [one for one in os.environ.get("PEERS", ",".join(PEERS)).split(",") if one]
    if unknown := [one for one in parts if one not in PARTS] + [one for one in peers if one not in PEERS]:
        raise SystemExit(f"bench: unknown {unknown}\n{__doc__}")
    with Field(f"{folder}/memory", peers) as field:
        one_gib = field.file("1g", GIB) if {"retr", "stor", "tls"} & set(parts) else None
        field.file("1k", SMALL)
        if "retr" in parts:
            large(field, "RETR 1 GiB", one_gib, "RETR")
        if "stor" in parts:
            large(field, "STOR 1 GiB, memory", one_gib, "STOR")
        if "small" in parts:
            small(field, "memory", True)
        if "login" in parts:
            logins(field)
        if "tls" in parts:
            large(field, "FTPS RETR 1 GiB", one_gib, "RETR", secure=True)
            large(field, "FTPS STOR 1 GiB, memory", one_gib, "STOR", secure=True)
        if "idle" in parts:
            idle_memory(field)
    if {"disk", "smalldisk"} & set(parts):
        on_disk(folder, parts, peers)


def on_disk(folder, parts, peers):
    disk = f"/var/tmp/{os.path.basename(folder)}"
    try:
        with Field(disk, peers) as field:
            if "disk" in parts:
                source = f"{folder}/memory/1g"
                if not os.path.exists(source):
                    bench.make_file(source, GIB)
                large(field, "STOR 1 GiB, disk", source, "STOR", both=True, after=os.sync)
            if "smalldisk" in parts:
                field.file("1k", SMALL)
                small(field, "disk", True)
    finally:
        shutil.rmtree(disk, ignore_errors=True)


def many_files():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 100_000), most))


def run_idle(folder):
    """Fifty sessions transfer, beside nobody and beside 5,000 signed-in idle ones, in turns."""
    prepare()
    many_files()
    crowd, workers, rounds, size = 5000, 50, bench.ROUNDS, 64 << 20
    fields = [Field(f"{folder}/{name}", []) for name in ("alone", "crowded")]
    for field in fields:
        field.file("64m", size)
        field.__enter__()
    held = []
    try:
        for _ in range(crowd):
            held.append(Client(fields[1].stoa))
        sessions = [[Client(field.stoa) for _ in range(workers)] for field in fields]
        failures = []

        def work(client, number):
            try:
                for _ in range(4):
                    client.retr("/pub/64m", size)
                client.stor(f"/pub/up{number}", f"{folder}/alone/64m", size)
            except (OSError, SystemExit, ValueError) as error:
                failures.append(error)

        def load(clients):
            threads = [threading.Thread(target=work, args=(client, number)) for number, client in enumerate(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return workers * 5 * size >> 20

        compare(f"{workers} transfers", "MiB",
                [("stoa", fields[0].stoa, lambda: load(sessions[0]), None),
                 (f"beside {crowd} idle", fields[1].stoa, lambda: load(sessions[1]), None)], rounds=rounds)
        for client in held:
            client.command("NOOP", "200")
        for number in range(workers):
            same_files(f"{fields[1].stoa.folder}/pub/up{number}", f"{folder}/alone/64m")
        bench.say(f"failures: {len(failures)}; all {crowd} idle sessions answered afterwards, {workers} uploads equal")
        if failures:
            raise SystemExit(f"bench: {failures[0]}")
    finally:
        for field in fields:
            field.__exit__()
