//! Several certificates: which one a client is shown, at every door, and how they are exchanged while links go on.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::daemon::{Daemon, Place};
use crate::smtp::Anyone;

type Session = StreamOwned<ClientConnection, TcpStream>;

/// A pair for these names, as files; its certificate in DER.
fn pair(folder: &Path, file: &str, names: &[&str]) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    fs::write(folder.join(format!("{file}.crt")), made.pem()).unwrap();
    made.der().to_vec()
}

fn config(folder: &Path) -> String {
    let place = |file: &str| {
        let path = folder.join(file).display().to_string();
        format!("certificate = \"{path}.crt\", key = \"{path}.key\"")
    };
    let (first, two, wild) = (place("first").replace(", ", "\n"), place("two"), place("wild"));
    format!(
        r#"
[tls]
{first}
certificates = [ {{ {two} }}, {{ {wild} }} ]
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
tls = "implicit"
[[listen]]
protocol = "ftp"
address = "127.0.0.1:0"
tls = "upgrade"
[[listen]]
protocol = "smtp"
address = "127.0.0.1:0"
tls = "upgrade"
"#
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// A handshake that asks for a name, or for none.
fn shake(mut stream: TcpStream, name: Option<&str>) -> (Session, Vec<u8>) {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = name.unwrap_or("localhost").to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).expect("a handshake");
    }
    let shown = connection.peer_certificates().unwrap()[0].to_vec();
    (StreamOwned::new(connection, stream), shown)
}

fn shown(address: SocketAddr, name: Option<&str>) -> Vec<u8> {
    shake(connect(address), name).1
}

/// Says a line and hears one.
fn say(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    hear(stream)
}

/// A whole reply of a line protocol.
fn hear(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    loop {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it left after {text}");
        text.push(char::from(byte[0]));
        let last = text.strip_suffix("\r\n").and_then(|text| text.rsplit("\r\n").next());
        if last.is_some_and(|last| last.as_bytes().get(3) == Some(&b' ')) {
            return text;
        }
    }
}

#[test]
fn every_door_shows_the_certificate_of_the_name_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = pair(folder.path(), "first", &["one.example", "localhost"]);
    let two = pair(folder.path(), "two", &["two.example"]);
    let wild = pair(folder.path(), "wild", &["*.two.example"]);
    let daemon = Daemon::start(&config(folder.path()));

    for (name, expected) in [
        (None, &first),
        (Some("one.example"), &first),
        (Some("two.example"), &two),
        (Some("TWO.example"), &two),
        (Some("ftp.two.example"), &wild),
        (Some("a.ftp.two.example"), &first),
        (Some("unknown.example"), &first),
    ] {
        assert!(shown(daemon.http, name) == *expected, "http {name:?}");
        let mut smtp = connect(daemon.smtp);
        hear(&mut smtp);
        say(&mut smtp, "EHLO me");
        assert!(say(&mut smtp, "STARTTLS").starts_with("220"));
        assert!(shake(smtp, name).1 == *expected, "smtp {name:?}");
        let mut ftp = connect(daemon.ftp);
        hear(&mut ftp);
        assert!(say(&mut ftp, "AUTH TLS").starts_with("234"));
        assert!(shake(ftp, name).1 == *expected, "ftp {name:?}");
    }
    // A client without SNI says it before TLS (RFC 7151).
    let mut ftp = connect(daemon.ftp);
    hear(&mut ftp);
    assert!(say(&mut ftp, "HOST two.example").starts_with("220"));
    assert!(say(&mut ftp, "AUTH TLS").starts_with("234"));
    assert!(shake(ftp, None).1 == two, "ftp HOST");
}

#[test]
fn all_certificates_are_exchanged_at_once_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "first", &["one.example"]);
    let two = pair(folder.path(), "two", &["two.example"]);
    pair(folder.path(), "wild", &["*.two.example"]);
    let daemon = Daemon::start(&config(folder.path()));
    let (mut old, _) = shake(connect(daemon.http), Some("two.example"));

    let first = pair(folder.path(), "first", &["one.example"]);
    let newer = pair(folder.path(), "two", &["two.example"]);
    daemon.signal("HUP");
    daemon.wait_for_log("the configuration was reloaded");
    assert!(shown(daemon.http, Some("two.example")) == newer && newer != two);
    assert!(shown(daemon.http, None) == first);
    old.write_all(b"GET /-/health HTTP/1.1\r\nHost: two.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = old.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200"), "the old link goes on: {text}");

    fs::write(folder.path().join("two.key"), "nonsense").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("reload refused");
    assert!(daemon.log().contains("two.key"), "the file is named");
    assert!(shown(daemon.http, Some("two.example")) == newer);
}

#[test]
fn the_check_says_whom_certificates_are_for_and_which_ends_soon() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "first", &["one.example"]);
    pair(folder.path(), "two", &["two.example"]);
    pair(folder.path(), "wild", &["*.two.example"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["two.example".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    fs::write(folder.path().join("two.key"), key.serialize_pem()).unwrap();
    fs::write(folder.path().join("two.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let place = Place::new(&config(folder.path()));
    let checked = place.run(&["check"], "");
    assert!(checked.status.success(), "an expired certificate is warned of");
    let said = [checked.stdout, checked.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.contains("first.crt: for one.example until "), "{said}");
    assert!(said.contains("two.crt: this TLS certificate has expired"), "{said}");

    fs::write(folder.path().join("wild.crt"), "nonsense").unwrap();
    let refused = place.run(&["check"], "");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && words.contains("wild.crt") && words.contains("certificate"), "{words}");
}
