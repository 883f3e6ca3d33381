//! What an operator is told about machines whose conversations fail, and what a listener finds out about itself.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::daemon::{Daemon, PATIENCE, Place, until};

/// Says all of it, then hears everything to the end.
fn talk(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    let mut said = Vec::new();
    // A reset behind the last reply is as good an end as any.
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_conversation_that_failed_is_told_with_its_reason_and_without_its_secrets() {
    let daemon = Daemon::start("");
    let told = || daemon.must(&["trace", "--conversations", "127.0.0.1"], "");
    let secret = "AGFsaWNlAHNlY3JldA==";
    talk(daemon.smtp, &format!("EHLO copier\r\nAUTH PLAIN {secret}\r\n{secret}\r\nQUIT\r\n"));
    until("the conversation is in the book", || told().contains("it sends its password without TLS"));
    let text = told();
    assert!(text.contains("C: EHLO copier\n") && text.contains("S: 538 5.7.11 a password needs TLS"), "{text}");
    assert!(text.contains("C: AUTH PLAIN***\n") && !text.contains(secret), "{text}");

    talk(daemon.smtp, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    until("another language is recognised", || told().contains("it speaks something else: an HTTP request"));
    talk(daemon.ftp, "USER alice\r\nPASS sesame\r\nGET / HTTP/1.1\r\n");
    until("by every line protocol", || told().contains("C: USER alice\n"));
    assert!(!told().contains("sesame"));

    let before = told();
    talk(daemon.smtp, "EHLO copier\r\nQUIT\r\n");
    talk(daemon.smtp, "\x16\x03\x01\0\0\n");
    until("TLS on the wrong port is recognised", || told().contains("it began with a TLS handshake"));
    // What went well between the two is not there.
    assert_eq!(told().matches("== ").count(), before.matches("== ").count() + 1);
    assert_eq!(daemon.must(&["trace", "--conversations", "192.0.2.1"], ""), "");
    daemon.stop();
}

#[test]
fn check_tries_the_open_relay_forms_on_every_listener() {
    let listen = |options: &str| format!("[[listen]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:0\"\n{options}\n");
    let place = Place::new("");
    let all = [
        "",
        "smtp = { role = \"mx\" }",
        "smtp = { role = \"device\", networks = [\"10.0.0.0/8\"] }",
        "smtp = { role = \"submission\" }",
        "smtp = { lmtp = true, catch_all = \"ann\" }",
        "smtp = { role = \"catch\", catch_all = \"ann\" }",
    ];
    place.configure(&all.map(listen).concat());
    let said = place.must(&["check"], "");
    for role in ["general", "mx", "device", "submission"] {
        assert!(said.contains(&format!("role {role}: 12 open-relay forms tried, 0 taken")), "{role}: {said}");
    }
    assert!(said.contains("takes every recipient into one box"), "{said}");
}
