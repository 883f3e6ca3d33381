"""Python's ftplib against a server: PORT MODE VERSION CERTIFICATE, with MODE plain, explicit or implicit."""
import ftplib
import io
import ssl
import sys

port, mode, version, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]


class Reusing(ftplib.FTP_TLS):
    """Data connections resume the TLS session of the control connection."""

    reused = []

    def ntransfercmd(self, cmd, rest=None):
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            connection = self.context.wrap_socket(connection, server_hostname=self.host, session=self.sock.session)
            self.reused.append(connection.session_reused)
        return connection, size


class Implicit(Reusing):
    """TLS from the first byte."""

    _socket = None

    @property
    def sock(self):
        return self._socket

    @sock.setter
    def sock(self, value):
        if value is not None and not isinstance(value, ssl.SSLSocket):
            value = self.context.wrap_socket(value, server_hostname=self.host)
        self._socket = value


if mode == "plain":
    ftp = ftplib.FTP()
else:
    context = ssl.create_default_context(cafile=certificate)
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    ftp = (Implicit if mode == "implicit" else Reusing)(context=context)
ftp.connect("localhost", port, timeout=60)
ftp.login("alice", "wonder")
if mode != "plain":
    ftp.prot_p()
ftp.mkd("/files/py")
ftp.cwd("/files/py")
body = bytes(range(256)) * 4000


def fetch(name, **more):
    got = io.BytesIO()
    ftp.retrbinary(f"RETR {name}", got.write, **more)
    return got.getvalue()


for index in range(3):
    ftp.storbinary(f"STOR f{index}", io.BytesIO(body))
    assert fetch(f"f{index}") == body
ftp.storbinary("STOR empty", io.BytesIO())
assert fetch("empty") == b""
ftp.storbinary("STOR f0", io.BytesIO(body[1000:]), rest=1000)
ftp.storbinary("APPE f0", io.BytesIO(b"end"))
assert fetch("f0", rest=len(body) - 2) == body[-2:] + b"end"
assert ftp.size("f0") == len(body) + 3

ftp.set_pasv(False)
assert fetch("f0") == body + b"end"
ftp.storbinary("STOR active", io.BytesIO(body))
assert fetch("active") == body
ftp.set_pasv(True)

facts = dict(ftp.mlsd(facts=["type", "size", "modify"]))
assert facts["active"]["size"] == str(len(body)) and facts["active"]["type"] == "file", facts
ftp.voidcmd("MFMT 20200102030405 active")
assert ftp.voidcmd("MDTM active") == "213 20200102030405"

# The wanted beginning came: a polite client says ABOR (in the clear as urgent data), hangs up and goes on.
connection, size = ftp.ntransfercmd("RETR f1")
assert size == len(body), size
connection.recv(10)
reply = ftp.abort()
assert reply.startswith(("426", "226")), reply
connection.close()
reply = ftp.getresp()
assert reply.startswith("226"), reply
assert fetch("f1") == body

assert all(getattr(ftp, "reused", [])), ftp.reused
assert ftp.quit().startswith("221")
print("done")
