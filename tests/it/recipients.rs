//! Who an address means, and who may write to it: aliases, groups, folders, wildcards.

use stoa::error::{Kind, Result};
use stoa::hub::Caller;
use stoa::hub::settings::{AliasSettings, MailSettings, Post};
use stoa::store::AliasRow;

use crate::world::{World, origin};

fn alias(address: &str, to: &[&str], post: Post) -> AliasSettings {
    AliasSettings { address: address.into(), to: to.iter().map(ToString::to_string).collect(), post }
}

async fn world() -> World {
    World::with(|settings| {
        settings.domains = vec!["example.org".into(), "B.example".into()];
        settings.aliases = vec![
            alias("Office", &["alice", "bob", "scans+Office"], Post::Anyone),
            alias("staff", &["group:staff"], Post::Members),
            alias("talk", &["group:staff", "bob"], Post::Users),
            alias("bob", &["bob", "alice@B.example"], Post::Anyone),
            alias("scan-*@b.example", &["inbox"], Post::Anyone),
            alias("*@b.example", &["bob"], Post::Anyone),
            alias("ping", &["pong"], Post::Anyone),
            alias("pong", &["ping", "alice"], Post::Anyone),
            alias("gone", &["nobody-here"], Post::Anyone),
            alias("secret", &["staff"], Post::Anyone),
        ];
        settings
            .aliases
            .extend((0..12).map(|n| alias(&format!("deep{n}"), &[&format!("deep{}", n + 1)], Post::Anyone)));
        settings.aliases.push(alias("deep12", &["alice"], Post::Anyone));
    })
    .await
}

async fn ask(world: &World, caller: &Caller, address: &str) -> Result<Vec<String>> {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let recipient = world.hub.recipient(caller, &crate::mailbox::rcpt(local, domain)).await?;
    recipient.targets.iter().map(|target| Ok(target.folder()?.to_string())).collect()
}

#[tokio::test]
async fn each_address_leads_where_it_should() {
    let world = world().await;
    // What everyone may do in /scans is look: the camera may drop.
    let camera = world.caller("camera-3", "smtp").await;
    for folder in [".Lists", ".x"] {
        std::fs::create_dir_all(world.disk("/mail/alice").join(folder).join("cur")).expect("a folder");
    }
    std::fs::create_dir_all(world.disk("/mail/alice/.empty")).expect("no Maildir");
    let table: &[(&str, &[&str])] = &[
        ("office@example.org", &["/mail/alice", "/mail/bob", "/scans/Office"]),
        ("OFFICE+x@b.example", &["/mail/alice", "/mail/bob", "/scans/Office"]),
        ("office", &["/mail/alice", "/mail/bob", "/scans/Office"]),
        ("bob@example.org", &["/mail/bob", "/mail/alice"]),
        ("bob+x@example.org", &["/mail/bob", "/mail/alice"]),
        ("Alice@example.org", &["/mail/alice"]),
        ("alice+Lists@example.org", &["/mail/alice/.Lists"]),
        ("alice+X@example.org", &["/mail/alice/.x"]),
        ("alice+none@example.org", &["/mail/alice"]),
        ("alice+empty@example.org", &["/mail/alice"]),
        ("alice+../../bob@example.org", &["/mail/alice"]),
        ("alice+@example.org", &["/mail/alice"]),
        ("scans+a/b@example.org", &["/scans/a_b"]),
        ("scan-9@b.example", &["/inbox"]),
        ("anything@B.Example", &["/mail/bob", "/mail/alice"]),
        ("alice@b.example", &["/mail/alice"]),
        ("ping@example.org", &["/mail/alice"]),
        ("deep3@example.org", &["/mail/alice"]),
    ];
    for (address, targets) in table {
        assert_eq!(ask(&world, &camera, address).await.expect(address), *targets, "{address}");
    }
    for (address, kind) in [
        ("scan-9@example.org", Kind::NotFound),
        ("anything@example.org", Kind::NotFound),
        ("gone@example.org", Kind::NotFound),
        ("gone@b.example", Kind::NotFound),
        ("deep0@example.org", Kind::Unavailable),
        ("alice@elsewhere.org", Kind::Denied),
    ] {
        assert_eq!(ask(&world, &camera, address).await.expect_err(address).kind(), kind, "{address}");
    }
    // One place that refuses refuses the address: what was taken must reach everybody.
    let guest = world.hub.guest(origin("smtp"));
    assert_eq!(ask(&world, &guest, "office@example.org").await.expect_err("no right").kind(), Kind::Denied);
}

#[tokio::test]
async fn only_those_it_is_meant_for_write_to_a_group() {
    let world = world().await;
    let guest = world.hub.guest(origin("smtp"));
    let (alice, bob) = (world.caller("alice", "smtp").await, world.caller("bob", "smtp").await);
    // Rita is confined to a folder and has no mailbox.
    let staff = ["/mail/alice"];
    for address in ["staff@example.org", "talk@example.org", "secret@example.org"] {
        let refused = ask(&world, &guest, address).await.expect_err(address);
        assert_eq!(refused.kind(), Kind::Denied);
        assert!(refused.public().contains("only") && refused.public().contains("sign in"), "{refused}");
    }
    assert_eq!(ask(&world, &alice, "staff@example.org").await.expect("a member"), staff);
    assert_eq!(ask(&world, &bob, "staff@example.org").await.expect_err("no member").kind(), Kind::Denied);
    assert_eq!(ask(&world, &bob, "secret@example.org").await.expect_err("behind another").kind(), Kind::Denied);
    assert_eq!(ask(&world, &bob, "talk@example.org").await.expect("a user").len(), 2);
}

#[tokio::test]
async fn an_alias_cannot_lead_to_more_than_allowed_and_signs_can_be_chosen() {
    let world = World::with(|settings| {
        settings.mail = MailSettings { targets: 1, delimiter: "-=".into(), ..MailSettings::default() };
        settings.aliases = vec![alias("all", &["alice", "bob", "rita"], Post::Anyone)];
    })
    .await;
    let guest = world.hub.guest(origin("smtp"));
    assert_eq!(ask(&world, &guest, "all@example.org").await.expect_err("too many").kind(), Kind::Unavailable);
    for address in ["alice-x@example.org", "alice=x@example.org"] {
        assert_eq!(ask(&world, &guest, address).await.expect(address), ["/mail/alice"]);
    }
    assert_eq!(ask(&world, &guest, "alice+x@example.org").await.expect_err("no sign").kind(), Kind::NotFound);
}

#[tokio::test]
async fn aliases_are_made_and_removed_by_command() {
    let world = world().await;
    let guest = world.hub.guest(origin("smtp"));
    let row =
        |address: &str, to: &str| AliasRow { address: address.into(), targets: vec![to.into()], post: "anyone".into() };
    world.hub.put_alias(row("Sales@example.org", "BOB")).await.expect("made");
    assert_eq!(ask(&world, &guest, "sales@example.org").await.expect("there"), ["/mail/bob", "/mail/alice"]);
    assert_eq!(ask(&world, &guest, "sales@b.example").await.expect("the wildcard"), ["/mail/bob", "/mail/alice"]);
    world.hub.put_alias(row("sales@example.org", "alice")).await.expect("replaced");
    assert_eq!(ask(&world, &guest, "sales@example.org").await.expect("there"), ["/mail/alice"]);
    for (wrong, kind) in [
        (row("x", "not-here"), Kind::Invalid),
        (row("x", "bob@elsewhere.org"), Kind::Invalid),
        (row("a b", "bob"), Kind::Invalid),
        (row("office", "bob"), Kind::Denied),
    ] {
        let address = wrong.address.clone();
        assert_eq!(world.hub.put_alias(wrong).await.expect_err(&address).kind(), kind);
    }
    assert_eq!(world.hub.remove_alias("office").await.expect_err("declared").kind(), Kind::Denied);
    assert_eq!(world.hub.remove_alias("never").await.expect_err("none").kind(), Kind::NotFound);
    world.hub.remove_alias("SALES@example.org").await.expect("removed");
    assert_eq!(ask(&world, &guest, "sales@example.org").await.expect_err("gone").kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_message_to_an_alias_is_followed_by_recipient_and_target() {
    let world = world().await;
    let id = crate::mailbox::send(&world, &["bob", "alice"], "Subject: x\r\n\r\nhello").await;
    let rows = world.hub.trace(&id).await.expect("a trace");
    let rows: Vec<_> = rows.iter().map(|row| (row.recipient.as_str(), row.target.as_str())).collect();
    let bob = "bob@example.org";
    assert_eq!(rows, [(bob, "/mail/bob"), (bob, "/mail/alice"), ("alice@example.org", "/mail/alice")]);
    for name in ["alice", "bob"] {
        let mailbox = world.caller(name, "pop3").await.open_mailbox("").await.expect("a mailbox");
        assert_eq!(mailbox.messages().len(), 1, "{name} has it once");
    }
}
