"""The load of scripts/powercut: clients that change files and mail, and keep a record of what was acknowledged.

Each client has a folder of its own and does one thing at a time, so that after a cut exactly one change of each client may have
happened or not: the one whose reply did not come. Everything else must be as it was acknowledged.
"""

import base64
import ftplib
import http.client
import io
import poplib
import random
import smtplib
import threading

PATIENCE = 20
SIZES = (10, 3_000, 70_000, 400_000)
NAMES = 8
WIDTH = 21


# The connection ended before the reply.
BROKEN = (OSError, EOFError, http.client.HTTPException, ftplib.Error)


class Refused(Exception):
    """The server replied that it did not do it."""


def content(number, size):
    """Bytes that name the write they came from all through, so that a mixture is noticed."""
    line = f"{number:020}\n".encode()
    return line * max(1, size // WIDTH)


def number_of(data):
    """The write these bytes came from, or None for anything that no write left whole."""
    text = data[:WIDTH - 1]
    if len(data) % WIDTH or not text.isdigit():
        return None
    return int(text) if data == content(int(text), len(data)) else None


class Http:
    """PUT, MOVE and DELETE over one connection."""

    name = "http"

    def __init__(self, address, login):
        self.link = http.client.HTTPConnection(*address, timeout=PATIENCE)
        self.headers = {"Authorization": login} if login else {}

    def ask(self, method, path, body=None, **headers):
        self.link.request(method, path, body, {**self.headers, **headers})
        reply = self.link.getresponse()
        reply.read()
        if reply.status not in (200, 201, 204):
            raise Refused(f"{method} {path}: {reply.status}")

    def make_folder(self, path):
        self.ask("MKCOL", path + "/")

    def put(self, path, data):
        self.ask("PUT", path, data)

    def move(self, path, target):
        self.ask("MOVE", path, Destination=f"http://{self.link.host}:{self.link.port}{target}", Overwrite="T")

    def remove(self, path):
        self.ask("DELETE", path)

    def close(self):
        self.link.close()


class Tus(Http):
    """Uploads in two pieces; the rest as over HTTP."""

    name = "tus"

    def put(self, path, data):
        folder, _, name = path.rpartition("/")
        coded = base64.b64encode(name.encode()).decode()
        half = len(data) // 2
        self.link.request("POST", folder + "/", data[:half], {
            **self.headers, "Tus-Resumable": "1.0.0", "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {coded}",
            "Content-Type": "application/offset+octet-stream"})
        reply = self.link.getresponse()
        reply.read()
        if reply.status != 201:
            raise Refused(f"tus {path}: {reply.status}")
        at = int(reply.headers.get("Upload-Offset", "0"))
        self.ask("PATCH", http_path(reply.headers["Location"]), data[at:], **{
            "Tus-Resumable": "1.0.0", "Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"})


def http_path(location):
    return "/" + location.split("//", 1)[-1].split("/", 1)[-1] if "//" in location else location


class Ftp:
    """STOR, RNFR with RNTO, and DELE over one session."""

    name = "ftp"

    def __init__(self, address, account):
        self.link = ftplib.FTP(timeout=PATIENCE)
        self.link.connect(*address)
        self.link.login(*account)

    def ask(self, step):
        try:
            return step()
        except (ftplib.error_perm, ftplib.error_temp) as error:
            if str(error).startswith(("421", "426")):
                raise EOFError(str(error)) from error
            raise Refused(str(error)) from error

    def make_folder(self, path):
        self.ask(lambda: self.link.mkd(path))

    def put(self, path, data):
        self.ask(lambda: self.link.storbinary(f"STOR {path}", io.BytesIO(data)))

    def move(self, path, target):
        self.ask(lambda: self.link.rename(path, target))

    def remove(self, path):
        self.ask(lambda: self.link.delete(path))

    def close(self):
        self.link.close()


class Numbers:
    """Numbers of writes: each is given once."""

    def __init__(self):
        self.last, self.lock, self.made = 0, threading.Lock(), {}

    def next(self, what):
        """A new number; `what` is kept for reports."""
        with self.lock:
            self.last += 1
            self.made[self.last] = what
            return self.last

    def tell(self, number):
        return f"{number} ({self.made[number]})" if number in self.made else str(number)


class FileClient:
    """Changes the files of one folder by one protocol; `state` is what was acknowledged: name -> number of the write."""

    def __init__(self, connect, folder, numbers, seed):
        self.connect, self.folder, self.numbers = connect, folder, numbers
        self.random = random.Random(seed)
        self.state, self.in_doubt, self.acknowledged, self.refused, self.changes = {}, None, 0, [], []

    def changes_of(self, name):
        """The last changes of a name, for reports."""
        return [change for change in self.changes if name in change][-4:]

    def run(self, stop):
        try:
            link = self.connect()
            self.make_folder(link)
        except BROKEN:
            return
        while not stop.is_set():
            self.in_doubt = self.next_change()
            try:
                self.send(link, *self.in_doubt)
            except Refused as refused:
                if stop.is_set():
                    # The disk was gone already: the server could not know what of it had reached the disk.
                    break
                self.refused.append(str(refused))
                self.in_doubt = None
                continue
            except BROKEN:
                break
            self.state = after(self.state, *self.in_doubt)
            self.changes.append(self.in_doubt)
            self.in_doubt = None
            self.acknowledged += 1
        link.close()

    def make_folder(self, link):
        try:
            link.make_folder(self.folder)
        except Refused:
            pass  # it is there from an earlier life; if not, the first upload says so

    def next_change(self):
        names = [f"{self.folder}/f{one}" for one in range(NAMES)]
        there = [name for name in names if name in self.state]
        kind = self.random.choices(("put", "move", "remove"), (6, 2, 1))[0]
        if kind == "put" or not there:
            size = self.random.choice(SIZES)
            return ("put", self.random.choice(names), self.numbers.next(f"{size} bytes"), size)
        name = self.random.choice(there)
        if kind == "move":
            return ("move", name, self.random.choice([one for one in names if one != name]))
        return ("remove", name)

    @staticmethod
    def send(link, kind, path, *rest):
        if kind == "put":
            link.put(path, content(*rest))
        elif kind == "move":
            link.move(path, *rest)
        else:
            link.remove(path)


def after(state, kind, path, *rest):
    """What is there when the change was done."""
    state = dict(state)
    if kind == "put":
        state[path] = rest[0]
    elif kind == "move":
        state[rest[0]] = state.pop(path)
    else:
        del state[path]
    return state


class MailClient:
    """Sends messages to one mailbox, one after the other."""

    def __init__(self, address, recipient, numbers, seed):
        self.address, self.recipient, self.numbers = address, recipient, numbers
        self.random = random.Random(seed)
        self.sent, self.in_doubt, self.acknowledged, self.refused = set(), set(), 0, []
        # Seconds between two messages.
        self.pause = 0

    def run(self, stop):
        try:
            link = smtplib.SMTP(*self.address, timeout=PATIENCE)
            while not stop.is_set():
                size = self.random.choice(SIZES)
                number = self.numbers.next(f"{size} bytes")
                body = content(number, size).decode().replace("\n", "\r\n")
                self.in_doubt.add(number)
                link.sendmail("a@example.net", [self.recipient], f"Subject: {number}\r\n\r\n{body}")
                self.in_doubt.discard(number)
                self.sent.add(number)
                self.acknowledged += 1
                stop.wait(self.pause)
        except (smtplib.SMTPException, OSError):
            pass


class PopClient:
    """Fetches and deletes what is in the mailbox: gone is what was deleted before a QUIT that was acknowledged."""

    def __init__(self, address, account, mail):
        self.address, self.account, self.mail = address, account, mail
        self.gone, self.in_doubt, self.acknowledged, self.refused = set(), set(), 0, []
        # Messages deleted by one session.
        self.most = 5

    def run(self, stop):
        while not stop.wait(0.3):
            try:
                link = poplib.POP3(*self.address, timeout=PATIENCE)
                link.user(self.account[0])
                link.pass_(self.account[1])
                count, _ = link.stat()
                for which in range(1, min(count, self.most) + 1):
                    self.in_doubt.add(mail_number(b"\n".join(link.retr(which)[1])))
                    link.dele(which)
                link.quit()
            except (poplib.error_proto, OSError, EOFError):
                return
            self.gone |= self.in_doubt
            self.acknowledged += len(self.in_doubt)
            self.in_doubt = set()


def mail_number(text):
    """The write a message came from: its subject."""
    for line in text.replace(b"\r", b"").split(b"\n"):
        if line.startswith(b"Subject: "):
            return int(line[9:])
        if not line:
            break
    return None


def is_whole(text):
    """Does the body hold exactly what the subject says?"""
    head, _, body = text.replace(b"\r", b"").partition(b"\n\n")
    return number_of(body) == mail_number(head + b"\n")
