"""The peers that scripts/powercut measures beside Stoa, each as it comes: files by FTP or HTTP, mail by SMTP."""

import os
import shutil
import signal
import subprocess
import time

from powercut_disk import run, until
from powercut_load import FileClient, Ftp, Http, MailClient
from powercut_servers import ACCOUNT, FILE_CLIENTS, Server, answers, free_port, kill_below

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNPACKED = f"{HERE}/target/clients/ftp-peers"
LIBRARIES = dict(os.environ, LD_LIBRARY_PATH=f"{UNPACKED}/usr/lib/x86_64-linux-gnu:{UNPACKED}/lib/x86_64-linux-gnu")
NOBODY = 65534
DAEMON = 1  # an account with a home folder, which vsftpd asks for


def unpack(*packages):
    """Debian's packages of FTP servers conflict with each other, so they are unpacked instead of installed."""
    os.makedirs(UNPACKED, exist_ok=True)
    for package in packages:
        if not os.path.exists(f"{UNPACKED}/.{package}"):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=UNPACKED, check=True, stderr=subprocess.DEVNULL)
            subprocess.run(f"dpkg-deb -x {package}_*.deb . && rm -f {package}_*.deb && touch .{package}", shell=True, cwd=UNPACKED, check=True)


class Peer(Server):
    """A peer on one port, in a process group of its own."""

    owner = NOBODY

    def start(self, mount):
        self.mount, self.port = mount, free_port()
        self.lay()
        with open(f"{self.work}/log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=LIBRARIES, cwd="/",
                                            start_new_session=True)
        until(f"{self.name} serves", lambda: answers(self.port))

    def lay(self):
        os.makedirs(f"{self.tree()}/in", exist_ok=True)
        shutil.chown(f"{self.tree()}/in", self.owner, self.owner)

    def write(self, name, text):
        with open(f"{self.work}/{name}", "w") as file:
            file.write(text)
        return f"{self.work}/{name}"

    def kill(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self):
        super().reap()
        kill_below(self.mount)

    def clients(self, numbers, seed):
        return [FileClient(self.connect, f"/in/c{one}", numbers, seed + one) for one in range(3 * FILE_CLIENTS)], [], []

    def tree(self):
        return f"{self.mount}/tree"

    def mailboxes(self):
        return []


class Vsftpd(Peer):
    name, owner = "vsftpd", DAEMON

    def command(self):
        unpack("vsftpd", "libwrap0", "libnsl2", "libtirpc3")
        os.makedirs(f"{self.work}/empty", exist_ok=True)
        return [f"{UNPACKED}/usr/sbin/vsftpd", self.write("vsftpd.conf", f"""listen=YES
listen_address=127.0.0.1
listen_port={self.port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={self.tree()}
ftp_username=daemon
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
secure_chroot_dir={self.work}/empty
seccomp_sandbox=NO
""")]

    def connect(self):
        return Ftp(("127.0.0.1", self.port), ("anonymous", "a@b"))


class PureFtpd(Peer):
    name = "pure-ftpd"

    def command(self):
        unpack("pure-ftpd", "pure-ftpd-common")
        passwords, database = f"{self.work}/passwd", f"{self.work}/users.pdb"
        subprocess.run([f"{UNPACKED}/usr/bin/pure-pw", "useradd", ACCOUNT[0], "-f", passwords, "-u", str(NOBODY), "-g", str(NOBODY),
                        "-d", self.tree(), "-m", "-F", database], input=f"{ACCOUNT[1]}\n{ACCOUNT[1]}\n", text=True, env=LIBRARIES,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return [f"{UNPACKED}/usr/sbin/pure-ftpd", "-l", f"puredb:{database}", "-S", f"127.0.0.1,{self.port}", "-H", "-u", "100"]

    def connect(self):
        return Ftp(("127.0.0.1", self.port), ACCOUNT)


class Nginx(Peer):
    name = "nginx"
    packages = ["nginx"]

    def lay(self):
        super().lay()
        os.makedirs(f"{self.mount}/body", exist_ok=True)

    def command(self):
        return ["nginx", "-p", self.work, "-c", self.write("nginx.conf", f"""user root;
daemon off;
pid {self.work}/nginx.pid;
error_log {self.work}/error.log;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {self.mount}/body;
    server {{
        listen 127.0.0.1:{self.port};
        root {self.tree()};
        location / {{
            dav_methods PUT DELETE MKCOL MOVE;
        }}
    }}
}}
""")]

    def connect(self):
        return Http(("127.0.0.1", self.port), None)


class Postfix(Peer):
    name = "postfix"
    packages = ["postfix"]

    def lay(self):
        for folder in ("mail", "queue", "state"):
            os.makedirs(f"{self.mount}/{folder}", exist_ok=True)
        shutil.chown(f"{self.mount}/mail", NOBODY, NOBODY)
        shutil.chown(f"{self.mount}/state", "postfix", "postfix")

    def command(self):
        self.write("main.cf", f"""compatibility_level = 3.6
queue_directory = {self.mount}/queue
data_directory = {self.mount}/state
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = power.example.org
mydestination =
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = example.org
virtual_mailbox_base = {self.mount}/mail
virtual_mailbox_maps = static:{ACCOUNT[0]}/
virtual_uid_maps = static:{NOBODY}
virtual_gid_maps = static:{NOBODY}
maillog_file = {self.work}/maillog
maillog_file_prefixes = {self.work}
""")
        with open("/usr/share/postfix/master.cf.dist") as file:
            lines = file.read().splitlines()
        kept = [line for line in lines if line[:1] not in ("#", "") and not line.startswith("smtp      inet")]
        self.write("master.cf", "\n".join([f"{self.port} inet n - n - - smtpd"] + [line.replace(" y ", " n ") for line in kept]) + "\n")
        os.chmod(f"{self.work}/main.cf", 0o644)
        subprocess.run(["postfix", "-c", self.work, "set-permissions"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pid = f"{self.mount}/queue/pid/master.pid"
        if os.path.exists(pid):
            os.remove(pid)
        return ["postfix", "-c", self.work, "start-fg"]

    def clients(self, numbers, seed):
        address = ("127.0.0.1", self.port)
        return [], [MailClient(address, f"{ACCOUNT[0]}@example.org", numbers, seed + one) for one in range(6)], []

    def mailboxes(self):
        return [f"{self.mount}/mail/{ACCOUNT[0]}"]

    def settle(self):
        """What it acknowledged waits in its queue until it is delivered."""
        def is_empty():
            return "is empty" in subprocess.run(["postqueue", "-c", self.work, "-p"], capture_output=True, text=True).stdout
        subprocess.run(["postqueue", "-c", self.work, "-f"], capture_output=True)
        until("the queue is empty", is_empty)


class OpenSmtpd(Peer):
    """It has its folders and accounts compiled in: these are mounted over the machine's own, in the mount namespace of this script."""

    name = "opensmtpd"
    accounts = ("opensmtpd", "opensmtpq")

    def __init__(self, work):
        super().__init__(work)
        unpack("opensmtpd", "libevent-2.1-7", "libdb5.3")
        os.makedirs(f"{work}/lib/opensmtpd/empty")
        for kind in ("passwd", "group"):
            with open(f"/etc/{kind}") as file:
                text = file.read()
            for number, name in enumerate(self.accounts, 64900):
                rest = f"{number}::/var/lib/opensmtpd/empty:/usr/sbin/nologin" if kind == "passwd" else ""
                text += f"{name}:x:{number}:{rest}\n"
            run("mount", "--bind", self.write(kind, text), f"/etc/{kind}")
        # It insists on belonging to the group of its queue.
        self.control = shutil.copy(f"{UNPACKED}/usr/sbin/smtpctl", work)
        os.chown(self.control, 0, 64901)
        os.chmod(self.control, 0o2555)
        run("mount", "--bind", f"{work}/lib", "/var/lib")
        run("mount", "--bind", f"{UNPACKED}/usr/libexec", "/usr/libexec")

    def lay(self):
        for folder in ("mail", "spool/smtpd"):
            os.makedirs(f"{self.mount}/{folder}", exist_ok=True)
        os.chmod(f"{self.mount}/spool/smtpd", 0o711)
        shutil.chown(f"{self.mount}/mail", NOBODY, NOBODY)
        run("mount", "--bind", f"{self.mount}/spool", "/var/spool")

    def command(self):
        return [f"{UNPACKED}/usr/sbin/smtpd", "-d", "-f", self.write("smtpd.conf", f"""table users {{ {ACCOUNT[0]} = "{NOBODY}:{NOBODY}:/" }}
listen on 127.0.0.1 port {self.port} hostname power.example.org
action "in" maildir "{self.mount}/mail/{ACCOUNT[0]}" userbase <users>
match from any for domain "example.org" action "in"
""")]

    def reap(self):
        super().reap()
        kill_below("/var/spool")
        subprocess.run(["umount", "-l", "/var/spool"], stderr=subprocess.DEVNULL)

    def clients(self, numbers, seed):
        address = ("127.0.0.1", self.port)
        return [], [MailClient(address, f"{ACCOUNT[0]}@example.org", numbers, seed + one) for one in range(6)], []

    def mailboxes(self):
        return [f"{self.mount}/mail/{ACCOUNT[0]}"]

    def settle(self):
        """What it acknowledged waits in its queue until it is delivered."""
        # On the disk: its own list is empty as well before it has read its queue. What a cut has spoilt stays there.
        end = time.monotonic() + 15
        while self.queued() and time.monotonic() < end:
            subprocess.run([self.control, "schedule", "all"], capture_output=True, env=LIBRARIES)
            time.sleep(0.5)

    def queued(self):
        queue = f"{self.mount}/spool/smtpd/queue"
        return [f"{folder}/message" for folder, _, files in os.walk(queue) if "message" in files]


PEERS = {peer.name: peer for peer in (Vsftpd, PureFtpd, Nginx, Postfix, OpenSmtpd)}
