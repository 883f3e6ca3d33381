//! LMTP (RFC 2033): what fails for one recipient fails for that one alone.

use std::time::Duration;

use stoa::hub::settings::{GrantSettings, SpaceSettings};
use stoa::units::ByteSize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, pipe};

#[tokio::test]
async fn a_full_box_refuses_for_itself_alone() {
    let world = World::with(|settings| {
        settings.spaces.push(SpaceSettings {
            path: "/tiny".into(),
            address: "tiny".into(),
            quota: ByteSize(10 << 10),
            grants: vec![GrantSettings { to: "everyone".into(), allow: "drop".into() }],
            ..SpaceSettings::default()
        });
    })
    .await;
    // Small enough to ride in the commit, and large enough to be staged.
    for size in [20_000, 200_000] {
        let body = "0123456789abcde\r\n".repeat(size / 17);
        let message = format!("Content-Type: application/pdf; name=a.pdf\r\n\r\n{body}");
        let to = ["alice", "tiny", "bob"].map(|name| format!("RCPT TO:<{name}@example.org>\r\n")).concat();
        let talk = format!("LHLO me\r\nMAIL FROM:<me@else.where>\r\n{to}DATA\r\n{message}.\r\nQUIT\r\n");
        let (link, mut theirs) = pipe("smtp", 64 << 10);
        let handler = world.door("smtp", &"lmtp = true".parse().expect("TOML"));
        let serving = tokio::spawn(async move { handler.serve(link).await });
        let mut said = String::new();
        let talking = async {
            theirs.write_all(talk.as_bytes()).await.expect("written");
            theirs.read_to_string(&mut said).await.expect("replies");
        };
        tokio::time::timeout(Duration::from_mins(1), talking).await.expect("an end in time");
        serving.await.expect("no panic").expect("served");
        let replies: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("354")).skip(1).collect();
        let codes: Vec<&str> = replies.iter().map(|line| &line[..9]).collect();
        assert_eq!(codes, ["250 2.0.0", "452 4.2.2", "250 2.0.0", "221 2.0.0"], "{said}");
    }
    let count = |who: &str| std::fs::read_dir(world.disk(&format!("/mail/{who}/new"))).map_or(0, Iterator::count);
    assert_eq!((count("alice"), count("bob")), (2, 2));
    assert!(!world.disk("/tiny/a.pdf").exists());
    // Nothing is left of the copies.
    let stages = std::fs::read_dir(world.folder.path().join("stage")).map_or(0, Iterator::count);
    assert_eq!(stages, 0, "stages are left over");
}
