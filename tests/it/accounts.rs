//! Who may do what: accounts and spaces compiled, judged, signed in, changed by command.

use std::path::PathBuf;
use std::sync::Arc;

use stoa::error::{Error, Kind, Result};
use stoa::hub::files::{MakeFolder, RemoveFile, RemoveFolder};
use stoa::hub::lock::Wish;
use stoa::hub::login::hash_password;
use stoa::hub::settings::{DeviceSettings, GrantSettings, LoginSettings, SpaceSettings, UserSettings};
use stoa::hub::{Caller, Hub, Settings, TreePath, Verb, Verbs, Volumes};
use stoa::origin::Origin;
use stoa::store::{
    AccountKind, AccountRow, Catalog, CatalogSettings, Directory, GrantRow, HistoryFilter, SpaceRow, Volume,
};
use stoa::units::ByteSize;
use tempfile::TempDir;

/// Directories below a folder, as the daemon lays them out.
pub(crate) struct Trees(pub(crate) PathBuf);

impl Volumes for Trees {
    fn open(&self, space: &TreePath, source: &str) -> Result<Arc<dyn Volume>> {
        let own = self.0.join("tree").join(space.to_string().trim_start_matches('/'));
        let root = if source.is_empty() { own } else { PathBuf::from(source) };
        Ok(Arc::new(Directory::open(&root, &self.0.join("stage"), source.is_empty())?))
    }
}

/// A hub over a folder that goes with it.
struct House {
    hub: Hub,
    folder: TempDir,
}

impl House {
    async fn open(settings: Settings) -> Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        Self::open_in(settings, folder).await
    }

    async fn open_in(settings: Settings, folder: TempDir) -> Result<Self> {
        let catalog = Catalog::open(&CatalogSettings::default(), folder.path(), "one").await?;
        let settings = Settings { data: folder.path().to_owned(), ..settings };
        let hub = Hub::open(settings, catalog, Arc::new(Trees(folder.path().to_owned()))).await?;
        Ok(Self { hub, folder })
    }

    async fn caller(&self, name: &str) -> Caller {
        match name {
            "" => self.hub.guest(from("192.0.2.1", "ftp")),
            name => self.hub.login(&from("192.0.2.1", "ftp"), name, b"secret").await.expect(name),
        }
    }
}

fn from(address: &str, door: &'static str) -> Origin {
    let peer = (address.parse::<std::net::IpAddr>().expect(address), 40_000).into();
    let mut origin = Origin::inside(door);
    origin.peer = peer;
    origin
}

fn at(text: &str) -> TreePath {
    TreePath::parse(text).expect(text)
}

/// Cheap hashes: what they cost is not what is tested.
fn quick() -> LoginSettings {
    LoginSettings { memory: ByteSize(8 << 10), ..LoginSettings::default() }
}

fn hash(password: &str) -> String {
    hash_password(password.as_bytes(), &quick()).expect("a hash")
}

fn user(name: &str, groups: &[&str]) -> UserSettings {
    UserSettings {
        name: name.into(),
        password_hash: hash("secret"),
        groups: groups.iter().map(ToString::to_string).collect(),
        ..UserSettings::default()
    }
}

fn device(name: &str, folder: &str) -> DeviceSettings {
    DeviceSettings {
        name: name.into(),
        password_hash: hash("secret"),
        folder: folder.into(),
        ..DeviceSettings::default()
    }
}

fn space(path: &str, grants: &[(&str, &str)]) -> SpaceSettings {
    let grant = |(to, allow): &(&str, &str)| GrantSettings { to: (*to).into(), allow: (*allow).into() };
    SpaceSettings { path: path.into(), grants: grants.iter().map(grant).collect(), ..SpaceSettings::default() }
}

fn settings(users: Vec<UserSettings>, devices: Vec<DeviceSettings>, spaces: Vec<SpaceSettings>) -> Settings {
    Settings { domains: vec!["example.org".into()], users, devices, spaces, login: quick(), ..Settings::default() }
}

/// One of every sort of principal, and spaces that treat them differently.
fn table() -> Settings {
    settings(
        vec![
            user("alice", &["staff"]),
            user("bob", &[]),
            UserSettings { root: "/scans/carol".into(), ..user("carol", &["staff"]) },
            UserSettings { admin: true, ..user("root", &[]) },
        ],
        vec![device("camera", "/cameras/3"), device("scanner", "/scans/in")],
        vec![
            space("/scans", &[("group:staff", "edit"), ("everyone", "read")]),
            space("/scans/private", &[("user:bob", "own")]),
            space("/inbox", &[("users", "drop"), ("device:camera", "create list"), ("user:alice", "view delete")]),
            space("/public", &[("everyone", "view")]),
        ],
    )
}

#[tokio::test]
async fn every_principal_has_exactly_the_verbs_the_table_says() {
    let house = House::open(table()).await.unwrap();
    let mail = "list read overwrite delete rename";
    let nothing = "";
    let cells = [
        // path, everyone, alice (staff), bob, carol (confined), camera, scanner, root (admin)
        ("/", ["list", "list", "list", nothing, "list", "list", "list"]),
        ("/scans/a.pdf", ["read", "edit", "read", nothing, "read", "read", "own"]),
        ("/scans/in/x", ["read", "edit", "read", nothing, "read", "list create append read", "own"]),
        ("/scans/inner", ["read", "edit", "read", nothing, "read", "read", "own"]),
        ("/scans/carol", ["read", "edit", "read", "edit", "read", "read", "own"]),
        ("/scans/carol/b", ["read", "edit", "read", "edit", "read", "read", "own"]),
        ("/scans/carol2", ["read", "edit", "read", nothing, "read", "read", "own"]),
        ("/scans/private/c", [nothing, nothing, "own", nothing, nothing, nothing, "own"]),
        ("/inbox/d", [nothing, "view create delete", "drop", nothing, "list create", nothing, "own"]),
        ("/public/e/f", ["view", "view", "view", nothing, "view", "view", "own"]),
        ("/cameras", [nothing, nothing, nothing, nothing, "list", nothing, nothing]),
        ("/cameras/3/g", [nothing, nothing, nothing, nothing, "list create append", nothing, nothing]),
        ("/home", [nothing, "list", "list", nothing, nothing, nothing, "list"]),
        ("/home/alice/h", [nothing, "own", nothing, nothing, nothing, nothing, nothing]),
        ("/home/carol/h", [nothing, nothing, nothing, nothing, nothing, nothing, nothing]),
        ("/mail/bob/new/1", [nothing, nothing, mail, nothing, nothing, nothing, nothing]),
        ("/nowhere", [nothing, nothing, nothing, nothing, nothing, nothing, nothing]),
        ("/-/api", [nothing, nothing, nothing, nothing, nothing, nothing, nothing]),
    ];
    for (column, name) in ["", "alice", "bob", "carol", "camera", "scanner", "root"].into_iter().enumerate() {
        let caller = house.caller(name).await;
        for (path, row) in &cells {
            let expected = Verbs::parse(row[column]).unwrap();
            assert_eq!(caller.rights(&at(path)), expected, "{name} at {path}");
            // A space in which somebody may do nothing looks like a name that is free in the space around it.
            let around = cells
                .iter()
                .find(|(place, _)| expected.is_empty() && path.starts_with("/scans/") && *place == "/scans/a.pdf");
            let apparent = around.map_or(expected, |(_, row)| Verbs::parse(row[column]).unwrap());
            for verb in Verb::ALL {
                let said = caller.allow(verb, &at(path)).map_err(|error| error.kind());
                let meant = match name {
                    _ if expected.has(verb) => Ok(()),
                    _ if apparent.has(verb) => Err(Kind::NotFound),
                    "" => Err(Kind::Unauthenticated),
                    _ if apparent.is_empty() => Err(Kind::NotFound),
                    _ => Err(Kind::Denied),
                };
                assert_eq!(said, meant, "{name} {} {path}", verb.word());
            }
        }
    }
    let said = house.caller("camera").await.allow(Verb::Delete, &at("/inbox/d")).unwrap_err();
    assert_eq!(said.public(), "camera may not delete here");
}

#[tokio::test]
async fn a_listing_shows_only_the_spaces_the_caller_knows_of() {
    let house = House::open(table()).await.unwrap();
    let names = async |name: &str, folder: &str| -> Result<Vec<String>> {
        let mut listing = house.caller(name).await.list(&at(folder)).await?;
        Ok(listing.next_page().await?.into_iter().map(|entry| entry.node.name).collect())
    };
    assert_eq!(names("", "/").await.unwrap(), ["public", "scans"]);
    assert_eq!(names("alice", "/").await.unwrap(), ["home", "inbox", "mail", "public", "scans"]);
    assert_eq!(names("alice", "/home").await.unwrap(), ["alice"]);
    assert_eq!(names("camera", "/").await.unwrap(), ["cameras", "inbox", "public", "scans"]);
    assert_eq!(names("alice", "/scans").await.unwrap(), ["carol", "in"], "made for carol and the scanner");
    assert_eq!(names("carol", "/").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(names("", "/home").await.unwrap_err().kind(), Kind::Unauthenticated);
}

#[tokio::test]
async fn a_server_without_any_space_shares_one_among_its_users() {
    let house = House::open(settings(vec![user("alice", &[])], vec![], vec![])).await.unwrap();
    let alice = house.caller("alice").await;
    assert_eq!(alice.rights(&at("/shared/x")), Verbs::EDIT);
    assert_eq!(house.caller("").await.allow(Verb::List, &at("/")).unwrap_err().kind(), Kind::Unauthenticated);
    let shared = house.hub.spaces().await.unwrap().into_iter().find(|space| space.row.path == "/shared").unwrap();
    assert_eq!(shared.row.address, "shared");
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_with_key_and_remedy() {
    let mut wrong = table();
    wrong.users.push(UserSettings { name: "Bad Name".into(), ..UserSettings::default() });
    wrong.users.push(user("camera", &[]));
    wrong.users.push(UserSettings { root: "home".into(), ..user("dora", &[]) });
    wrong.users.push(UserSettings { networks: vec!["10.0.0.0/99".into()], ..user("emil", &[]) });
    wrong.users.push(UserSettings { password_hash: "secret".into(), ..user("fred", &[]) });
    let file = UserSettings { password_hash: String::new(), password_file: "/no/such".into(), ..user("gina", &[]) };
    wrong.users.push(file);
    wrong.spaces.push(space("/scans", &[]));
    wrong.spaces.push(SpaceSettings { address: "alice".into(), ..space("/a", &[]) });
    wrong.spaces.push(SpaceSettings { address: "drop".into(), ..space("/b", &[("user:nobody", "view")]) });
    wrong.spaces.push(SpaceSettings { address: "box".into(), ..space("/c", &[("staff", "view")]) });
    wrong.spaces.push(SpaceSettings { address: "two".into(), ..space("/d", &[("group:none", "look")]) });
    wrong.spaces.push(SpaceSettings { address: "one".into(), ..space("/e", &[]) });
    wrong.spaces.push(SpaceSettings { address: "ONE".into(), ..space("/f", &[]) });
    wrong.spaces.push(space("/-/x", &[]));
    wrong.spaces.push(SpaceSettings { source: "here".into(), ..space("/g", &[]) });
    wrong.spaces.push(SpaceSettings { source: "/no/such/folder".into(), ..space("/h", &[]) });
    wrong.login.hashers = 0;
    let error = House::open(wrong).await.err().expect("refused");
    assert_eq!(error.kind(), Kind::Invalid);
    for (line, told) in error.public().lines().zip([
        "[[user]] Bad Name: name: `Bad Name` may hold only lower case",
        "[[user]] dora: root: `home` is not a path of the tree",
        "[[user]] emil: networks: `10.0.0.0/99` is not a network",
        "[[user]] fred: password_hash: is not a PHC string",
        "[[user]] gina: password_file: /no/such: cannot be read",
        "[[device]] camera: name: is already the name of a user in the configuration",
        "[login] hashers: must be from 1",
        // The device of the same name was left out, so a grant to it is a mistake too.
        "[[space]] /inbox: grants: there is no device `camera`",
        "[[space]] /scans: path: /scans is already there",
        "[[space]] /a: address: `alice` is the mailbox of the user alice",
        "[[space]] /b: grants: there is no user `nobody`",
        "[[space]] /c: grants: `staff` names nobody",
        "[[space]] /d: grants: `look` is not a verb",
        "[[space]] /f: address: is already the drop address of [[space]] /e",
        "[[space]] /-/x: path: `/-/x` is below `/-`",
        "[[space]] /g: source: `here` is not absolute",
    ]) {
        assert!(line.starts_with(told), "{line}\nshould begin with: {told}");
    }
    assert_eq!(error.public().lines().count(), 17, "{}", error.public());
    assert!(error.public().contains("[[space]] /h: cannot be opened"), "{}", error.public());
}

#[tokio::test]
async fn a_second_sign_in_with_the_same_password_costs_no_hash() {
    let house = House::open(table()).await.unwrap();
    let gate = house.hub.gatekeeper();
    for door in ["ftp", "http", "smtp", "ftp"] {
        house.hub.login(&from("192.0.2.1", door), "ALICE", b"secret").await.unwrap();
        house.hub.login(&from("192.0.2.1", door), "alice@Example.org", b"secret").await.unwrap();
    }
    assert_eq!(gate.computed(), 1);
    let wrong = house.hub.login(&from("192.0.2.1", "ftp"), "alice", b"Secret").await.err().unwrap();
    assert_eq!((wrong.kind(), wrong.public()), (Kind::Unauthenticated, "wrong name or password"));
    assert_eq!(gate.computed(), 2);
}

#[tokio::test]
async fn many_sign_ins_at_once_with_the_same_password_hash_it_hardly_more_than_once() {
    let house = House::open(table()).await.unwrap();
    let tries = (0..50).map(|_| {
        let hub = house.hub.clone();
        tokio::spawn(async move { hub.login(&from("192.0.2.1", "ftp"), "bob", b"secret").await.map(|_| ()) })
    });
    for one in tries.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert!(house.hub.gatekeeper().computed() <= 2, "one for each hasher at most");
}

#[tokio::test]
async fn a_flood_of_sign_ins_is_turned_away_before_it_is_hashed() {
    let mut told = table();
    told.login.hashers = 1;
    told.login.never_ban = vec!["192.0.2.0/24".into()];
    let house = House::open(told).await.unwrap();
    let tries = (0..200).map(|number| {
        let (hub, name) = (house.hub.clone(), format!("stranger-{number}"));
        tokio::spawn(async move { hub.login(&from("192.0.2.1", "ftp"), &name, b"x").await.err().map(|e| e.kind()) })
    });
    let mut turned_away = 0;
    for one in tries.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Some(Kind::Throttled) => turned_away += 1,
            said => assert_eq!(said, Some(Kind::Unauthenticated)),
        }
    }
    let computed = house.hub.gatekeeper().computed();
    assert_eq!(turned_away + computed, 200);
    // the hasher may end a few while the flood is still coming in
    assert!((32..64).contains(&computed), "as many wait as the limit says, {computed} did");
    assert!(house.hub.login(&from("192.0.2.1", "ftp"), "bob", b"secret").await.is_ok());
}

#[tokio::test]
async fn a_declared_home_or_mailbox_keeps_its_limits_and_stays_its_owners() {
    let mut told = table();
    told.spaces.push(SpaceSettings { quota: ByteSize(1 << 30), ..space("/home/alice", &[("user:bob", "view")]) });
    told.spaces.push(SpaceSettings { quota: ByteSize(1 << 20), ..space("/mail/alice", &[]) });
    let house = House::open(told).await.unwrap();
    let (alice, bob, root) = (house.caller("alice").await, house.caller("bob").await, house.caller("root").await);
    assert_eq!(alice.rights(&at("/home/alice/x")), Verbs::OWN);
    assert_eq!(bob.rights(&at("/home/alice/x")), Verbs::VIEW);
    assert_eq!(root.rights(&at("/home/alice/x")), Verbs::NONE, "a home is nobody else's, whatever the limits");
    assert!(alice.allow(Verb::Delete, &at("/mail/alice/new/1")).is_ok());
    assert!(alice.allow(Verb::Create, &at("/mail/alice/new/1")).is_err());
    let spaces = house.hub.spaces().await.unwrap();
    let limit = |path: &str| spaces.iter().find(|space| space.row.path == path).and_then(|space| space.row.max_bytes);
    assert_eq!((limit("/home/alice"), limit("/mail/alice"), limit("/home/bob")), (Some(1 << 30), Some(1 << 20), None));
}

#[tokio::test]
async fn whoever_may_not_come_in_cannot_tell_why_and_each_refusal_costs_one_hash() {
    let mut told = table();
    told.users.push(UserSettings { disabled: true, ..user("dora", &[]) });
    told.users.push(UserSettings { networks: vec!["10.0.0.0/8".into()], ..user("emil", &[]) });
    told.users.push(UserSettings { protocols: vec!["http".into()], ..user("fred", &[]) });
    told.users.push(UserSettings { password_hash: String::new(), ..user("gina", &[]) });
    let house = House::open(told).await.unwrap();
    let gate = house.hub.gatekeeper();
    for (count, name) in ["nobody", "dora", "emil", "fred", "gina", "x".repeat(5000).as_str()].into_iter().enumerate() {
        let said = house.hub.login(&from("192.0.2.1", "ftp"), name, b"secret").await.err().unwrap();
        assert_eq!((said.kind(), said.public()), (Kind::Unauthenticated, "wrong name or password"), "{name}");
        assert_eq!(gate.computed(), count + 1, "{name}");
    }
    assert!(house.hub.login(&from("10.1.2.3", "ftp"), "emil", b"secret").await.is_ok());
    assert!(house.hub.login(&from("::ffff:10.1.2.3", "ftp"), "emil", b"secret").await.is_ok());
    assert!(house.hub.login(&from("192.0.2.1", "http"), "fred", b"secret").await.is_ok());
}

#[tokio::test]
async fn failures_at_one_door_shut_all_doors_for_that_address() {
    let mut told = table();
    told.login.attempts = 3;
    told.login.never_ban = vec!["198.51.100.0/24".into()];
    let house = House::open(told).await.unwrap();
    for (door, name) in [("ftp", "alice"), ("smtp", "bob"), ("http", "nobody")] {
        assert!(house.hub.login(&from("192.0.2.1", door), name, b"wrong").await.is_err());
    }
    let before = house.hub.gatekeeper().computed();
    let said = house.hub.login(&from("192.0.2.1", "http"), "alice", b"secret").await.err().unwrap();
    assert_eq!(said.kind(), Kind::Throttled);
    assert_eq!(said.public(), "too many wrong passwords; try again in 10 minutes");
    assert_eq!(house.hub.gatekeeper().computed(), before, "no hash for who must wait");
    assert!(house.hub.login(&from("192.0.2.2", "ftp"), "alice", b"secret").await.is_ok());
    for name in ["r1", "r2", "r3", "r4", "r5"] {
        assert!(house.hub.login(&from("198.51.100.1", "ftp"), name, b"wrong").await.is_err());
    }
    assert!(house.hub.login(&from("198.51.100.1", "ftp"), "bob", b"secret").await.is_ok(), "never banned");
}

#[tokio::test]
async fn a_password_file_is_read_at_start_and_again_at_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("camera.password");
    std::fs::write(&file, "first\r\nnot this line\n").unwrap();
    let mut told = table();
    told.devices[0].password_hash = String::new();
    told.devices[0].password_file = file.display().to_string();
    let house = House::open(told.clone()).await.unwrap();
    let ftp = from("192.0.2.1", "ftp");
    assert!(house.hub.login(&ftp, "camera", b"first").await.is_ok());
    assert!(house.hub.login(&ftp, "camera", b"first\r").await.is_err());
    std::fs::write(&file, "second").unwrap();
    house.hub.reload(told).await.unwrap();
    assert!(house.hub.login(&ftp, "camera", b"second").await.is_ok());
    assert!(house.hub.login(&ftp, "camera", b"first").await.is_err());
}

#[tokio::test]
async fn a_refused_reload_changes_nothing_and_a_good_one_holds_for_open_sessions() {
    let house = House::open(table()).await.unwrap();
    let bob = house.caller("bob").await;
    let mut wrong = table();
    wrong.spaces[0].path = "scans".into();
    wrong.users.truncate(1);
    assert_eq!(house.hub.reload(wrong).await.unwrap_err().kind(), Kind::Invalid);
    assert!(bob.allow(Verb::Read, &at("/public/x")).is_ok());
    let mut new = table();
    new.users[1].root = "/home/bob".into();
    house.hub.reload(new.clone()).await.unwrap();
    // Another root is another sign-in: what is open ends, and a new session has the new root.
    assert_eq!(bob.allow(Verb::Read, &at("/public/x")).unwrap_err().kind(), Kind::Unauthenticated);
    let bob = house.caller("bob").await;
    assert_eq!(bob.allow(Verb::Read, &at("/public/x")).unwrap_err().kind(), Kind::NotFound);
    new.users[1].disabled = true;
    house.hub.reload(new).await.unwrap();
    assert_eq!(bob.allow(Verb::Read, &at("/home/bob/x")).unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(bob.rights(&at("/public/x")), Verbs::NONE);
}

#[tokio::test]
async fn a_session_is_resumed_by_its_token_until_it_is_closed_or_its_account_goes() {
    let house = House::open(table()).await.unwrap();
    let http = from("192.0.2.1", "http");
    let row = AccountRow { name: "dora".into(), ..AccountRow::default() };
    house.hub.put_account(row.clone(), Some(b"secret"), true).await.unwrap();
    let ended = async |token: &str| house.hub.resume(&http, token).await.err().map(|error| error.kind());
    let one = house.hub.open_session(&house.caller("alice").await).await.unwrap();
    let two = house.hub.open_session(&house.caller("dora").await).await.unwrap();
    let three = house.hub.open_session(&house.caller("dora").await).await.unwrap();
    assert_eq!(one.token.len(), 43);
    assert_eq!(house.hub.resume(&http, &one.token).await.unwrap().name(), "alice");
    assert_eq!(house.hub.resume(&http, &two.token).await.unwrap().name(), "dora");
    assert_eq!(ended("").await, Some(Kind::Unauthenticated));
    assert_eq!(ended(&"A".repeat(43)).await, Some(Kind::Unauthenticated));
    house.hub.close_session(&one.token).await.unwrap();
    assert_eq!(ended(&one.token).await, Some(Kind::Unauthenticated));
    house.hub.close_session(&two.token).await.unwrap();
    assert_eq!(house.hub.resume(&http, &three.token).await.unwrap().name(), "dora", "her other session goes on");
    house.hub.put_account(row, Some(b"another"), false).await.unwrap();
    assert_eq!(ended(&three.token).await, Some(Kind::Unauthenticated), "a new password ends the sessions");
    assert!(house.hub.open_session(&house.caller("").await).await.is_err(), "a guest has no session");
    let database = std::fs::read(house.folder.path().join("catalog.db")).unwrap();
    assert!(!database.windows(43).any(|bytes| bytes == three.token.as_bytes()), "no token is stored");
}

#[tokio::test]
async fn an_operator_makes_changes_and_removes_accounts_and_each_leaves_a_line() {
    let house = House::open(table()).await.unwrap();
    let hub = &house.hub;
    let ftp = from("192.0.2.1", "ftp");
    let kind = |outcome: Result<()>| outcome.map_err(|error| error.kind());
    let dora = AccountRow { name: "Dora".into(), groups: vec!["press".into()], ..AccountRow::default() };
    let group = AccountRow { name: "press".into(), kind: AccountKind::Group, ..AccountRow::default() };
    hub.put_account(group, None, true).await.unwrap();
    hub.put_account(dora.clone(), Some(b"secret"), true).await.unwrap();
    let press = GrantRow { to: "group:press".into(), allow: "edit".into() };
    let own = GrantRow { to: "user:dora".into(), allow: "own".into() };
    let row = SpaceRow { path: "/press".into(), grants: vec![press, own], durable: true, ..SpaceRow::default() };
    hub.put_space(row).await.unwrap();
    let caller = hub.login(&ftp, "dora", b"secret").await.unwrap();
    assert_eq!(caller.rights(&at("/press/x")), Verbs::OWN);
    assert_eq!(kind(hub.put_account(dora.clone(), None, true).await), Err(Kind::Exists));
    assert_eq!(
        kind(hub.put_account(AccountRow { name: "alice".into(), ..dora.clone() }, None, false).await),
        Err(Kind::Denied),
        "declared"
    );
    assert_eq!(
        kind(hub.put_account(AccountRow { name: "x y".into(), ..dora.clone() }, None, true).await),
        Err(Kind::Invalid)
    );
    let lost = AccountRow { name: "lost".into(), root: "nowhere".into(), ..AccountRow::default() };
    assert_eq!(kind(hub.put_account(lost, None, true).await), Err(Kind::Invalid));
    // A change without a password keeps it.
    hub.put_account(AccountRow { groups: vec![], ..dora.clone() }, None, false).await.unwrap();
    assert!(hub.login(&ftp, "dora", b"secret").await.is_ok());
    hub.remove_account("press").await.unwrap();
    hub.remove_account("dora").await.unwrap();
    assert_eq!(caller.allow(Verb::Read, &at("/press/x")).unwrap_err().kind(), Kind::Unauthenticated);
    assert!(hub.login(&ftp, "dora", b"secret").await.is_err());
    assert_eq!(kind(hub.remove_account("dora").await.map(drop)), Err(Kind::NotFound));
    let press = hub.spaces().await.unwrap().into_iter().find(|space| space.row.path == "/press").unwrap();
    assert!(press.row.grants.is_empty(), "what was granted to them went with them");
    let lines = hub.history(&HistoryFilter { limit: 50, ..HistoryFilter::default() }).await.unwrap();
    let said: Vec<_> = lines.iter().map(|line| line.detail.as_str()).collect();
    assert_eq!(
        said,
        [
            "made the group press",
            "made the user dora",
            "made the space /press",
            "changed the user dora",
            "removed the group press",
            "removed the user dora"
        ]
    );
}

#[tokio::test]
async fn a_space_made_by_command_is_checked_like_a_declared_one() {
    let house = House::open(table()).await.unwrap();
    let hub = &house.hub;
    let row = |path: &str| SpaceRow { path: path.into(), durable: true, ..SpaceRow::default() };
    let refused = async |row: SpaceRow| hub.put_space(row).await.unwrap_err().public().to_owned();
    let grant = |to: &str, allow: &str| vec![GrantRow { to: to.into(), allow: allow.into() }];
    assert!(refused(row("press")).await.contains("is not a path of the tree"));
    assert!(refused(row("/scans")).await.contains("declared in the configuration file"));
    assert!(refused(SpaceRow { overwrite: "never".into(), ..row("/p") }).await.contains("`never` is not a rule"));
    assert!(refused(SpaceRow { address: "alice".into(), ..row("/p") }).await.contains("mailbox of the user alice"));
    assert!(refused(SpaceRow { grants: grant("user:nobody", "view"), ..row("/p") }).await.contains("no user `nobody`"));
    assert!(refused(SpaceRow { grants: grant("users", "look"), ..row("/p") }).await.contains("`look` is not a verb"));
    assert!(refused(SpaceRow { source: "/no/such/folder".into(), ..row("/p") }).await.contains("/no/such/folder"));
    hub.put_space(SpaceRow { address: "p".into(), grants: grant("users", "edit"), ..row("/p") }).await.unwrap();
    assert!(refused(SpaceRow { address: "P".into(), ..row("/q") }).await.contains("already the drop address"));
    let alice = house.caller("alice").await;
    assert!(alice.allow(Verb::Create, &at("/p/x")).is_ok());
    hub.put_space(SpaceRow { grants: grant("users", "view"), ..row("/p") }).await.unwrap();
    assert_eq!(alice.allow(Verb::Create, &at("/p/x")).unwrap_err().kind(), Kind::Denied);
    hub.remove_space("/p").await.unwrap();
    assert_eq!(alice.allow(Verb::Read, &at("/p/x")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(hub.remove_space("/p").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(hub.remove_space("/scans").await.unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn records_of_the_catalog_never_stop_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open_in(settings(vec![user("alice", &[])], vec![], vec![]), folder).await.unwrap();
    let bob = AccountRow { name: "bob".into(), ..AccountRow::default() };
    house.hub.put_account(bob, Some(b"secret"), true).await.unwrap();
    let press = SpaceRow { path: "/press".into(), address: "press".into(), ..SpaceRow::default() };
    house.hub.put_space(press).await.unwrap();
    let House { hub, folder } = house;
    drop(hub);
    // Later the configuration takes the same names: it wins, and the records are left out.
    let later = settings(
        vec![UserSettings { password_hash: hash("other"), ..user("bob", &[]) }],
        vec![],
        vec![SpaceSettings { address: "press".into(), ..space("/papers", &[("users", "view")]) }],
    );
    let house = House::open_in(later, folder).await.unwrap();
    assert!(house.hub.login(&from("192.0.2.1", "ftp"), "bob", b"secret").await.is_err());
    assert!(house.hub.login(&from("192.0.2.1", "ftp"), "bob", b"other").await.is_ok());
    assert!(!house.hub.spaces().await.unwrap().iter().any(|space| space.row.path == "/press"));
}

#[tokio::test]
async fn what_the_command_line_writes_holds_in_a_daemon_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let told = || settings(vec![user("alice", &[])], vec![], vec![]);
    let daemon = House::open_in(told(), folder).await.unwrap();
    let dora = AccountRow { name: "dora".into(), ..AccountRow::default() };
    let catalog = Catalog::open(&CatalogSettings::default(), daemon.folder.path(), "two").await.unwrap();
    let trees = Arc::new(Trees(daemon.folder.path().to_owned()));
    let command = Hub::open(told(), catalog, trees).await.unwrap();
    command.put_account(dora, Some(b"secret"), true).await.unwrap();
    daemon.hub.refresh().await.unwrap();
    assert!(daemon.hub.login(&from("192.0.2.1", "ftp"), "dora", b"secret").await.is_ok());
    command.remove_account("dora").await.unwrap();
    daemon.hub.refresh().await.unwrap();
    assert!(daemon.hub.login(&from("192.0.2.1", "ftp"), "dora", b"secret").await.is_err());
}

#[tokio::test]
async fn a_lock_holds_against_everyone_without_its_token() {
    let house = House::open(table()).await.unwrap();
    let (alice, root) = (house.caller("alice").await, house.caller("root").await);
    let folder = at("/scans/2026");
    alice.perform(MakeFolder { path: folder.clone() }).await.unwrap();
    let wish = |deep| Wish { deep, owner: "alice's laptop".into(), seconds: Some(600), ..Wish::default() };
    let (lock, made) = house.hub.lock(&alice, &folder, wish(true)).await.unwrap();
    assert!(lock.token.starts_with("opaquelocktoken:") && !made);
    let kind = |error: Error| error.kind();
    let inside = at("/scans/2026/x");
    assert_eq!(house.hub.lock(&root, &inside, wish(false)).await.map_err(kind).unwrap_err(), Kind::Locked);
    assert_eq!(house.hub.lock(&root, &at("/scans"), wish(true)).await.map_err(kind).unwrap_err(), Kind::Locked);
    assert_eq!(
        root.perform(RemoveFile { path: inside.clone(), tokens: vec![] }).await.map_err(kind).unwrap_err(),
        Kind::Locked
    );
    assert_eq!(house.hub.locks_on(&inside).len(), 1);
    let remove = |tokens| RemoveFolder { path: folder.clone(), all: true, tokens };
    assert_eq!(root.perform(remove(vec![])).await.map_err(kind).unwrap_err(), Kind::Locked);
    let token = vec![lock.token.clone()];
    assert_eq!(root.perform(remove(token.clone())).await.map_err(kind).unwrap_err(), Kind::Locked, "it is alice's");
    let longer = house.hub.refresh_lock(&alice, &inside, &lock.token, Some(1200)).await.unwrap();
    assert!(longer.expires > lock.expires);
    let guest = house.caller("").await;
    assert_eq!(house.hub.lock(&guest, &inside, wish(false)).await.map_err(kind).unwrap_err(), Kind::Unauthenticated);
    let bob = house.caller("bob").await;
    assert_eq!(house.hub.lock(&bob, &inside, wish(false)).await.map_err(kind).unwrap_err(), Kind::Denied);
    assert_eq!(house.hub.unlock(&bob, &inside, &lock.token).await.map_err(kind).unwrap_err(), Kind::Denied);
    let elsewhere = house.hub.unlock(&alice, &at("/scans/other"), &lock.token).await;
    assert_eq!(elsewhere.map_err(kind).unwrap_err(), Kind::NotFound);
    house.hub.unlock(&root, &folder, &lock.token).await.expect("an administrator of the space may break it");
    assert_eq!(house.hub.unlock(&alice, &folder, &lock.token).await.map_err(kind).unwrap_err(), Kind::NotFound);

    let (lock, made) = house.hub.lock(&alice, &inside, wish(false)).await.unwrap();
    assert!(made && house.caller("root").await.stat(&inside).await.is_ok(), "where nothing was, an empty file is");
    let holding = alice.clone().holding(vec![lock.token.clone()]);
    assert_eq!(alice.perform(remove(vec![])).await.map_err(kind).unwrap_err(), Kind::Locked, "no token, no way");
    holding.perform(remove(vec![])).await.unwrap();
    assert!(house.hub.locks_on(&inside).is_empty());
}
