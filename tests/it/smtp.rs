//! SMTP over real sockets: STARTTLS, sign-in, what a message looks like when it has come, and swaks as a foreign client.

use std::net::SocketAddr;
use std::sync::Arc;

use stoa::hub::settings::Settings;
use stoa::net::{Handler, Limits, Link, Permit, Stream, Tls, TlsSettings};
use stoa::origin::{Origin, Whence};
use stoa::proto::{Protocol, Section, Tools, smtp};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::mail::{Site, settings, with_files};

const PASSWORD: &str = "correct horse";

/// The door on a free port of the loopback.
struct Server {
    site: Site,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    async fn start(section: &str) -> Self {
        let secrets = tempfile::tempdir().expect("a folder");
        let file = secrets.path().join("password");
        std::fs::write(&file, PASSWORD).expect("a file");
        let mut told: Settings = settings();
        for user in &mut told.users {
            user.password_file = file.display().to_string();
        }
        Self::with(Site::with(told).await, section, true).await
    }

    async fn with(site: Site, section: &str, tls: bool) -> Self {
        let mut values = smtp::Smtp.defaults();
        values.extend(section.parse::<toml::Table>().expect("TOML"));
        let names = ["localhost".to_owned()];
        let pair = Tls::open(&TlsSettings::default(), site.folder.path(), &names).expect("a certificate");
        let tools = Tools { hub: site.hub.clone(), tls: pair.clone(), ready: Arc::new(|| true) };
        let handler = smtp::Smtp.open(&Section { name: "smtp", values }, &tools).expect("a door");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, handler, tls.then_some(pair), stop.clone()));
        Self { site, address, stop }
    }

    async fn connect(&self) -> Client<TcpStream> {
        let mut client = Client::new(TcpStream::connect(self.address).await.expect("a connection"));
        assert!(client.reply().await.starts_with("220 example.org ESMTP"));
        client
    }
}

async fn accept(listener: TcpListener, handler: Arc<dyn Handler>, tls: Option<Arc<Tls>>, stop: CancellationToken) {
    let limits = Arc::new(Limits::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = accepted.expect("a connection");
        let origin = Origin::from(Whence {
            door: "smtp",
            listener: "smtp@test".into(),
            peer,
            local: stream.local_addr().expect("an address"),
            link: u64::from(peer.port()),
            secure: false,
        });
        let link = Link {
            stream: Stream::Tcp(stream),
            origin,
            stop: stop.child_token(),
            limits: limits.clone(),
            tls: tls.clone(),
            permit: Permit::uncounted(),
            trusted: None,
        };
        let handler = handler.clone();
        tokio::spawn(async move { handler.serve(link).await });
    }
}

/// Speaks lines.
struct Client<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("written");
        self.stream.flush().await.expect("flushed");
    }

    /// One reply, all its lines.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), self.stream.read_line(&mut line));
            if read.await.expect("an answer in time").expect("a line") == 0 {
                return reply;
            }
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.push_str(&line);
            if last {
                return reply;
            }
        }
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\r\n")).await;
        self.reply().await
    }

    async fn expect(&mut self, line: &str, start: &str) {
        let reply = self.ask(line).await;
        assert!(reply.starts_with(start), "{line} → {reply}");
    }
}

/// Takes any certificate: what is tested is the protocol.
#[derive(Debug)]
pub(crate) struct Anyone(pub(crate) rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end: &rustls::pki_types::CertificateDer<'_>,
        _chain: &[rustls::pki_types::CertificateDer<'_>],
        _name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn secure(client: Client<TcpStream>) -> Client<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    assert!(client.stream.buffer().is_empty(), "nothing was said in the clear after the go-ahead");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().expect("a name");
    Client::new(connector.connect(name, client.stream.into_inner()).await.expect("a handshake"))
}

#[tokio::test]
async fn a_message_carries_its_way_and_nothing_else_changed() {
    let server = Server::start("").await;
    let mut client = server.connect().await;
    client.expect("EHLO NPIF65E56", "250-example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n").await;
    client.expect("MAIL FROM:<copier@else.where> SIZE=100", "250 2.1.0").await;
    client.expect("RCPT TO:<bob@example.org>", "250 2.1.5").await;
    client.expect("DATA", "354 ").await;
    client.send("Subject: x\r\n\r\n..dot\r\nlast\r\n.\r\n").await;
    let reply = client.reply().await;
    let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").expect(&reply).trim().to_owned();
    client.expect("QUIT", "221 2.0.0").await;
    let names = server.site.names("/mail/bob/new");
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let text = std::fs::read_to_string(server.site.path("/mail/bob/new").join(name)).unwrap();
    let (trace, rest) = text.split_once("Subject:").unwrap();
    assert!(
        trace.starts_with("Return-Path: <copier@else.where>\r\nReceived: from NPIF65E56 ([127.0.0.1])\r\n"),
        "{trace}"
    );
    assert!(trace.contains(&format!("\tby example.org with ESMTP id {id}\r\n\tfor <bob@example.org>;\r\n")), "{trace}");
    assert_eq!(rest, " x\r\n\r\n.dot\r\nlast\r\n");
    server.site.usage_matches().await;
}

#[tokio::test]
async fn starttls_forgets_what_was_said_and_what_was_slipped_in() {
    let server = Server::start("").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    // CVE-2011-0411: plaintext behind STARTTLS must never be heard inside TLS.
    client.send("STARTTLS\r\nEHLO injected\r\nMAIL FROM:<evil@else.where>\r\nRCPT TO:<bob@example.org>\r\n").await;
    assert!(client.reply().await.starts_with("220 2.0.0"));
    let mut client = secure(client).await;
    client.expect("MAIL FROM:<me@else.where>", "503 5.5.1").await;
    let hello = client.ask("EHLO me").await;
    assert!(!hello.contains("STARTTLS") && hello.contains("AUTH PLAIN LOGIN"), "{hello}");
    client.expect("RCPT TO:<bob@example.org>", "503 5.5.1").await;
    client.expect("STARTTLS", "503 5.5.1").await;
    client.expect("QUIT", "221").await;
}

#[tokio::test]
async fn signing_in_opens_what_a_guest_may_not_use() {
    use base64::Engine;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let server = Server::start("").await;
    let mut client = server.connect().await;
    let hello = client.ask("EHLO me").await;
    assert!(!hello.contains("AUTH"), "no password in the clear: {hello}");
    client.expect(&format!("AUTH PLAIN {}", base64(&format!("\0alice\0{PASSWORD}"))), "538 5.7.11").await;
    client.expect("STARTTLS", "220").await;
    let mut client = secure(client).await;
    // Old devices say HELO and sign in all the same.
    client.expect("HELO me", "250 example.org").await;
    client.expect("AUTH PLAIN", "334 ").await;
    client.expect(&base64("\0alice\0wrong"), "535 5.7.8").await;
    client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6").await;
    client.expect(&base64("alice"), "334 UGFzc3dvcmQ6").await;
    client.expect(&base64(PASSWORD), "235 2.7.0").await;
    client.expect("AUTH LOGIN", "503 5.5.1").await;
    client.expect("MAIL FROM:<alice@example.org>", "250").await;
    client.expect("RCPT TO:<keep+a@example.org>", "250").await;
    client.expect("DATA", "354").await;
    client.send("Subject: mine\r\n\r\nx\r\n.\r\n").await;
    assert!(client.reply().await.starts_with("250 2.0.0"));
    let lines = server.site.hub.history(&stoa::store::HistoryFilter { limit: 1, ..Default::default() }).await.unwrap();
    assert_eq!(lines.first().unwrap().account, "alice");
}

#[tokio::test]
async fn oversize_and_loops_are_refused_in_step() {
    let server = Server::start("message_size = \"100 KiB\"").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    client.expect("MAIL FROM:<a@b> SIZE=102401", "552 5.3.4").await;
    for (head, size, expected) in [("X: y\r\n", 110_000, "552 5.3.4"), ("Received: x\r\n", 10, "554 5.4.6")] {
        client.expect("MAIL FROM:<a@b>", "250").await;
        client.expect("RCPT TO:<bob@example.org>", "250").await;
        client.expect("DATA", "354").await;
        let line = "QUIT not a command\r\n";
        client.send(&format!("{}\r\n{}.\r\n", head.repeat(51), line.repeat(size / line.len()))).await;
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    client.expect("NOOP", "250").await;
    client.expect("QUIT", "221").await;
    assert!(server.site.names("/mail/bob/new").is_empty());
    assert_eq!(server.site.stages(), 0);
}

#[tokio::test]
async fn a_body_without_end_is_not_read_for_ever() {
    let server = Server::start("message_size = \"1 KiB\"").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    client.expect("MAIL FROM:<a@b>", "250").await;
    client.expect("RCPT TO:<bob@example.org>", "250").await;
    client.expect("DATA", "354").await;
    let (read, mut write) = client.stream.into_inner().into_split();
    let endless = tokio::spawn(async move { while write.write_all(&[b'x'; 16_384]).await.is_ok() {} });
    let mut said = String::new();
    let _ = BufReader::new(read).read_line(&mut said).await;
    assert!(said.starts_with("552 5.3.4"), "{said}");
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), endless).await;
    ended.expect("the server hangs up").expect("no panic");
    assert!(server.site.names("/mail/bob/new").is_empty());
}

#[tokio::test]
async fn many_messages_in_one_pipelined_write_are_all_there() {
    let server = Server::start("").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    let text = "MAIL FROM:<a@b>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n".repeat(20);
    client.send(&format!("{text}QUIT\r\n")).await;
    for _ in 0..20 {
        for expected in ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] {
            let reply = client.reply().await;
            assert!(reply.starts_with(expected), "{expected}: {reply}");
        }
    }
    assert!(client.reply().await.starts_with("221"));
    assert_eq!(server.site.names("/mail/bob/new").len(), 20);
}

#[tokio::test]
async fn guessing_names_slows_down_and_ends() {
    let server = Server::start("").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    client.expect("MAIL FROM:<a@b>", "250").await;
    let since = std::time::Instant::now();
    for _ in 1..20 {
        client.expect("RCPT TO:<ghost@example.org>", "550 5.1.1").await;
    }
    client.expect("RCPT TO:<ghost@example.org>", "421 4.7.0").await;
    assert!(since.elapsed() > std::time::Duration::from_secs(2), "no name is worth a wait");
    assert_eq!(client.reply().await, "");
}

#[tokio::test]
async fn other_languages_are_shown_the_door() {
    let server = Server::start("").await;
    for first in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "\r\n\r\n\0\r\nQUIT\n"] {
        let mut client = server.connect().await;
        client.send(first).await;
        let mut rest = String::new();
        client.stream.read_to_string(&mut rest).await.expect("the end");
        assert!(rest.contains("221 2.7.0"), "{first:?} → {rest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaks_files_an_attachment_and_signs_in_over_tls() {
    let server = Server::start("").await;
    let pdf: Vec<u8> = (0..200_000_u32).map(|number| (number % 253) as u8).collect();
    let file = server.site.folder.path().join("scan.pdf");
    std::fs::write(&file, &pdf).unwrap();
    let port = server.address.port().to_string();
    let attach = format!("@{}", file.display());
    let base = [
        "--server",
        "127.0.0.1",
        "--port",
        &port,
        "--from",
        "copier@example.org",
        "--attach-type",
        "application/pdf",
        "--attach",
        &attach,
    ];
    let with_tls = [
        "--to",
        "scans+tls@example.org",
        "-tls",
        "--auth",
        "PLAIN",
        "--auth-user",
        "alice",
        "--auth-password",
        PASSWORD,
    ];
    for more in [&["--to", "scans@example.org"][..], &with_tls, &["--to", "bob@example.org", "--pipeline"]] {
        let output = tokio::process::Command::new("swaks").args(base).args(more).output().await;
        let output = output.expect("swaks is installed (apt-get install swaks)");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{more:?}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("queued as"), "{said}");
    }
    for folder in ["/scans", "/scans/tls"] {
        assert_eq!(std::fs::read(server.site.path(folder).join("scan.pdf")).unwrap(), pdf, "{folder}");
    }
    assert_eq!(server.site.names("/mail/bob/new").len(), 1);
    assert_eq!(server.site.stages(), 0);
    server.site.usage_matches().await;
}

#[tokio::test]
async fn with_files_and_eight_bits_arrive_as_they_were() {
    let server = Server::start("").await;
    let mut client = server.connect().await;
    client.expect("EHLO me", "250-").await;
    client.expect("MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8", "250").await;
    client.expect("RCPT TO:<keep+März@example.org>", "250").await;
    client.expect("DATA", "354").await;
    client.stream.write_all(&with_files(&[("Übersicht.pdf", b"x")])).await.unwrap();
    client.send(".\r\n").await;
    assert!(client.reply().await.starts_with("250 2.0.0"));
    assert_eq!(server.site.names("/keep/März"), ["Übersicht.pdf"]);
}
