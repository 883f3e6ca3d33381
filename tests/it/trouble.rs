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
fn failed_conversations_are_kept_by_whatever_line_protocol_they_come() {
    let pop3 = "[[listen]]\nprotocol = \"pop3\"\naddress = \"127.0.0.1:0\"\n";
    let ftp = pop3.replace("pop3", "ftp");
    let http = pop3.replace("pop3", "http");
    let daemon = Daemon::start(&format!(
        "[http]\nbasic_in_clear = true\n[pop3]\nauth_in_clear = true\n[[user]]\nname = \"ann\"\n{pop3}{ftp}{http}"
    ));
    let listeners = std::fs::read_to_string(daemon.data.join("listeners")).expect("the listeners");
    let pop3 =
        listeners.lines().find_map(|line| line.strip_prefix("pop3 ")).expect("POP3").parse().expect("an address");
    let told = || daemon.must(&["trace", "--conversations", "127.0.0.1"], "");
    let cases: [(SocketAddr, &str, &str); 6] = [
        (daemon.ftp, "USER ann\r\nPASS open-sesame\r\nQUIT\r\n", "S: 530 name or password is wrong"),
        (daemon.ftp, "USER anonymous\r\nPASS x\r\nSTOR /nowhere/a\r\nQUIT\r\n", "STOR"),
        (daemon.ftp, "USER anonymous\r\nPASS x\r\nCWD /nowhere-2\r\nQUIT\r\n", "CWD /nowhere-2"),
        (pop3, "USER ann\r\nPASS open-sesame\r\nQUIT\r\n", "S: -ERR [AUTH]"),
        (pop3, "GET / HTTP/1.1\r\n\r\n", "S: -ERR this is POP3"),
        (daemon.ftp, "\x16\x03\x01\0\0\n", "it began with a TLS handshake"),
    ];
    for (address, text, expected) in cases {
        talk(address, text);
        until(expected, || told().contains(expected));
    }
    // By HTTP a refused upload is kept; who only asks whether a password is wanted did not fail.
    let put = |path: &str, key: &str| {
        talk(
            daemon.http,
            &format!(
                "PUT {path}?token=open-sesame HTTP/1.1\r\nHost: here\r\nUser-Agent: copier/1\r\nContent-Length: 1\r\nConnection: close\r\n{key}\r\nx"
            ),
        )
    };
    assert!(put("/asks", "").starts_with("HTTP/1.1 401"));
    assert!(put("/scans/fails", "Authorization: Basic YW5uOm9wZW4tc2VzYW1l\r\n").starts_with("HTTP/1.1 4"));
    until("an upload by HTTP", || told().contains("C: PUT /scans/fails HTTP/1.1\n"));
    assert!(told().contains("C: user-agent: copier/1\n") && !told().contains("/asks"), "{}", told());
    assert!(!told().contains("YW5u"), "{}", told());
    assert!(!told().contains("sesame"), "{}", told());
    let kept = told().matches("== ").count();
    talk(pop3, "CAPA\r\nQUIT\r\n");
    talk(daemon.ftp, "USER anonymous\r\nPASS x\r\nNOOP\r\nQUIT\r\n");
    talk(pop3, "USER ann\r\nPASS once-more\r\nQUIT\r\n");
    until("what failed is there", || told().matches("== ").count() > kept);
    assert_eq!(told().matches("== ").count(), kept + 1, "what went well is not: {}", told());
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
