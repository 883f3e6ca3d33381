//! Mail through the hub on a real catalog and a real directory: recipients, filing, Maildir, all or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stoa::error::{Kind, Result};
use stoa::hub::settings::{DeviceSettings, GrantSettings, Overwrite, Settings, SpaceSettings, UserSettings};
use stoa::hub::{Caller, Envelope, Hub, Rcpt, Receipt, TreePath, Volumes};
use stoa::origin::Origin;
use stoa::store::{Catalog, CatalogSettings, Directory, HistoryFilter, Volume};
use stoa::units::ByteSize;
use tempfile::TempDir;

use crate::mailbox::rcpt;

/// Each space below one folder.
struct Trees(PathBuf);

impl Volumes for Trees {
    fn open(&self, space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        let name = space.to_string();
        let root = self.0.join("tree").join(name.trim_start_matches('/'));
        let staging = self.0.join("stage").join(name.replace('/', "_"));
        Ok(Arc::new(Directory::open(&root, &staging, true)?))
    }
}

/// A hub with users alice (admin) and bob, and drop addresses.
pub struct Site {
    pub hub: Hub,
    pub folder: TempDir,
}

fn space(path: &str, address: &str) -> SpaceSettings {
    let allow = |to: &str, allow: &str| GrantSettings { to: to.into(), allow: allow.into() };
    SpaceSettings {
        path: path.into(),
        address: address.into(),
        grants: vec![allow("everyone", "drop"), allow("user:alice", "edit")],
        ..SpaceSettings::default()
    }
}

pub fn settings() -> Settings {
    let user = |name: &str, admin| UserSettings { name: name.into(), admin, ..UserSettings::default() };
    let keep = SpaceSettings { overwrite: Overwrite::KeepBoth, ..space("/keep", "keep") };
    let small = SpaceSettings { quota: ByteSize(20_000), ..space("/small", "small") };
    let both = SpaceSettings { keep_message: true, overwrite: Overwrite::KeepBoth, ..space("/both", "both") };
    let closed = SpaceSettings { grants: Vec::new(), ..space("/closed", "closed") };
    let copier = DeviceSettings {
        name: "copier".into(),
        networks: vec!["10.9.0.0/16".into()],
        protocols: vec!["smtp".into()],
        folder: "/closed".into(),
        ..DeviceSettings::default()
    };
    Settings {
        domains: vec!["example.org".into(), "Example.NET".into()],
        users: vec![user("alice", true), user("bob", false)],
        devices: vec![copier],
        spaces: vec![space("/scans", "Scans"), keep, small, both, closed],
        ..Settings::default()
    }
}

impl Site {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(mut settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        settings.data = folder.path().to_owned();
        let catalog = Catalog::open(&CatalogSettings::default(), folder.path(), "test").await.expect("a catalog");
        let hub = Hub::open(settings, catalog, Arc::new(Trees(folder.path().to_owned()))).await.expect("a hub");
        Self { hub, folder }
    }

    pub fn caller(&self) -> Caller {
        self.caller_at("192.0.2.7:2500")
    }

    fn caller_at(&self, peer: &str) -> Caller {
        let mut origin = Origin::inside("smtp");
        origin.peer = peer.parse().expect("an address");
        self.hub.recognise(&origin)
    }

    async fn ask(&self, address: &str, size: Option<u64>) -> Result<String> {
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        let recipient = self.hub.recipient(&self.caller(), &Rcpt { size, ..rcpt(local, domain) }).await?;
        Ok(recipient.targets[0].folder()?.to_string())
    }

    async fn refusal(&self, address: &str) -> Kind {
        self.ask(address, None).await.expect_err(address).kind()
    }

    pub async fn send(&self, to: &[&str], message: &[u8]) -> Result<Receipt> {
        let caller = self.caller();
        let mut recipients = Vec::new();
        for address in to {
            let (local, domain) = address.rsplit_once('@').expect("an address");
            recipients.push(self.hub.recipient(&caller, &rcpt(local, domain)).await?);
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let envelope = Envelope { id, sender: "me@else.where".into(), recipients, size: None, proof: None };
        let mut upload = caller.deliver(envelope).await?;
        for chunk in message.chunks(10_000) {
            upload.push(Bytes::copy_from_slice(chunk)).await?;
        }
        upload.commit().await
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("tree").join(path.trim_start_matches('/'))
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        names(&self.path(folder))
    }

    pub async fn usage_matches(&self) {
        for space in self.hub.spaces().await.expect("spaces") {
            let (files, bytes) = count(&self.path(&space.row.path));
            assert_eq!((space.usage.files, space.usage.bytes), (files, bytes), "{}", space.row.path);
        }
    }

    pub fn stages(&self) -> usize {
        let stage = self.folder.path().join("stage");
        names(&stage).iter().map(|name| names(&stage.join(name)).len()).sum()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn count(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("metadata");
        let more = if meta.is_dir() { count(&entry.path()) } else { (1, meta.len()) };
        sum = (sum.0 + more.0, sum.1 + more.1);
    }
    sum
}

pub fn with_files(files: &[(&str, &[u8])]) -> Vec<u8> {
    use base64::Engine;
    let mut message =
        String::from("Subject: Scan\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n");
    for (name, bytes) in files {
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        message.extend(["--b\r\nContent-Type: application/pdf; name=\"", name, "\"\r\n"]);
        message.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
        for line in encoded.as_bytes().chunks(76) {
            message.push_str(std::str::from_utf8(line).expect("ASCII"));
            message.push_str("\r\n");
        }
    }
    message.push_str("--b--\r\n");
    message.into_bytes()
}

#[tokio::test]
async fn a_copy_for_a_second_space_has_its_room_before_a_byte_of_it_is_written() {
    let site = Site::new().await;
    let stage = site.folder.path().join("stage/_small");
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watch = {
        let (stage, over) = (stage.clone(), over.clone());
        std::thread::spawn(move || {
            let mut most = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let files = std::fs::read_dir(&stage).into_iter().flatten().flatten();
                let held: u64 = files.map(|file| file.metadata().map_or(0, |about| about.len())).sum();
                most = most.max(held);
            }
            most
        })
    };
    let message = [b"Subject: large\r\n\r\n".to_vec(), b"a line of text\r\n".repeat(1 << 20)].concat();
    let refused = site.send(&["bob@example.org", "small@example.org"], &message).await.expect_err("too large");
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(refused.kind(), Kind::OverQuota);
    assert_eq!(watch.join().expect("bytes"), 0, "bytes staged in a space of 20,000");
    assert!(site.names("/small").is_empty() && site.names("/mail/bob/new").is_empty());
    assert!(site.send(&["bob@example.org", "small@example.org"], b"Subject: small\r\n\r\nhi\r\n").await.is_ok());
}

#[tokio::test]
async fn a_recipient_is_found_in_the_order_people_expect() {
    let site = Site::new().await;
    assert_eq!(site.ask("scans@example.org", None).await.unwrap(), "/scans");
    assert_eq!(site.ask("SCANS+Invoices@EXAMPLE.net", None).await.unwrap(), "/scans/Invoices");
    assert_eq!(site.ask("scans+../x@example.org", None).await.unwrap(), "/scans/x");
    assert_eq!(site.ask("scans+..@example.org", None).await.unwrap(), "/scans");
    assert_eq!(site.ask("scans+.stoa-x@example.org", None).await.unwrap(), "/scans/stoa-x");
    assert_eq!(site.ask("scans", None).await.unwrap(), "/scans");
    assert_eq!(site.ask("Bob+news@example.org", None).await.unwrap(), "/mail/bob");
    assert_eq!(site.ask("postmaster@example.org", None).await.unwrap(), "/mail/alice");
    assert_eq!(site.ask("bob@[127.0.0.1]", None).await.unwrap(), "/mail/bob");
    assert_eq!(site.refusal("nobody@example.org").await, Kind::NotFound);
    assert_eq!(site.refusal("copier@example.org").await, Kind::NotFound);
    for elsewhere in [
        "bob@else.where",
        "bob@example.org.else.where",
        "bob@[192.0.2.9]",
        "bob%else.where@example.org",
        "else.where!bob@example.org",
        "bob@else.where@example.org",
    ] {
        assert_eq!(site.refusal(elsewhere).await, Kind::Denied, "{elsewhere}");
    }
    let caller = site.caller();
    let caught =
        site.hub.recipient(&caller, &Rcpt { catch_all: Some("bob"), ..rcpt("nobody", "example.org") }).await.unwrap();
    assert_eq!(caught.targets[0].folder().unwrap().to_string(), "/mail/bob");
}

#[tokio::test]
async fn who_may_not_create_there_may_not_send_there() {
    let site = Site::new().await;
    let error = site.ask("closed@example.org", None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.public().contains("sign in"), "{error}");
    // A device without a password is known by its network alone, on this door alone.
    let copier = site.caller_at("10.9.1.1:99");
    assert_eq!(copier.name(), "copier");
    let recipient = site.hub.recipient(&copier, &rcpt("closed", "example.org")).await.unwrap();
    assert_eq!(recipient.targets[0].folder().unwrap().to_string(), "/closed");
    assert!(site.caller_at("10.10.1.1:99").is_guest());
    let mut origin = Origin::inside("ftp");
    origin.peer = "10.9.1.1:99".parse().unwrap();
    assert!(site.hub.recognise(&origin).is_guest());
}

#[tokio::test]
async fn attachments_are_filed_like_an_upload_of_them() {
    let site = Site::new().await;
    let pdf = vec![7_u8; 3000];
    let message = with_files(&[("scan.pdf", &pdf), ("../scan.pdf", b"second"), ("", b"third")]);
    let receipt = site.send(&["scans+2026@example.org"], &message).await.unwrap();
    assert_eq!(receipt.path.to_string(), "/scans/2026/scan.pdf");
    assert_eq!(site.names("/scans/2026"), ["attachment-3.pdf", "scan (2).pdf", "scan.pdf"]);
    assert_eq!(std::fs::read(site.path("/scans/2026/scan.pdf")).unwrap(), pdf);
    assert_eq!(std::fs::read(site.path("/scans/2026/scan (2).pdf")).unwrap(), b"second");
    site.usage_matches().await;
    let filter = HistoryFilter { path: Some("/scans".into()), limit: 10, ..HistoryFilter::default() };
    let lines = site.hub.history(&filter).await.unwrap();
    assert_eq!(lines.len(), 3);
    let line = lines.first().unwrap();
    assert_eq!((line.verb.as_str(), line.door.as_str(), line.address.as_str()), ("create", "smtp", "192.0.2.7"));
    assert!(line.detail.contains(&receipt.id) && line.detail.contains("scans+2026@example.org"), "{}", line.detail);
}

#[tokio::test]
async fn the_space_rule_decides_about_a_name_that_is_taken() {
    let site = Site::new().await;
    let message = with_files(&[("scan.pdf", b"one")]);
    let other = with_files(&[("scan.pdf", b"two")]);
    site.send(&["keep@example.org"], &message).await.unwrap();
    site.send(&["keep@example.org"], &other).await.unwrap();
    assert_eq!(site.names("/keep"), ["scan (2).pdf", "scan.pdf"]);
    // The rule of /scans is to replace. A guest who may only add may not, and may not learn that the name is taken: both are kept.
    site.send(&["scans@example.org"], &message).await.unwrap();
    site.send(&["scans@example.org"], &other).await.unwrap();
    assert_eq!(std::fs::read(site.path("/scans/scan.pdf")).unwrap(), b"one");
    // A name of our own making never stands in the way.
    for bytes in [b"x", b"y"] {
        site.send(&["scans@example.org"], &with_files(&[("", bytes)])).await.unwrap();
    }
    assert_eq!(site.names("/scans"), ["attachment-1 (2).pdf", "attachment-1.pdf", "scan (2).pdf", "scan.pdf"]);
    site.usage_matches().await;
}

#[tokio::test]
async fn a_message_without_files_is_filed_itself_and_kept_where_that_is_asked_for() {
    let site = Site::new().await;
    let message = b"Subject: Motion: Gate\r\n\r\nseen\r\n";
    site.send(&["scans@example.org"], message).await.unwrap();
    let names = site.names("/scans");
    let [name] = names.as_slice() else { panic!("{names:?}") };
    assert!(name.ends_with(" Motion_ Gate.eml") && name.starts_with("20"), "{name}");
    assert_eq!(std::fs::read(site.path("/scans").join(name)).unwrap(), message);
    site.send(&["both@example.org"], &with_files(&[("a.pdf", b"a")])).await.unwrap();
    let names = site.names("/both");
    assert!(names.len() == 2 && names.iter().any(|name| name.ends_with(" Scan.eml")), "{names:?}");
    site.usage_matches().await;
}

#[tokio::test]
async fn a_mailbox_is_a_maildir() {
    let site = Site::new().await;
    let message = b"Subject: hi\r\n\r\nhello bob\r\n";
    site.send(&["bob@example.org", "bob+again@example.org", "alice@example.org"], message).await.unwrap();
    assert_eq!(site.names("/mail/bob"), ["cur", "new", "tmp"]);
    let names = site.names("/mail/bob/new");
    let [name] = names.as_slice() else { panic!("one message for one mailbox: {names:?}") };
    assert!(name.ends_with(&format!(".example.org,S={0},W={0}", message.len())), "{name}");
    assert_eq!(name.split('.').count(), 4, "{name}");
    assert_eq!(std::fs::read(site.path("/mail/bob/new").join(name)).unwrap(), message);
    assert_eq!(site.names("/mail/alice/new").len(), 1);
    let filter = HistoryFilter { path: Some("/mail/bob".into()), limit: 10, ..HistoryFilter::default() };
    assert_eq!(site.hub.history(&filter).await.unwrap().first().unwrap().verb, "deliver");
    site.usage_matches().await;
}

#[tokio::test]
async fn a_large_message_reaches_many_places_whole_and_leaves_no_stage() {
    let site = Site::new().await;
    let big: Vec<u8> = (0..500_000_u32).map(|number| (number % 251) as u8).collect();
    let message = with_files(&[("big.pdf", &big), ("little.pdf", b"x")]);
    let to = [
        "alice@example.org",
        "bob@example.org",
        "keep@example.org",
        "keep+a@example.org",
        "both+c@example.org",
        "scans@example.org",
    ];
    for first in 0..to.len() {
        let mut order = to.to_vec();
        order.rotate_left(first);
        site.send(&order, &message).await.unwrap();
    }
    for folder in ["/keep", "/keep/a", "/both/c", "/scans"] {
        assert_eq!(std::fs::read(site.path(folder).join("big.pdf")).unwrap(), big, "{folder}");
        assert_eq!(std::fs::read(site.path(folder).join("little.pdf")).unwrap(), b"x", "{folder}");
    }
    for mailbox in ["alice", "bob"] {
        let folder = format!("/mail/{mailbox}/new");
        let names = site.names(&folder);
        assert!(!names.is_empty(), "{mailbox}");
        for name in names {
            assert_eq!(std::fs::read(site.path(&folder).join(name)).unwrap(), message, "{mailbox}");
        }
    }
    assert_eq!(site.stages(), 0, "nothing is left in the stage folders");
    site.usage_matches().await;
}

#[tokio::test]
async fn a_full_space_refuses_for_everybody_or_before_the_message_comes() {
    let site = Site::new().await;
    assert_eq!(site.ask("small@example.org", Some(40_000)).await.unwrap_err().kind(), Kind::TooLarge);
    assert_eq!(site.ask("small@example.org", Some(15_000)).await.unwrap(), "/small");
    let message = with_files(&[("a.pdf", &vec![1; 25_000])]);
    let error = site.send(&["bob@example.org", "small@example.org"], &message).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OverQuota);
    assert!(site.names("/mail/bob/new").is_empty() && site.names("/small").is_empty());
    let message = with_files(&[("a.pdf", &vec![1; 19_900])]);
    site.send(&["small@example.org"], &message).await.unwrap();
    assert_eq!(site.ask("small@example.org", Some(15_000)).await.unwrap_err().kind(), Kind::OverQuota);
    assert_eq!(site.stages(), 0);
    site.usage_matches().await;
}

#[tokio::test]
async fn a_message_that_broke_off_leaves_nothing() {
    let site = Site::new().await;
    let caller = site.caller();
    let recipient = site.hub.recipient(&caller, &rcpt("bob", "example.org")).await.unwrap();
    let envelope =
        Envelope { id: "1".into(), sender: String::new(), recipients: vec![recipient], size: None, proof: None };
    let mut upload = caller.deliver(envelope).await.unwrap();
    upload.push(Bytes::from(vec![b'x'; 200_000])).await.unwrap();
    assert_eq!(site.stages(), 1);
    upload.abandon().await;
    assert_eq!(site.stages(), 0);
    assert!(site.names("/mail/bob/new").is_empty());
}

#[tokio::test]
async fn racing_messages_never_pass_a_quota() {
    let site = Arc::new(Site::new().await);
    // Room for six files of 3000 bytes, asked for by twenty senders.
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let site = site.clone();
            tokio::spawn(async move {
                let message = with_files(&[(&format!("{number}.pdf"), &[b'x'; 3000])]);
                site.send(&["small@example.org"], &message).await
            })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => assert_eq!(error.kind(), Kind::OverQuota),
        }
    }
    assert_eq!((taken, site.names("/small").len()), (6, 6));
    site.usage_matches().await;
}
