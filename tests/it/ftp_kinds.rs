//! Kinds of FTP clients and what each relies on: older forms of AUTH, and conversations that fail.

use stoa::net::TlsMode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::daemon::{Daemon, until};
use crate::ftp::{Client, Server, secure};
use tokio::io::BufReader;

/// `SSL` and `TLS-P` come from drafts in which the data connection is protected without a word about it.
#[tokio::test]
async fn old_forms_of_auth_protect_data_too() {
    let server = Server::start(TlsMode::Upgrade, "").await;
    server.world.put("/pub/a.txt", b"secret");
    for (mechanism, protected) in
        [("SSL", true), ("ssl", true), ("TLS-P", true), ("TLS", false), ("TLS-C", false), ("tls", false)]
    {
        let mut plain = server.connect().await;
        plain.expect(&format!("AUTH {mechanism}"), "234").await;
        let mut client = Client(BufReader::new(secure(plain.0.into_inner()).await));
        client.expect("USER alice", "331").await;
        client.expect("PASS wonder", "230").await;
        let reply = client.expect("EPSV", "229").await;
        let port: u16 = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        let lane = TcpStream::connect(("127.0.0.1", port)).await.expect("a data connection");
        client.expect("RETR /pub/a.txt", "150").await;
        let mut text = String::new();
        if protected {
            let _ = secure(lane).await.read_to_string(&mut text).await;
        } else {
            let mut lane = lane;
            lane.read_to_string(&mut text).await.expect("clear text");
        }
        assert_eq!(text, "secret", "{mechanism}");
        assert!(client.reply().await.starts_with("226"), "{mechanism}");
    }
    for unknown in ["AUTH KERBEROS_V4", "AUTH TLS 1", "AUTH SSLX"] {
        server.connect().await.expect(unknown, "504").await;
    }
}

/// A client that lost its settings wants TLS on data no longer: it has to say so.
#[tokio::test]
async fn protection_can_be_taken_back_in_words() {
    let server = Server::start(TlsMode::Upgrade, "").await;
    let mut plain = server.connect().await;
    plain.expect("AUTH SSL", "234").await;
    let mut client = Client(BufReader::new(secure(plain.0.into_inner()).await));
    client.expect("USER alice", "331").await;
    client.expect("PASS wonder", "230").await;
    client.expect("PBSZ 0", "200").await;
    client.expect("PROT C", "200").await;
    let mut lane = client.lane().await;
    client.expect("NLST /pub", "150").await;
    let mut text = String::new();
    lane.read_to_string(&mut text).await.expect("clear text");
    assert!(client.reply().await.starts_with("226"));
}

/// Says all of it, then hears everything to the end.
fn talk(daemon: &Daemon, text: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(daemon.ftp).expect("a connection");
    stream.set_read_timeout(Some(crate::daemon::PATIENCE)).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("written");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_conversation_that_failed_is_kept_with_its_reason() {
    let daemon = Daemon::start(
        "[ftp]\nrequire_tls = true\nplain_from = [\"127.0.0.1\"]\n\
         accounts = [{ names = [\"strict\"], require_tls = true, plain_from = [] }]\n\
         [[space]]\npath = \"/pub\"\ngrants = [{ to = \"everyone\", allow = \"list read\" }]\n",
    );
    let told = || daemon.must(&["trace", "--conversations", "127.0.0.1"], "");
    let guest = "USER anonymous\r\nPASS secret\r\n";
    for (lines, why) in [
        ("USER alice\r\nPASS secret\r\nQUIT\r\n".to_owned(), "its sign-in was refused: 530 name or password is wrong"),
        ("USER strict\r\nQUIT\r\n".to_owned(), "USER was refused: 530 sign-in needs TLS here"),
        (format!("{guest}CWD /nowhere\r\nQUIT\r\n"), "CWD was refused: 530 sign in first"),
        (format!("{guest}PORT 127,0,0,1,200,1\r\nQUIT\r\n"), "active mode (PORT) was refused: 502"),
        (format!("{guest}STOR /pub/a\r\nQUIT\r\n"), "STOR was refused: 425"),
        (format!("{guest}EPSV\r\nSTOR /pub/b\r\nQUIT\r\n"), "STOR was refused: 530"),
        (format!("{guest}DELE /pub/c\r\nQUIT\r\n"), "DELE was refused: 530"),
        (format!("{guest}MKD /pub/d\r\nQUIT\r\n"), "MKD was refused: 530"),
    ] {
        talk(&daemon, &lines);
        until(why, || told().contains(why));
    }
    let text = told();
    assert!(text.contains("C: USER alice\n") && text.contains("C: PASS***\n") && !text.contains("secret"), "{text}");
    assert!(text.contains("account alice\n") || text.contains("account -"), "{text}");
    // What went well in the end is not kept.
    let kept = text.matches("== ").count();
    talk(&daemon, &format!("{guest}CWD /nowhere\r\nCWD /pub\r\nQUIT\r\n"));
    talk(&daemon, &format!("{guest}PWD\r\nSIZE /pub/none\r\nQUIT\r\n"));
    talk(&daemon, &format!("{guest}CWD /last\r\nQUIT\r\n"));
    until("the last one", || told().contains("C: CWD /last\n"));
    assert_eq!(told().matches("== ").count(), kept + 1, "{}", told());
    daemon.stop();
}
