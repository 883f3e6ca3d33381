//! Real mail programs against a real daemon: what they send arrives, what they fetch is what was sent, byte for byte.
//!
//! Each program is started for one test and ended with it; `scripts/test` installs them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::daemon::{Daemon, PATIENCE};

const PASSWORD: &str = "correct horse";

/// A daemon with mail doors, each with and without TLS, and one user who gets all the mail.
struct House {
    daemon: Daemon,
    /// SMTP with STARTTLS; passwords in the clear are taken too.
    smtp: SocketAddr,
    /// SMTP under TLS.
    smtps: SocketAddr,
    /// POP3 with STLS; passwords in the clear are taken too.
    pop3: SocketAddr,
    /// POP3 under TLS.
    pop3s: SocketAddr,
    /// For what the programs write.
    desk: TempDir,
}

impl House {
    fn open() -> Self {
        let desk = tempfile::tempdir().expect("a folder");
        let secret = desk.path().join("password");
        fs::write(&secret, PASSWORD).expect("a file");
        let doors: String = ["smtp", "pop3"]
            .into_iter()
            .flat_map(|door| ["upgrade", "implicit"].map(|tls| (door, tls)))
            .map(|(door, tls)| {
                format!("[[listen]]\nprotocol = \"{door}\"\naddress = \"127.0.0.1:0\"\ntls = \"{tls}\"\n")
            })
            .collect();
        let toml = format!(
            "domain = \"example.org\"\n{doors}\n[smtp]\nauth_in_clear = true\n[pop3]\nauth_in_clear = true\n\
             [[user]]\nname = \"alice\"\npassword_file = {:?}\n",
            secret.display().to_string()
        );
        let daemon = Daemon::start(&toml);
        let listeners = fs::read_to_string(daemon.data.join("listeners")).expect("listeners");
        let at = |door: &str, number: usize| {
            let mut lines = listeners.lines().filter_map(|line| line.strip_prefix(door)?.strip_prefix(' '));
            lines.nth(number).expect("a door").parse().expect("an address")
        };
        let [smtp, smtps, pop3, pop3s] = [("smtp", 0), ("smtp", 1), ("pop3", 0), ("pop3", 1)].map(|(d, n)| at(d, n));
        Self { daemon, smtp, smtps, pop3, pop3s, desk }
    }

    /// A file on the desk.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.desk.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// A program that must succeed within a minute; what it said.
    fn run(&self, command: &mut Command) -> String {
        let output = bounded(command.current_dir(self.desk.path()).env("HOME", self.desk.path()));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let short: String = said.chars().take(4000).collect();
        assert!(output.status.success(), "{command:?}\n{}\n{short}", output.status);
        said
    }

    /// The messages in alice's Maildir, oldest first.
    fn arrived(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = ["new", "cur"]
            .into_iter()
            .filter_map(|part| fs::read_dir(self.maildir().join(part)).ok())
            .flat_map(|folder| folder.map(|entry| entry.expect("an entry").path()))
            .collect();
        files.sort_by_key(|path| path.file_name().expect("a name").to_owned());
        files.into_iter().map(|path| fs::read(path).expect("a message")).collect()
    }

    fn maildir(&self) -> PathBuf {
        self.daemon.on_disk("/mail/alice")
    }

    /// The one message that arrived, fetched back through POP3: it must be what is on the disk, and hold this.
    fn expect_one(&self, holds: &[&str]) {
        let arrived = self.arrived();
        assert_eq!(arrived.len(), 1, "one message arrives");
        let text = String::from_utf8_lossy(&arrived[0]);
        for part in holds {
            assert!(text.contains(part), "no {part:?} in\n{}", text.chars().take(2000).collect::<String>());
        }
        assert_eq!(digests(&self.fetch()), digests(&arrived), "POP3 gives what is on the disk");
    }

    /// Every message, by a POP3 client of a few lines.
    fn fetch(&self) -> Vec<Vec<u8>> {
        let mut client = Pop::connect(self.pop3);
        client.sign_in();
        let count: usize = client.ok("STAT").split(' ').next().expect("a count").parse().expect("a number");
        let messages = (1..=count).map(|number| client.many(&format!("RETR {number}"))).collect();
        client.ok("QUIT");
        messages
    }

    /// Delivers messages as they are, by SMTP.
    fn deliver(&self, messages: &[Vec<u8>]) {
        let mut stream = BufReader::new(TcpStream::connect(self.smtp).expect("a connection"));
        stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("a socket");
        let expect = |stream: &mut BufReader<TcpStream>, code: &str| {
            let mut line = String::new();
            while line.as_bytes().get(3) != Some(&b' ') {
                line.clear();
                assert!(stream.read_line(&mut line).expect("a reply") > 0, "closed");
            }
            assert!(line.starts_with(code), "{line}");
        };
        let say = |stream: &mut BufReader<TcpStream>, bytes: &[u8]| stream.get_mut().write_all(bytes).expect("a write");
        expect(&mut stream, "220");
        say(&mut stream, b"EHLO me\r\n");
        expect(&mut stream, "250");
        for message in messages {
            say(&mut stream, b"MAIL FROM:<me@else.where>\r\n");
            expect(&mut stream, "250");
            say(&mut stream, b"RCPT TO:<alice@example.org>\r\n");
            expect(&mut stream, "250");
            say(&mut stream, b"DATA\r\n");
            expect(&mut stream, "354");
            for line in message.split_inclusive(|byte| *byte == b'\n') {
                if line.starts_with(b".") {
                    say(&mut stream, b".");
                }
                say(&mut stream, line);
            }
            say(&mut stream, b".\r\n");
            expect(&mut stream, "250");
        }
        say(&mut stream, b"QUIT\r\n");
        expect(&mut stream, "221");
    }
}

/// A POP3 client of a few lines.
struct Pop(BufReader<TcpStream>);

impl Pop {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self(BufReader::new(stream));
        client.reply();
        client
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        let rest = line.strip_prefix("+OK ").unwrap_or_else(|| panic!("{line}"));
        rest.trim_end().to_owned()
    }

    fn ok(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("a write");
        self.reply()
    }

    fn sign_in(&mut self) {
        self.ok("USER alice");
        self.ok(&format!("PASS {PASSWORD}"));
    }

    /// A reply of many lines, with its dots undone.
    fn many(&mut self, command: &str) -> Vec<u8> {
        let said = self.ok(command);
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            self.0.read_until(b'\n', &mut line).expect("a line");
            assert!(line.ends_with(b"\r\n"), "a line of a message ends with CRLF");
            if line == b".\r\n" {
                break;
            }
            body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        if let Some(octets) = said.strip_suffix(" octets") {
            assert_eq!(octets, body.len().to_string(), "the size is exact");
        }
        body
    }
}

/// Runs a program to its end, or ends it.
fn bounded(command: &mut Command) -> Output {
    let limit = Duration::from_mins(1);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/test installs it", command.get_program().display()));
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let reading = std::thread::spawn(move || {
        let mut stderr = Vec::new();
        let other = std::thread::spawn(move || {
            let mut stdout = Vec::new();
            let _ = out.read_to_end(&mut stdout);
            stdout
        });
        let _ = err.read_to_end(&mut stderr);
        (other.join().expect("a reader"), stderr)
    });
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = reading.join().expect("a reader");
    Output { status, stdout, stderr }
}

/// SHA-256 of each, in no order.
fn digests(messages: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    messages.iter().map(|message| Sha256::digest(message).to_vec()).collect()
}

/// The same message with the line ends of a Unix file, as programs that keep mail on a disk write it.
fn unix(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let plain = |message: &Vec<u8>| {
        let mut out = Vec::with_capacity(message.len());
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            out.extend_from_slice(line.strip_suffix(b"\r\n").unwrap_or(line));
            if line.ends_with(b"\r\n") {
                out.push(b'\n');
            }
        }
        out
    };
    messages.iter().map(plain).collect()
}

/// Messages that break bad clients and servers: dots, no body, eight bits, long lines, a large one.
fn hard() -> Vec<Vec<u8>> {
    let head = |subject: &str| format!("From: me@else.where\r\nSubject: {subject}\r\n\r\n");
    let random: String = (0..40_000_u32).map(|n| char::from(b'!' + u8::try_from(n * n % 89).expect("small"))).collect();
    let lines: Vec<_> = random.as_bytes().chunks(70).map(|line| String::from_utf8_lossy(line)).collect();
    vec![
        format!("{}hello\r\n", head("plain")).into_bytes(),
        format!("{}.\r\n..\r\n.leading\r\n...\r\n\r\n.\r\n", head("dots")).into_bytes(),
        head("no body").into_bytes(),
        [head("eight bits").as_bytes(), &[0xe4, 0xf6, 0xfc, b'\r', b'\n', 0xff, 0x80, b'\r', b'\n']].concat(),
        format!("{}{}\r\n", head("a long line"), "x".repeat(900)).into_bytes(),
        format!("{}From the start\r\n>From quoted\r\n", head("from")).into_bytes(),
        format!("{}{}\r\n", head("large"), lines.join("\r\n")).into_bytes(),
    ]
}

fn port(address: SocketAddr) -> String {
    address.port().to_string()
}

/// A program that came as a Debian package unpacked, not installed: two mail systems cannot be installed side by side.
fn unpacked(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(path)
}

#[test]
fn swaks_signs_in_in_every_way_there_is() {
    let house = House::open();
    let (smtp, smtps) = (port(house.smtp), port(house.smtps));
    let forms: &[(&str, &[&str], bool)] = &[
        (&smtp, &[], false),
        (&smtp, &["--auth", "PLAIN"], true),
        (&smtp, &["--auth", "LOGIN"], true),
        (&smtp, &["--auth", "PLAIN,LOGIN", "--auth-plaintext"], true),
        (&smtp, &["--auth-optional", "LOGIN"], true),
        (&smtp, &["-tls"], false),
        (&smtp, &["--tls-optional"], false),
        (&smtp, &["-tls", "--auth", "PLAIN"], true),
        (&smtp, &["-tls", "--auth", "LOGIN"], true),
        (&smtp, &["-tls", "--tls-protocol", "tlsv1_2", "--auth", "PLAIN"], true),
        (&smtp, &["-tls", "--tls-protocol", "tlsv1_3", "--auth", "PLAIN"], true),
        (&smtps, &["-tlsc"], false),
        (&smtps, &["-tlsc", "--auth", "PLAIN"], true),
        (&smtps, &["-tlsc", "--auth", "LOGIN"], true),
        (&smtp, &["--protocol", "SMTP"], false),
        (&smtp, &["--protocol", "ESMTPSA"], true),
        (&smtps, &["--protocol", "SSMTPA"], true),
        (&smtp, &["--pipeline"], false),
        (&smtp, &["-tls", "--pipeline", "--auth", "PLAIN"], true),
    ];
    for (at, form, signs_in) in forms {
        let mut swaks = Command::new("swaks");
        swaks.args(["--server", "127.0.0.1", "--port", at, "--to", "alice@example.org", "--timeout", "30"]);
        swaks.args(["--from", if *signs_in { "alice@example.org" } else { "me@else.where" }]).args(*form);
        if *signs_in {
            swaks.args(["--auth-user", "alice", "--auth-password", PASSWORD]);
        }
        let said = house.run(&mut swaks);
        assert!(said.contains("250 2.0.0"), "{form:?}\n{said}");
        let proved = said.contains("235 2.7.0");
        assert_eq!(proved, *signs_in, "{form:?}\n{said}");
    }
    let arrived = house.arrived();
    assert_eq!(arrived.len(), forms.len());
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn swaks_is_told_when_its_password_is_wrong() {
    let house = House::open();
    let mut swaks = Command::new("swaks");
    swaks.args(["--server", "127.0.0.1", "--port", &port(house.smtp), "--to", "alice@example.org", "-tls"]);
    swaks.args(["--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "wrong", "--timeout", "30"]);
    let output = bounded(&mut swaks);
    assert_eq!(output.status.code(), Some(28), "swaks says: authentication failed");
    assert!(house.arrived().is_empty());
}

#[test]
fn smtp_source_sends_many_at_once() {
    let house = House::open();
    let mut source = Command::new("/usr/sbin/smtp-source");
    source.args(["-s", "5", "-m", "60", "-l", "4096", "-f", "me@else.where", "-t", "alice@example.org"]);
    house.run(source.arg(format!("127.0.0.1:{}", house.smtp.port())));
    let arrived = house.arrived();
    assert_eq!(arrived.len(), 60);
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn msmtp_sends_under_tls() {
    let house = House::open();
    for (at, starttls) in [(house.smtp, "on"), (house.smtps, "off")] {
        let config = format!(
            "account default\nhost 127.0.0.1\nport {}\ntls on\ntls_certcheck off\ntls_starttls {starttls}\nauth plain\n\
             user alice\npassword {PASSWORD}\nfrom alice@example.org\n",
            at.port()
        );
        let config = house.file("msmtprc", config);
        let letter = house.file("letter", format!("Subject: by msmtp {starttls}\n\n.dot\n\u{e4}\n"));
        set_private(&config);
        let mut msmtp = Command::new("sh");
        msmtp.args(["-c", "exec msmtp -C \"$1\" alice@example.org <\"$2\"", "sh"]).arg(config).arg(letter);
        house.run(&mut msmtp);
    }
    let arrived = house.arrived();
    assert_eq!(arrived.len(), 2);
    assert!(arrived.iter().all(|message| String::from_utf8_lossy(message).ends_with("\r\n\r\n.dot\r\n\u{e4}\r\n")));
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

/// Programs refuse a file with a password in it that others can read.
fn set_private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("permissions");
}

#[test]
fn nullmailer_hands_over_its_queue() {
    let house = House::open();
    let queued = house.file(
        "queued",
        "alice@example.org\nalice@example.org\n\nFrom: alice@example.org\nSubject: by nullmailer\n\nhello\n.\nend\n",
    );
    let mut sender = Command::new("sh");
    sender.args([
        "-c",
        "exec \"$1\" --host=127.0.0.1 --port=$2 --starttls --insecure --user=alice --pass=\"$3\" 3<\"$4\"",
        "sh",
    ]);
    sender.env("HELOHOST", "else.where");
    sender.arg(unpacked("nullmailer/usr/lib/nullmailer/smtp")).arg(port(house.smtp)).arg(PASSWORD).arg(queued);
    house.run(&mut sender);
    house.expect_one(&["Subject: by nullmailer\r\n", "\r\n\r\nhello\r\n.\r\nend\r\n", "with ESMTPSA"]);
}

#[test]
fn pythons_smtplib_sends() {
    let house = House::open();
    let script = "
import smtplib, ssl, sys
from email.message import EmailMessage
port, tls_port, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl._create_unverified_context()
message = EmailMessage()
message['From'], message['To'], message['Subject'] = 'alice@example.org', 'alice@example.org', 'Gr\\u00fc\\u00dfe by smtplib'
message.set_content('.dot\\nGr\\u00fc\\u00dfe\\n')
message.add_attachment(bytes(range(256)), maintype='application', subtype='octet-stream', filename='\\u00e4.bin')
for form in ('plain', 'login', 'tls'):
    with (smtplib.SMTP_SSL('127.0.0.1', tls_port, context=context, timeout=30) if form == 'tls' else smtplib.SMTP('127.0.0.1', port, timeout=30)) as client:
        if form == 'plain':
            client.starttls(context=context)
        client.login('alice', password)
        client.send_message(message)
with smtplib.SMTP('127.0.0.1', port, timeout=30) as client:
    client.ehlo()
    client.sendmail('me@else.where', ['alice@example.org'], b'Subject: raw\\r\\n\\r\\n\\xe4\\r\\n.\\r\\n', ['BODY=8BITMIME'])
    client.sendmail('me@else.where', ['alice@example.org'], 'Subject: \\u00fc\\r\\n\\r\\n'.encode(), ['SMTPUTF8', 'BODY=8BITMIME'])
";
    house.run(Command::new("/usr/bin/python3").args(["-c", script, &port(house.smtp), &port(house.smtps), PASSWORD]));
    let arrived = house.arrived();
    assert_eq!(arrived.len(), 5);
    assert!(arrived.iter().any(|message| message.ends_with(b"Subject: raw\r\n\r\n\xe4\r\n.\r\n")));
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn aiosmtplib_sends_at_the_same_time() {
    let house = House::open();
    let script = "
import aiosmtplib, asyncio, sys
port, tls_port, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
async def one(number):
    under_tls = dict(port=tls_port, use_tls=True, validate_certs=False) if number % 2 else dict(port=port, start_tls=True, validate_certs=False)
    await aiosmtplib.send(f'Subject: number {number}\\r\\n\\r\\n.{number}\\r\\n', sender='alice@example.org', recipients=['alice@example.org'],
        hostname='127.0.0.1', username='alice', password=password, timeout=30, **under_tls)
async def main():
    await asyncio.gather(*(one(number) for number in range(8)))
asyncio.run(main())
";
    house.run(Command::new("/usr/bin/python3").args(["-c", script, &port(house.smtp), &port(house.smtps), PASSWORD]));
    let arrived = house.arrived();
    let subjects: BTreeSet<_> = arrived
        .iter()
        .filter_map(|message| {
            let text = String::from_utf8_lossy(message).into_owned();
            text.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned))
        })
        .collect();
    assert_eq!((arrived.len(), subjects.len()), (8, 8));
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn nodemailer_sends_from_a_pool() {
    let house = House::open();
    let script = "
const nodemailer = require('nodemailer');
const [port, tlsPort, pass] = process.argv.slice(1);
const tls = { rejectUnauthorized: false }, auth = { user: 'alice', pass };
const mail = n => ({ from: 'alice@example.org', to: 'alice@example.org', subject: `nodemailer ${n} äöü`, text: '.dot\\r\\nbody',
  attachments: [{ filename: 'März 2026.bin', content: Buffer.alloc(100000, n) }] });
(async () => {
  const pool = nodemailer.createTransport({ pool: true, maxConnections: 2, host: '127.0.0.1', port: +port, requireTLS: true, tls, auth });
  await Promise.all([1, 2, 3, 4, 5, 6].map(n => pool.sendMail(mail(n))));
  pool.close();
  const secure = nodemailer.createTransport({ host: '127.0.0.1', port: +tlsPort, secure: true, tls, auth });
  await secure.sendMail(mail(7));
  secure.close();
})().catch(error => { console.error(error); process.exit(1); });
";
    let mut node = Command::new("node");
    node.env("NODE_PATH", "/usr/share/nodejs:/usr/lib/nodejs");
    house.run(node.args(["-e", script, &port(house.smtp), &port(house.smtps), PASSWORD]));
    let arrived = house.arrived();
    assert_eq!(arrived.len(), 7);
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn lettre_sends_with_and_without_tls() {
    use lettre::message::{Attachment, MultiPart, SinglePart};
    use lettre::transport::smtp::authentication::{Credentials, Mechanism};
    use lettre::transport::smtp::client::{Tls, TlsParameters};
    use lettre::{SmtpTransport, Transport};
    let house = House::open();
    // Each another one: the same message sent again is stored once.
    let message = |round: usize| {
        let data = Attachment::new("a.bin".into());
        let data = data.body(vec![7_u8; 3000], "application/octet-stream".parse().unwrap());
        let text = SinglePart::plain(".dot\r\nbody äöü\r\n".to_owned());
        lettre::Message::builder()
            .from("alice@example.org".parse().unwrap())
            .to("Älice <alice@example.org>".parse().unwrap())
            .subject(format!("by lettre {round}"))
            .multipart(MultiPart::mixed().singlepart(text).singlepart(data))
            .unwrap()
    };
    let careless =
        || TlsParameters::builder("localhost".to_owned()).dangerous_accept_invalid_certs(true).build_rustls().unwrap();
    let mut sent = Vec::new();
    for (round, (at, tls, how)) in [
        (house.smtp, Tls::None, Mechanism::Plain),
        (house.smtp, Tls::Required(careless()), Mechanism::Plain),
        (house.smtps, Tls::Wrapper(careless()), Mechanism::Login),
    ]
    .into_iter()
    .enumerate()
    {
        let transport = SmtpTransport::builder_dangerous("127.0.0.1")
            .port(at.port())
            .tls(tls)
            .authentication(vec![how])
            .credentials(Credentials::new("alice".into(), PASSWORD.into()))
            .timeout(Some(Duration::from_secs(30)))
            .build();
        let message = message(round);
        transport.send(&message).unwrap();
        sent.push(message.formatted());
    }
    let arrived = house.arrived();
    assert_eq!(arrived.len(), 3);
    let came = |sent: &Vec<u8>| arrived.iter().any(|came| came.trim_ascii_end().ends_with(sent.trim_ascii_end()));
    assert!(sent.iter().all(came), "what came is what was sent, behind its trace");
    assert_eq!(digests(&house.fetch()), digests(&arrived));
}

#[test]
fn mutt_sends() {
    let house = House::open();
    let attached = house.file("plan.pdf", [b"%PDF-", [0x80_u8; 200].as_slice()].concat());
    let letter = house.file("letter", "hello\n.\nfrom mutt\n");
    let rc = house.file(
        "muttrc",
        format!(
            "set smtp_url = \"smtp://127.0.0.1:{}/\"\nset ssl_starttls = no\nset ssl_force_tls = no\nset from = \"me@else.where\"\nset copy = no\n\
             set use_envelope_from = yes\nset hostname = else.where\n",
            house.smtp.port()
        ),
    );
    let mut mutt = Command::new("sh");
    mutt.args(["-c", "exec mutt -F \"$1\" -s 'by mutt' -a \"$2\" -- alice@example.org <\"$3\"", "sh"]);
    house.run(mutt.arg(rc).arg(attached).arg(letter));
    house.expect_one(&["Subject: by mutt\r\n", "\r\nhello\r\n.\r\nfrom mutt\r\n", "plan.pdf"]);
}

#[test]
fn mutt_opens_the_maildir_as_it_is() {
    let house = House::open();
    house.deliver(&hard());
    let (rc, kept) =
        (house.file("muttrc", "set mbox_type = Maildir\nset delete = yes\n"), house.desk.path().join("kept"));
    // A curses program wants a terminal; `script` has one.
    let keys = "<tag-pattern>~A<enter><tag-prefix><copy-message>=kept<enter>y<flag-message><quit>";
    let line = format!(
        "mutt -F {} -f {} -e 'set folder={} confirmappend=no confirmcreate=no copy=no move=no quit=yes' -e 'push \"{keys}\"'",
        rc.display(),
        house.maildir().display(),
        house.desk.path().display(),
    );
    house.run(Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm"));
    let mut copied = Vec::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(kept.join(part)).expect("a Maildir made by mutt") {
            copied.push(fs::read(entry.unwrap().path()).unwrap());
        }
    }
    assert_eq!(copied.len(), hard().len(), "mutt saw every message");
    // What mutt moved and flagged is the same mail to POP3, with the same ids.
    assert_eq!(digests(&house.fetch()), digests(&house.arrived()));
    assert_eq!(house.arrived().len(), hard().len());
}

#[test]
fn curl_fetches_each_message_as_it_is() {
    let house = House::open();
    house.deliver(&hard());
    let arrived = house.arrived();
    for url in [format!("pop3://127.0.0.1:{}", house.pop3.port()), format!("pop3s://127.0.0.1:{}", house.pop3s.port())]
    {
        let mut fetched = Vec::new();
        for number in 1..=arrived.len() {
            let into = house.desk.path().join("fetched");
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-k", "--max-time", "30", "--ssl", "-u", &format!("alice:{PASSWORD}"), "-o"]).arg(&into);
            house.run(curl.arg(format!("{url}/{number}")));
            fetched.push(fs::read(into).unwrap());
        }
        assert_eq!(digests(&fetched), digests(&arrived), "{url}");
    }
}

#[test]
fn poplib_fetches_and_deletes() {
    let house = House::open();
    house.deliver(&hard());
    let arrived = house.arrived();
    let script = "
import hashlib, poplib, ssl, sys
port, tls_port, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl._create_unverified_context()
def fetch(client):
    capabilities = client.capa()
    for word in ('TOP', 'UIDL', 'RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING', 'EXPIRE'):
        assert word in capabilities, capabilities
    client.user('alice'); client.pass_(password)
    count, octets = client.stat()
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    assert sum(sizes) == octets and len(sizes) == count, (sizes, octets)
    seen = []
    for number in range(1, count + 1):
        whole = b''.join(line + b'\\r\\n' for line in client.retr(number)[1])
        assert len(whole) == sizes[number - 1], (number, len(whole), sizes)
        top = b''.join(line + b'\\r\\n' for line in client.top(number, 1)[1])
        assert whole.startswith(top), number
        seen.append(hashlib.sha256(whole).hexdigest())
    return seen, [line.split()[1] for line in client.uidl()[1]]
one = poplib.POP3('127.0.0.1', port, timeout=30)
one.stls(context)
seen, ids = fetch(one)
try:
    other = poplib.POP3_SSL('127.0.0.1', tls_port, context=context, timeout=30)
    other.user('alice'); other.pass_(password)
    raise SystemExit('two sessions hold one maildrop')
except poplib.error_proto as error:
    assert b'[IN-USE]' in error.args[0], error
one.dele(2); one.close()
two = poplib.POP3_SSL('127.0.0.1', tls_port, context=context, timeout=30)
again, same = fetch(two)
assert (seen, ids) == (again, same), 'a dropped link deletes nothing, ids stay'
two.dele(2); two.quit()
three = poplib.POP3('127.0.0.1', port, timeout=30)
after, left = fetch(three)
assert left == ids[:1] + ids[2:], (ids, left)
three.quit()
print('\\n'.join(seen))
";
    let mut python = Command::new("/usr/bin/python3");
    let said = house.run(python.args(["-c", script, &port(house.pop3), &port(house.pop3s), PASSWORD]));
    let seen: BTreeSet<String> = said.lines().map(str::to_owned).collect();
    let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(seen, digests(&arrived).iter().map(hex).collect());
    assert_eq!(house.arrived().len(), hard().len() - 1);
}

/// The files a fetching program left in a Maildir.
fn maildir(folder: &Path) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(folder.join(part)).expect("a Maildir") {
            messages.push(fs::read(entry.expect("an entry").path()).expect("a message"));
        }
    }
    messages
}

fn empty_maildir(house: &House, name: &str) -> PathBuf {
    let folder = house.desk.path().join(name);
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    folder
}

#[test]
fn mpop_fetches_once_and_leaves_or_takes() {
    let house = House::open();
    house.deliver(&hard());
    let arrived = house.arrived();
    let kept = empty_maildir(&house, "kept");
    for (at, starttls, keep) in [(house.pop3, "on", "on"), (house.pop3s, "off", "on"), (house.pop3s, "off", "off")] {
        let config = format!(
            "account default\nhost 127.0.0.1\nport {}\nuser alice\npassword {PASSWORD}\ntls on\ntls_certcheck off\n\
             tls_starttls {starttls}\nkeep {keep}\nreceived_header off\nuidls_file {}\ndelivery maildir {}\n",
            at.port(),
            house.desk.path().join("uidls").display(),
            kept.display(),
        );
        let config = house.file("mpoprc", config);
        set_private(&config);
        house.run(Command::new("mpop").arg("-C").arg(config));
        assert_eq!(digests(&maildir(&kept)), digests(&unix(&arrived)), "each once, by its unique id");
        assert_eq!(maildir(&kept).len(), arrived.len());
    }
    assert!(house.arrived().is_empty(), "taken at last");
}

#[test]
fn getmail_fetches_and_remembers() {
    let house = House::open();
    house.deliver(&hard());
    let arrived = house.arrived();
    let kept = empty_maildir(&house, "kept");
    let folder = house.desk.path().join("getmail");
    // Its own Maildir writer refuses to work for root, who runs tests in containers.
    fs::create_dir(&folder).unwrap();
    let config = format!(
        "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = 127.0.0.1\nport = {}\nusername = alice\npassword = {PASSWORD}\n\
         [destination]\ntype = MDA_external\npath = /bin/sh\nunixfrom = false\nallow_root_commands = true\n\
         arguments = (\"-c\", \"cat >$(mktemp {}/new/XXXXXXXX)\")\n\
         [options]\nread_all = false\ndelete = false\nreceived = false\ndelivered_to = false\nverbose = 1\n",
        house.pop3s.port(),
        kept.display(),
    );
    set_private(&house.file("getmail/getmailrc", config));
    for _ in 0..2 {
        house.run(Command::new("getmail").arg("--getmaildir").arg(&folder));
    }
    assert_eq!(maildir(&kept).len(), arrived.len(), "each once, by its unique id");
    assert_eq!(digests(&maildir(&kept)), digests(&unix(&arrived)));
}
