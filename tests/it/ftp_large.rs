//! Large uploads: what the kernel moves by itself is what was sent, and what breaks off can be resumed.

use stoa::net::TlsMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ftp::{Server, bytes};

#[tokio::test]
async fn a_large_upload_is_what_was_sent() {
    let server = Server::start(TlsMode::None, "").await;
    let content = bytes(24 << 20);
    let mut client = server.sign_in().await;
    client.expect("TYPE I", "200").await;
    for _ in 0..2 {
        let mut lane = client.lane().await;
        client.expect("STOR /scans/large.bin", "150").await;
        lane.write_all(&content).await.expect("written");
        drop(lane);
        assert!(client.reply().await.starts_with("226"));
        assert!(std::fs::read(server.world.disk("/scans/large.bin")).unwrap() == content, "other bytes are there");
    }
}

#[tokio::test]
async fn a_large_upload_aborted_half_way_goes_on_where_it_stopped() {
    let server = Server::start(TlsMode::None, "").await;
    let content = bytes(12 << 20);
    let mut client = server.sign_in().await;
    client.expect("TYPE I", "200").await;
    let mut lane = client.lane().await;
    client.expect("STOR /scans/large.bin", "150").await;
    lane.write_all(&content[..6 << 20]).await.expect("written");
    client.expect("ABOR", "426").await;
    assert!(client.reply().await.starts_with("226"));
    drop(lane);
    let size = client.expect("SIZE /scans/large.bin", "213").await;
    let kept: usize = size.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
    assert!(kept <= 6 << 20, "{kept} bytes are kept of {}", 6 << 20);
    client.expect(&format!("REST {kept}"), "350").await;
    let mut lane = client.lane().await;
    client.expect("STOR /scans/large.bin", "150").await;
    lane.write_all(&content[kept..]).await.expect("written");
    drop(lane);
    assert!(client.reply().await.starts_with("226"));
    assert!(std::fs::read(server.world.disk("/scans/large.bin")).unwrap() == content, "other bytes are there");
}

#[tokio::test]
async fn a_file_that_became_shorter_while_it_was_sent_is_not_the_clients_fault() {
    let server = Server::start(TlsMode::None, "").await;
    let content = bytes(64 << 20);
    std::fs::write(server.world.disk("/scans/shrinking.bin"), &content).expect("written");
    let mut client = server.sign_in().await;
    client.expect("TYPE I", "200").await;
    let mut lane = client.lane().await;
    client.expect("RETR /scans/shrinking.bin", "150").await;
    // Far more than sockets hold was promised; nobody has read any of it yet.
    let file = std::fs::File::options().write(true).open(server.world.disk("/scans/shrinking.bin")).expect("opened");
    file.set_len(1 << 20).expect("cut");
    let mut got = Vec::new();
    let _ = lane.read_to_end(&mut got).await;
    assert!(got.len() < content.len());
    assert_eq!(client.reply().await.get(..3), Some("451"));
}
