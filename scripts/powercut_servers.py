"""The servers that scripts/powercut cuts the power of: Stoa on either catalog, and the peers in their usual configuration."""

import base64
import glob
import os
import shutil
import signal
import socket
import subprocess

from powercut_disk import until
from powercut_load import Ftp, Http, FileClient, MailClient, PopClient, Tus

ACCOUNT = ("alice", "wonder-land")
LOGIN = "Basic " + base64.b64encode(":".join(ACCOUNT).encode()).decode()
FILE_CLIENTS = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def kill_below(folder):
    """Ends every process that works in this folder of ours or has a file of it open, and waits until it is gone."""
    def users():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                links = [os.readlink(f"/proc/{pid}/cwd")] + [os.readlink(one) for one in glob.glob(f"/proc/{pid}/fd/*")]
            except OSError:
                continue
            if int(pid) != os.getpid() and any(link == folder or link.startswith(folder + "/") for link in links):
                found.append(int(pid))
        return found
    for pid in users():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    until("the servers are gone", lambda: not users())


class Server:
    """One server whose data lies on the disk under test."""

    name = "?"
    packages = []

    def __init__(self, work):
        self.work, self.process = work, None

    def spawn(self, *command, env=None, cwd=None):
        with open(f"{self.work}/log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd)

    def kill(self):
        if self.process:
            self.process.kill()

    def reap(self):
        """After the cut: nothing of the server runs any more."""
        if self.process:
            self.process.wait(20)
            self.process = None

    def settle(self):
        """Waits for work that the server acknowledged and does after its start."""

    def queued(self):
        """Files of messages that wait for their delivery still."""
        return []

    def check(self):
        """Faults that only the server itself can name."""
        return []


class Stoa(Server):
    """Stoa, with files through HTTP, WebDAV, tus and FTP and mail through SMTP and POP3."""

    def __init__(self, work, binary, engine="sqlite", durable=True):
        super().__init__(work)
        self.binary, self.engine, self.durable, self.postgres = binary, engine, durable, None
        # Bytes of the log that were looked at.
        self.read = 0
        self.name = f"stoa {engine}" + ("" if durable else " durable=false")
        self.packages = ["postgresql"] if engine == "postgres" else []

    def start(self, mount):
        self.mount = mount
        self.ports = {door: free_port() for door in ("http", "ftp", "smtp", "pop3")}
        catalog = ""
        if self.engine == "postgres":
            self.postgres = self.postgres or Postgres(self.work)
            self.postgres.start(mount)
            catalog = f'[catalog]\nengine = "postgres"\nurl = "{self.postgres.url}"\n'
        with open(f"{self.work}/password", "w") as file:
            file.write(ACCOUNT[1])
        os.chmod(f"{self.work}/password", 0o600)
        listeners = "".join(f'[[listen]]\nprotocol = "{door}"\naddress = "127.0.0.1:{port}"\n' for door, port in self.ports.items())
        with open(f"{self.work}/stoa.toml", "w") as file:
            file.write(f'''data = "{mount}/data"
domain = "example.org"
[http]
basic_in_clear = true
[pop3]
auth_in_clear = true
[login]
memory = "8 MiB"
attempts = 1000000
[storage]
keep_free = "0 B"
{catalog}{listeners}
[[user]]
name = "{ACCOUNT[0]}"
password_file = "{self.work}/password"
[[space]]
path = "/in"
durable = {str(self.durable).lower()}
grants = [ {{ to = "user:{ACCOUNT[0]}", allow = "edit" }} ]
''')
        self.spawn(self.binary, "--config", f"{self.work}/stoa.toml", "serve")
        until("Stoa serves", self.is_up)

    def is_up(self):
        if self.process.poll() is not None:
            with open(f"{self.work}/log", errors="replace") as log:
                raise RuntimeError("Stoa does not start:\n" + log.read()[-3000:])
        return all(answers(port) for port in self.ports.values())

    def kill(self):
        super().kill()
        if self.postgres:
            self.postgres.kill()

    def reap(self):
        super().reap()
        if self.postgres:
            self.postgres.reap()

    def clients(self, numbers, seed):
        address = {door: ("127.0.0.1", port) for door, port in self.ports.items()}
        connect = [lambda: Http(address["http"], LOGIN), lambda: Ftp(address["ftp"], ACCOUNT), lambda: Tus(address["http"], LOGIN)]
        files = [FileClient(how, f"/in/c{one}", numbers, seed + one) for one, how in enumerate(connect * FILE_CLIENTS)]
        mail = [MailClient(address["smtp"], f"{ACCOUNT[0]}@example.org", numbers, seed + 100 + one) for one in range(2)]
        return files, mail, [PopClient(address["pop3"], ACCOUNT, mail)]

    def tree(self):
        return f"{self.mount}/data/tree"

    def mailboxes(self):
        return [f"{self.mount}/data/tree/mail/{ACCOUNT[0]}"]

    def check(self):
        with open(f"{self.work}/log", errors="replace") as log:
            log.seek(self.read)
            said = log.read()
            self.read = log.tell()
        missed = [line for line in said.splitlines() if "content is lost" in line]
        done = subprocess.run([self.binary, "--config", f"{self.work}/stoa.toml", "history", "--verify"], capture_output=True, text=True)
        return missed if done.returncode == 0 else [*missed, f"the history does not verify: {done.stdout}{done.stderr}"]


class Postgres:
    """A PostgreSQL cluster on the disk under test."""

    def __init__(self, work):
        self.work, self.process, self.port = work, None, free_port()
        self.binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/stoa"

    def start(self, mount):
        self.data = f"{mount}/pg"
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        fresh = not os.path.exists(self.data)
        if fresh:
            os.makedirs(self.data, mode=0o700)
            shutil.chown(self.data, "postgres", "postgres")
            subprocess.run([*as_postgres, f"{self.binaries}/initdb", "-D", self.data, "-A", "trust"], check=True,
                           stdout=subprocess.DEVNULL, cwd="/")
        with open(f"{self.work}/postgres.log", "ab") as log:
            self.process = subprocess.Popen(
                [*as_postgres, f"{self.binaries}/postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                 "-c", "unix_socket_directories=", "-c", "max_wal_size=128MB"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        command = [*as_postgres, f"{self.binaries}/psql", "-qtA", "-h", "127.0.0.1", "-p", str(self.port), "postgres", "-c"]
        until("PostgreSQL serves", lambda: subprocess.run([*command, "SELECT 1"], capture_output=True, cwd="/").returncode == 0)
        if fresh:
            subprocess.run([*command, "CREATE DATABASE stoa"], check=True, cwd="/")

    def kill(self):
        if self.process:
            self.process.kill()

    def reap(self):
        if self.process:
            self.process.wait(20)
            self.process = None
        kill_below(self.data)
