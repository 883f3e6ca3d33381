//! What every catalog engine must keep, run word for word on SQLite and on a real PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use stoa::error::{Kind, Result};
use stoa::store::catalog::postgres::Postgres;
use stoa::store::catalog::sqlite::Sqlite;
use stoa::store::catalog::{Row, Statement, Transaction, Value};
use stoa::store::fault::engine::{Calls, Fault, FaultyEngine, Moment};
use stoa::store::{
    AccountKind, AccountRow, AliasRow, Batch, Catalog, CatalogSettings, DeliveryRow, DeliveryState, Edit, Engine,
    Expect, FileRow, GrantRow, HistoryFilter, HistoryLine, IntentRow, LockGuard, LockRow, MailEdit, MailFolderRow,
    MessageRow, PropertyEdit, ReceiptRow, SessionRow, SpaceRow, UploadEdit, UploadKind, UploadRow, Usage,
};
use tempfile::TempDir;

use crate::postgres::Server;

/// Where one case keeps its catalog: empty at first, the same every time it is opened.
enum Site {
    Postgres(String),
    Sqlite(TempDir),
}

struct Open {
    engine: Arc<dyn Engine>,
    catalog: Catalog,
}

impl Site {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    async fn open(&self) -> Open {
        self.try_open("one").await.expect("the catalog opens")
    }

    async fn open_as(&self, node: &str) -> Open {
        self.try_open(node).await.expect("the catalog opens")
    }

    async fn try_open(&self, node: &str) -> Result<Open> {
        let mut settings = CatalogSettings::default();
        let engine: Arc<dyn Engine> = match self {
            Self::Postgres(url) => {
                settings.url.clone_from(url);
                Arc::new(Postgres::open(node, &settings).await?)
            }
            Self::Sqlite(folder) => Arc::new(Sqlite::open(&folder.path().join("catalog.db"), node, &settings)?),
        };
        Ok(Open { catalog: Catalog::new(engine.clone()), engine })
    }
}

impl Open {
    async fn commit(&self, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
        self.catalog.commit(Batch { edits: edits.into_iter().collect() }).await
    }

    async fn must(&self, edits: impl IntoIterator<Item = Edit>) {
        self.commit(edits).await.expect("the batch holds");
    }

    async fn refused(&self, edits: impl IntoIterator<Item = Edit>) -> Kind {
        self.commit(edits).await.expect_err("the batch must be refused").kind()
    }

    async fn tamper(&self, sql: &'static str) {
        let statements = vec![Statement { sql, params: Vec::new(), must: None }];
        let transaction = Transaction { statements, ..Transaction::default() };
        self.engine.commit(vec![transaction]).await.remove(0).expect("tampering");
    }

    async fn ask(&self, sql: &'static str, params: Vec<Value>) -> Vec<Row> {
        self.engine.read(Statement { sql, params, must: None }).await.expect("a read")
    }

    async fn paths(&self, folder: &str) -> Vec<String> {
        let rows = self.catalog.files_below("/s", folder, "", 10_000).await.expect("a read");
        rows.into_iter().map(|row| row.path).collect()
    }
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod sqlite {
            $(
                #[test]
                fn $case() {
                    super::block_on(super::$case(super::Site::sqlite()));
                }
            )*
        }

        /// One server for all of them, a database for each.
        #[test]
        fn postgres_keeps_the_whole_contract() {
            let Some(server) = Server::start() else { return };
            $(
                let started = Instant::now();
                block_on($case(Site::Postgres(server.database(stringify!($case)))));
                println!("held in {:?}: {}", started.elapsed(), stringify!($case));
            )*
            block_on(a_lost_connection_is_made_anew(Site::Postgres(server.database("a_lost_connection"))));
            server.database("tls");
            block_on(tls_is_made_and_checked(server.over_tls("tls", true), server.over_tls("tls", false)));
            block_on(daemons_that_start_together_make_one_schema(Site::Postgres(server.database("together"))));
        }
    };
}

contract! {
    a_file_is_made_once
    a_file_changes_only_from_the_version_that_was_seen
    folders_are_ranges_and_never_touch_their_neighbours
    listing_a_folder_skips_what_is_below_and_pages
    a_rename_takes_the_row_or_all_below_with_it
    a_rename_in_odd_alphabets_cuts_at_characters
    usage_is_never_passed_and_never_negative
    sixty_four_race_for_room_for_ten
    a_hundred_writers_share_one_hot_folder
    nodes_that_cross_each_other_stay_exact
    a_failed_guard_undoes_its_own_batch_only
    intents_come_back_in_order_until_cleared
    accounts_and_spaces_come_back_as_they_were
    a_name_is_one_kind_of_account
    sessions_and_locks_end_by_themselves
    a_lock_has_one_holder
    a_commit_passes_only_where_no_unknown_lock_is
    properties_go_where_their_file_goes
    the_history_is_one_chain_and_tampering_shows
    the_history_can_be_filtered
    two_processes_under_one_name_keep_one_chain
    nodes_have_chains_and_intents_of_their_own
    a_newer_format_is_refused
    closing_and_opening_keeps_everything
    the_version_changes_by_what_others_commit
    a_stop_midway_leaves_all_or_nothing
    a_mail_folder_is_numbered_by_one_at_a_time
    deliveries_are_followed_and_forgotten
    aliases_come_back_as_they_were
    uploads_are_closed_once_and_receipts_kept_once
}

fn block_on(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(case);
}

fn file(path: &str, size: u64) -> FileRow {
    FileRow { space: "/s".into(), path: path.into(), size, modified: 7, version: 1, owner: "ann".into(), sha256: None }
}

fn put(path: &str, size: u64) -> Edit {
    Edit::PutFile(file(path, size), Expect::Absent)
}

fn charge(bytes: i64, files: i64, max_bytes: Option<u64>, max_files: Option<u64>) -> Edit {
    Edit::Usage { space: "/s".into(), bytes, files, max_bytes, max_files }
}

fn line(verb: &str, path: &str) -> HistoryLine {
    HistoryLine {
        at: 1_000_000,
        door: "ftp".into(),
        account: "ann".into(),
        address: "10.0.0.1".into(),
        verb: verb.into(),
        path: path.into(),
        bytes: 3,
        result: "ok".into(),
        ..HistoryLine::default()
    }
}

async fn a_file_is_made_once(site: Site) {
    let open = site.open().await;
    let mut row = file("a/b.pdf", 5);
    row.sha256 = Some([9; 32]);
    open.must([Edit::PutFile(row.clone(), Expect::Absent)]).await;
    assert_eq!(open.catalog.file("/s", "a/b.pdf").await.expect("read"), Some(row.clone()));
    assert_eq!(open.refused([put("a/b.pdf", 6)]).await, Kind::Conflict);
    assert_eq!(open.catalog.file("/s", "a/b.pdf").await.expect("read"), Some(row));
    assert_eq!(open.catalog.file("/t", "a/b.pdf").await.expect("read"), None);
}

async fn a_file_changes_only_from_the_version_that_was_seen(site: Site) {
    let open = site.open().await;
    assert_eq!(open.refused([Edit::PutFile(file("a", 1), Expect::Version(1))]).await, Kind::Conflict);
    open.must([put("a", 1)]).await;
    open.must([Edit::PutFile(file("a", 2), Expect::Version(1))]).await;
    assert_eq!(open.refused([Edit::PutFile(file("a", 3), Expect::Version(1))]).await, Kind::Conflict);
    let row = open.catalog.file("/s", "a").await.expect("read").expect("there");
    assert_eq!((row.size, row.version), (2, 2));
    let remove = |version| Edit::RemoveFile { space: "/s".into(), path: "a".into(), version };
    assert_eq!(open.refused([remove(1)]).await, Kind::Conflict);
    open.must([remove(2)]).await;
    assert_eq!(open.catalog.file("/s", "a").await.expect("read"), None);
}

async fn folders_are_ranges_and_never_touch_their_neighbours(site: Site) {
    let open = site.open().await;
    let names = ["a", "a!b", "a-b/c", "a/1", "a/2/x", "a/%", "a/_", "a0", "aa/1", "A/1", "ä/1", "\u{10ffff}z"];
    open.must(names.map(|name| put(name, 10))).await;
    assert_eq!(open.paths("a").await, ["a/%", "a/1", "a/2/x", "a/_"]);
    assert_eq!(open.catalog.sum_below("/s", "a").await.expect("sum"), Usage { bytes: 40, files: 4 });
    assert_eq!(open.catalog.sum_below("/s", "").await.expect("sum"), Usage { bytes: 120, files: 12 });
    let mut sorted = names.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(open.paths("").await, sorted, "byte order, whatever the locale of the database");
    open.must([Edit::RemoveFolder { space: "/s".into(), folder: "a".into() }]).await;
    sorted.retain(|name| !name.starts_with("a/"));
    assert_eq!(open.paths("").await, sorted);
    open.must([Edit::RemoveFolder { space: "/s".into(), folder: String::new() }]).await;
    assert!(open.paths("").await.is_empty());
}

async fn listing_a_folder_skips_what_is_below_and_pages(site: Site) {
    let open = site.open().await;
    let deep = (0..300).map(|n| put(&format!("in/m{:02}/{n:03}", n % 3), 1));
    let direct = ["in/a", "in/m00.txt", "in/m01", "in/zz", "outside"].map(|name| put(name, 1));
    open.must(deep.chain(direct)).await;
    let mut seen = Vec::new();
    let mut after = String::new();
    while let Some(row) = open.catalog.files_in("/s", "in", &after, 1).await.expect("read").pop() {
        after.clone_from(&row.path);
        seen.push(row.path);
    }
    assert_eq!(seen, ["in/a", "in/m00.txt", "in/m01", "in/zz"]);
    let all = open.catalog.files_in("/s", "in", "", 100).await.expect("read");
    assert_eq!(all.into_iter().map(|row| row.path).collect::<Vec<_>>(), seen);
    let root = open.catalog.files_in("/s", "", "", 100).await.expect("read");
    assert_eq!(root.into_iter().map(|row| row.path).collect::<Vec<_>>(), ["outside"]);
    let page = open.catalog.files_below("/s", "in", "in/m02/296", 2).await.expect("read");
    assert_eq!(page.into_iter().map(|row| row.path).collect::<Vec<_>>(), ["in/m02/299", "in/zz"]);
}

async fn a_rename_takes_the_row_or_all_below_with_it(site: Site) {
    let open = site.open().await;
    let rename = |from: &str, to: &str| Edit::MoveFiles { space: "/s".into(), from: from.into(), to: to.into() };
    open.must(["a/1", "a/b/2", "ab", "f", "g"].map(|name| put(name, 1))).await;
    open.must([rename("a", "new/a")]).await;
    assert_eq!(open.paths("").await, ["ab", "f", "g", "new/a/1", "new/a/b/2"]);
    open.must([rename("f", "g")]).await;
    assert_eq!(open.paths("").await, ["ab", "g", "new/a/1", "new/a/b/2"]);
    open.must([rename("g", "g")]).await;
    open.must([rename("new/a/b", "b")]).await;
    assert_eq!(open.paths("").await, ["ab", "b/2", "g", "new/a/1"]);
}

async fn a_rename_in_odd_alphabets_cuts_at_characters(site: Site) {
    let open = site.open().await;
    open.must([put("größe/日本/🎥.mp4", 1)]).await;
    let (from, to) = ("größe/日本".into(), "é🎬".into());
    open.must([Edit::MoveFiles { space: "/s".into(), from, to }]).await;
    assert_eq!(open.paths("").await, ["é🎬/🎥.mp4"]);
}

async fn usage_is_never_passed_and_never_negative(site: Site) {
    let open = site.open().await;
    let usage = || async { open.catalog.usage("/s").await.expect("read") };
    assert_eq!(usage().await, Usage::default());
    assert_eq!(open.refused([charge(11, 1, Some(10), None)]).await, Kind::OverQuota);
    assert_eq!(open.refused([charge(1, 1, None, Some(0))]).await, Kind::OverQuota);
    assert_eq!(usage().await, Usage::default());
    open.must([charge(10, 1, Some(10), Some(1))]).await;
    assert_eq!(open.refused([charge(1, 0, Some(10), None)]).await, Kind::OverQuota);
    assert_eq!(open.refused([charge(0, 1, None, Some(1))]).await, Kind::OverQuota);
    // The limit was lowered below what is there: giving back still works, and so does replacing by something smaller.
    open.must([charge(-4, 0, Some(2), Some(0))]).await;
    assert_eq!(usage().await, Usage { bytes: 6, files: 1 });
    open.must([charge(-100, -100, None, None)]).await;
    assert_eq!(usage().await, Usage::default());
    open.must([Edit::SetUsage { space: "/s".into(), bytes: 77, files: 3 }]).await;
    assert_eq!(usage().await, Usage { bytes: 77, files: 3 });
    open.must([Edit::Usage { space: "/new".into(), bytes: -5, files: -1, max_bytes: None, max_files: None }]).await;
    assert_eq!(open.catalog.usage("/new").await.expect("read"), Usage::default());
}

async fn sixty_four_race_for_room_for_ten(site: Site) {
    let open = Arc::new(site.open().await);
    let other = Arc::new(site.open_as("two").await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let open = if n % 2 == 0 { open.clone() } else { other.clone() };
        let edits =
            [put(&format!("f{n}"), 100), charge(100, 1, Some(1099), Some(50)), Edit::History(line("create", "/"))];
        tasks.spawn(async move { open.commit(edits).await.map_err(|error| error.kind()) });
    }
    let outcomes = tasks.join_all().await;
    let held = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let full = outcomes.iter().filter(|outcome| **outcome == Err(Kind::OverQuota)).count();
    assert_eq!((held, full), (10, 54));
    let counted = open.catalog.usage("/s").await.expect("read");
    assert_eq!(counted, Usage { bytes: 1000, files: 10 });
    assert_eq!(open.catalog.sum_below("/s", "").await.expect("read"), counted);
    assert_eq!(open.catalog.verify_history().await.expect("read").lines, 10);
}

async fn a_hundred_writers_share_one_hot_folder(site: Site) {
    let open = Arc::new(site.open().await);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..100 {
        let open = open.clone();
        tasks.spawn(async move {
            for n in 0..10 {
                let path = format!("hot/{writer}-{n}");
                let edits = [put(&path, 1), charge(1, 1, Some(1_000_000), None), Edit::History(line("create", &path))];
                open.must(edits).await;
            }
        });
    }
    tasks.join_all().await;
    println!("1000 commits of 100 writers: {:?}", started.elapsed());
    assert_eq!(open.catalog.usage("/s").await.expect("read"), Usage { bytes: 1000, files: 1000 });
    assert_eq!(open.paths("hot").await.len(), 1000);
    let verified = open.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken.len()), (1000, 0));
}

/// Two nodes charge the same two spaces in opposite orders: a deadlock where rows are locked one by one.
async fn nodes_that_cross_each_other_stay_exact(site: Site) {
    let nodes = [Arc::new(site.open().await), Arc::new(site.open_as("two").await)];
    let charge = |space: &str| Edit::Usage {
        space: space.into(),
        bytes: 1,
        files: 1,
        max_bytes: Some(1_000_000),
        max_files: None,
    };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let open = nodes[n % 2].clone();
        let edits = if n % 2 == 0 { [charge("/a"), charge("/b")] } else { [charge("/b"), charge("/a")] };
        let edits = edits.into_iter().chain([Edit::History(line("create", "/"))]).collect::<Vec<_>>();
        tasks.spawn(async move { open.commit(edits).await.map_err(|error| error.kind()) });
    }
    let outcomes = tasks.join_all().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Kind::Conflict))), "{outcomes:?}");
    let held = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
    assert!(held > 100, "only {held} of 200 held");
    for space in ["/a", "/b"] {
        let counted = nodes[0].catalog.usage(space).await.expect("read");
        assert_eq!(counted, Usage { bytes: held, files: held });
    }
    let verified = nodes[1].catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken), (held, Vec::new()));
}

async fn a_failed_guard_undoes_its_own_batch_only(site: Site) {
    let open = Arc::new(site.open().await);
    open.must([put("taken", 1)]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let open = open.clone();
        tasks.spawn(async move {
            // Every third batch does all of its work before its last edit fails.
            let last = if n % 3 == 0 { put("taken", 9) } else { put(&format!("late{n}"), 9) };
            let early = [put(&format!("early{n}"), 1), charge(1, 1, None, None), Edit::History(line("create", "/x"))];
            open.commit(early.into_iter().chain([last])).await.is_ok()
        });
    }
    let held = tasks.join_all().await.into_iter().filter(|held| *held).count();
    assert_eq!(held, 40);
    assert_eq!(open.paths("").await.len(), 81);
    assert_eq!(open.catalog.usage("/s").await.expect("read"), Usage { bytes: 40, files: 40 });
    let verified = open.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken.len()), (40, 0));
}

async fn intents_come_back_in_order_until_cleared(site: Site) {
    let open = site.open().await;
    let intent = |id: i64, body: Option<Bytes>| {
        Edit::Intent(IntentRow { id, space: "/s".into(), change: format!("{{\"n\":{id}}}"), body })
    };
    let large = Bytes::from(vec![0xa5; 64 * 1024]);
    open.must([intent(30, Some(large.clone())), intent(10, None), intent(20, Some(Bytes::new()))]).await;
    let found = open.catalog.intents(0, 100).await.expect("read");
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [10, 20, 30]);
    assert_eq!(found[2].body.as_ref(), Some(&large));
    assert_eq!((found[0].body.as_ref(), found[1].body.as_ref()), (None, Some(&Bytes::new())));
    assert_eq!(open.refused([intent(10, None)]).await, Kind::Conflict);
    open.must((100..117).map(|id| intent(id, None))).await;
    assert_eq!(open.catalog.intents(0, 5).await.expect("read").len(), 5);
    open.must([Edit::ClearIntents((100..117).chain([10, 30, 555]).collect()), Edit::ClearIntents(Vec::new())]).await;
    let left = open.catalog.intents(0, 100).await.expect("read");
    assert_eq!(left.into_iter().map(|row| row.id).collect::<Vec<_>>(), [20]);
    assert!(open.catalog.intents(20, 100).await.expect("read").is_empty());
}

async fn accounts_and_spaces_come_back_as_they_were(site: Site) {
    let open = site.open().await;
    let mut ann = AccountRow {
        name: "ann".into(),
        kind: AccountKind::User,
        password_hash: "$argon2id$x".into(),
        groups: vec!["staff".into(), "quoted \"name\"".into()],
        root: "/".into(),
        disabled: true,
        ..AccountRow::default()
    };
    let camera = AccountRow {
        name: "camera".into(),
        kind: AccountKind::Device,
        networks: vec!["10.0.0.0/8".into()],
        protocols: vec!["ftp".into()],
        folder: "/cameras/1".into(),
        ..AccountRow::default()
    };
    open.must([Edit::PutAccount(camera.clone()), Edit::PutAccount(ann.clone())]).await;
    assert_eq!(open.catalog.accounts().await.expect("read"), [ann.clone(), camera.clone()]);
    ann.disabled = false;
    ann.groups.clear();
    open.must([Edit::PutAccount(ann.clone())]).await;
    assert_eq!(open.catalog.accounts().await.expect("read"), [ann, camera]);
    open.must([Edit::RemoveAccount("ann".into())]).await;
    assert_eq!(open.refused([Edit::RemoveAccount("ann".into())]).await, Kind::NotFound);

    let grant = |to: &str, allow: &str| GrantRow { to: to.into(), allow: allow.into() };
    let mut scans = SpaceRow {
        path: "/scans".into(),
        max_bytes: Some(50 << 30),
        overwrite: "replace".into(),
        address: "scans".into(),
        durable: true,
        grants: vec![grant("group:staff", "edit"), grant("everyone", "view"), grant("user:ann", "own")],
        ..SpaceRow::default()
    };
    let other = SpaceRow { path: "/other".into(), max_files: Some(3), ..SpaceRow::default() };
    open.must([Edit::PutSpace(scans.clone()), Edit::PutSpace(other.clone())]).await;
    scans.grants.remove(0);
    scans.durable = false;
    open.must([Edit::PutSpace(scans.clone())]).await;
    assert_eq!(open.catalog.spaces().await.expect("read"), [other.clone(), scans]);
    open.must([Edit::RemoveSpace("/scans".into())]).await;
    assert_eq!(open.refused([Edit::RemoveSpace("/scans".into())]).await, Kind::NotFound);
    assert_eq!(open.catalog.spaces().await.expect("read"), [other]);
    assert!(open.ask("SELECT space FROM grants", Vec::new()).await.is_empty());
}

async fn a_name_is_one_kind_of_account(site: Site) {
    let open = site.open().await;
    let account = |kind| Edit::PutAccount(AccountRow { name: "x".into(), kind, ..AccountRow::default() });
    open.must([account(AccountKind::User)]).await;
    assert_eq!(open.refused([account(AccountKind::Group)]).await, Kind::Exists);
}

async fn sessions_and_locks_end_by_themselves(site: Site) {
    let open = site.open().await;
    let session = |n: u8, account: &str, expires| SessionRow {
        token: [n; 32],
        account: account.into(),
        created: 1,
        expires,
        address: "::1".into(),
        generation: [7; 32],
    };
    open.must([session(1, "ann", 100), session(2, "ann", 200), session(3, "bob", 300)].map(Edit::PutSession)).await;
    assert_eq!(open.catalog.session([2; 32], 150).await.expect("read"), Some(session(2, "ann", 200)));
    assert_eq!(open.catalog.session([1; 32], 100).await.expect("read"), None, "past its time");
    assert_eq!(open.catalog.session([9; 32], 0).await.expect("read"), None);
    open.must([Edit::PutSession(session(2, "ann", 900)), Edit::Expire(100)]).await;
    assert_eq!(open.ask("SELECT account FROM sessions", Vec::new()).await.len(), 2);
    open.must([Edit::RemoveSession([3; 32]), Edit::RemoveSession([77; 32])]).await;
    open.must([Edit::RemoveSessionsOf("ann".into())]).await;
    assert!(open.ask("SELECT account FROM sessions", Vec::new()).await.is_empty());
}

async fn a_lock_has_one_holder(site: Site) {
    const FAR: i64 = i64::MAX;
    let open = Arc::new(site.open().await);
    let other = Arc::new(site.open_as("two").await);
    let lock = |token: &str, path: &str, deep, shared, expires| LockRow {
        token: token.into(),
        path: path.into(),
        deep,
        shared,
        account: "ann".into(),
        owner: "<D:href>x</D:href>".into(),
        expires,
    };
    let deep = |token: &str, path: &str| Edit::PutLock(lock(token, path, true, false, FAR), Vec::new());
    let plain = |token: &str, path: &str| Edit::PutLock(lock(token, path, false, false, FAR), Vec::new());
    let shared = |token: &str, path: &str| Edit::PutLock(lock(token, path, false, true, FAR), Vec::new());
    open.must([deep("t1", "/a/b")]).await;
    for (path, wide) in [("/a/b", false), ("/a/b/c/d/e/f/g/h/i/j", false), ("/a", true), ("/", true), ("/a/b", true)] {
        let wanted = if wide { deep("t2", path) } else { plain("t2", path) };
        assert_eq!(open.refused([wanted]).await, Kind::Locked, "{path}");
    }
    open.must([plain("t3", "/a"), plain("t4", "/a/bc"), Edit::PutLock(lock("t5", "/b", true, false, 5), Vec::new())])
        .await;
    open.must([shared("t6", "/b"), shared("t7", "/b")]).await;
    assert_eq!(open.refused([plain("t8", "/b")]).await, Kind::Locked, "not beside shared ones");
    assert_eq!(open.refused([shared("t8", "/a/b/x")]).await, Kind::Locked, "nor a shared one beside it");
    let held: Vec<_> = open.catalog.locks(10).await.expect("read").into_iter().map(|row| row.token).collect();
    assert_eq!(held, ["t3", "t1", "t4", "t6", "t7"]);
    open.must([Edit::RefreshLock { token: "t1".into(), expires: FAR - 1 }]).await;
    assert_eq!(open.catalog.locks(FAR - 2).await.expect("read")[1], lock("t1", "/a/b", true, false, FAR - 1));
    assert_eq!(open.refused([Edit::RefreshLock { token: "t5".into(), expires: FAR }]).await, Kind::NotFound, "over");
    open.must([Edit::RemoveLock("t1".into()), Edit::RemoveLock("unknown".into())]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let open = if n % 2 == 0 { open.clone() } else { other.clone() };
        let edit = deep(&format!("racer{n}"), "/race");
        tasks.spawn(async move { open.commit([edit]).await.is_ok() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
    open.must([Edit::Expire(FAR)]).await;
    assert!(open.catalog.locks(0).await.expect("read").is_empty());
}

async fn a_commit_passes_only_where_no_unknown_lock_is(site: Site) {
    let open = site.open().await;
    let lock = |token: &str, path: &str, deep| {
        let row = LockRow { token: token.into(), path: path.into(), deep, expires: i64::MAX, ..LockRow::default() };
        Edit::PutLock(row, Vec::new())
    };
    open.must([lock("top", "/a", true), lock("plain", "/p", false), lock("leaf", "/x/y/z", false)]).await;
    let guard = |path: &str, member, below, known: &[&str]| {
        let known = known.iter().map(ToString::to_string).collect();
        Edit::Unlocked(LockGuard { path: path.into(), member, below, known })
    };
    let mut number = 0;
    for (path, member, below, known, passes) in [
        ("/a", false, false, &[][..], false),
        ("/a/1/2/3/4/5/6/7/8/9", false, false, &[], false),
        ("/a/1/2/3/4/5/6/7/8/9", false, false, &["top"], true),
        ("/ab", true, true, &[], true),
        ("/p/file", false, false, &[], true),
        ("/p/file", true, false, &[], false),
        ("/p/file", true, false, &["top", "plain"], true),
        ("/p/file/deeper", true, false, &[], true),
        ("/x", true, false, &[], true),
        ("/x", true, true, &[], false),
        ("/x", true, true, &["leaf"], true),
        ("/", false, true, &["top", "plain"], false),
        ("/", false, true, &["top", "plain", "leaf"], true),
    ] {
        number += 1;
        let edits = [put(&format!("n{number}"), 1), guard(path, member, below, known)];
        let outcome = open.commit(edits).await.map_err(|error| error.kind());
        assert_eq!(outcome, if passes { Ok(()) } else { Err(Kind::Locked) }, "{path} {member} {below} {known:?}");
        assert_eq!(open.paths("").await.contains(&format!("n{number}")), passes, "whole or not at all");
    }
}

async fn properties_go_where_their_file_goes(site: Site) {
    let open = site.open().await;
    let set = |path: &str, name: &str, value: &str| {
        let (path, name, value) = (path.into(), name.into(), value.into());
        Edit::Property(PropertyEdit::Put { space: "/s".into(), path, name, value })
    };
    let names = async |path: &str| {
        let rows = open.catalog.properties("/s", path).await.expect("read");
        rows.into_iter().map(|row| format!("{}={}", row.name, row.value)).collect::<Vec<_>>()
    };
    open.must([set("", "{}r", "0"), set("d", "{}f", "1"), set("d/a", "{}n", "1"), set("d/a", "{}n", "2")]).await;
    open.must([set("d/a", "{}m", "3"), set("d/é/b", "{}n", "4"), set("dd", "{}n", "5"), set("old", "{}n", "6")]).await;
    assert_eq!(names("d/a").await, ["{}m=3", "{}n=2"]);
    let remove = PropertyEdit::Remove { space: "/s".into(), path: "d/a".into(), name: "{}m".into() };
    open.must([Edit::Property(remove)]).await;
    let inside = open.catalog.properties_in("/s", "d", "d/a", "d/z").await.expect("read");
    assert_eq!(inside.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["d/a"], "not what is deeper");
    let top = open.catalog.properties_in("/s", "", "a", "z").await.expect("read");
    assert_eq!(top.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["d", "dd", "old"], "not the root itself");

    let copy = PropertyEdit::Copy { from: ("/s".into(), "d/a".into()), to: ("/t".into(), "c".into()) };
    open.must([Edit::Property(copy)]).await;
    assert_eq!(open.catalog.properties("/t", "c").await.expect("read").len(), 1);
    open.must([Edit::MoveFiles { space: "/s".into(), from: "d".into(), to: "old".into() }]).await;
    assert_eq!((names("d").await.len(), names("old").await, names("dd").await.len()), (0, vec!["{}f=1".into()], 1));
    assert_eq!((names("old/a").await, names("old/é/b").await), (vec!["{}n=2".to_owned()], vec!["{}n=4".to_owned()]));
    let inside = open.catalog.properties_in("/s", "old/é", "old/é/a", "old/é/z").await.expect("read");
    assert_eq!(inside.len(), 1, "the folder it is in followed too");

    open.must([put("old/a", 1)]).await;
    open.must([Edit::RemoveFile { space: "/s".into(), path: "old/a".into(), version: 1 }]).await;
    assert!(names("old/a").await.is_empty());
    open.must([Edit::RemoveFolder { space: "/s".into(), folder: "old".into() }]).await;
    assert_eq!((names("old").await.len(), names("old/é/b").await.len(), names("dd").await.len()), (0, 0, 1));
}

async fn the_history_is_one_chain_and_tampering_shows(site: Site) {
    let open = site.open().await;
    open.must([Edit::History(line("create", "/a")), Edit::History(line("delete", "/a\0b"))]).await;
    open.must((0..1500).map(|n| Edit::History(line("create", &format!("/many/{n}"))))).await;
    let verified = open.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken), (1502, Vec::new()));
    let lines = open.catalog.history(&HistoryFilter { limit: 3, ..HistoryFilter::default() }).await.expect("read");
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [1500, 1501, 1502]);
    assert_eq!((lines[1].prev, lines[1].hash), (lines[0].hash, lines[1].digest()));
    for (tamper, mend) in [
        ("UPDATE history SET account = 'eve' WHERE seq = 700", "UPDATE history SET account = 'ann' WHERE seq = 700"),
        ("UPDATE history SET seq = 9999 WHERE seq = 700", "UPDATE history SET seq = 700 WHERE seq = 9999"),
        ("UPDATE history SET bytes = -3 WHERE seq = 700", "UPDATE history SET bytes = 3 WHERE seq = 700"),
    ] {
        open.tamper(tamper).await;
        assert_eq!(open.catalog.verify_history().await.expect("read").broken, [("one".to_owned(), 700)], "{tamper}");
        open.tamper(mend).await;
        assert!(open.catalog.verify_history().await.expect("read").broken.is_empty(), "{mend}");
    }
    open.tamper("DELETE FROM history WHERE seq = 1").await;
    assert_eq!(open.catalog.verify_history().await.expect("read").broken, [("one".to_owned(), 1)]);
}

async fn the_history_can_be_filtered(site: Site) {
    let open = site.open().await;
    let mut by_bob = line("create", "/scans/2026/a.pdf");
    by_bob.account = "bob".into();
    by_bob.door = "http".into();
    by_bob.at = 5;
    let others = [line("create", "/scans"), line("create", "/scans2/b"), line("delete", "/scans/c")];
    open.must(others.map(Edit::History).into_iter().chain([Edit::History(by_bob)])).await;
    let paths = |filter: HistoryFilter| {
        let open = &open;
        async move {
            let lines = open.catalog.history(&filter).await.expect("read");
            lines.into_iter().map(|line| line.path).collect::<Vec<_>>()
        }
    };
    let filter = HistoryFilter { limit: 100, ..HistoryFilter::default() };
    assert_eq!(
        paths(HistoryFilter { path: Some("/scans/".into()), ..filter.clone() }).await,
        ["/scans/2026/a.pdf", "/scans", "/scans/c"],
        "oldest first, by time"
    );
    assert_eq!(paths(HistoryFilter { path: Some("/".into()), ..filter.clone() }).await.len(), 4);
    assert_eq!(paths(HistoryFilter { account: Some("bob".into()), ..filter.clone() }).await, ["/scans/2026/a.pdf"]);
    assert_eq!(paths(HistoryFilter { door: Some("ftp".into()), limit: 1, ..filter }).await, ["/scans/c"]);
}

async fn two_processes_under_one_name_keep_one_chain(site: Site) {
    let daemon = site.open().await;
    let command = site.open().await;
    for round in 0..5 {
        daemon.must([Edit::History(line("create", "/daemon")), Edit::History(line("create", "/daemon"))]).await;
        command.must([put(&format!("f{round}"), 1), Edit::History(line("user", "/command"))]).await;
    }
    let verified = daemon.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken), (15, Vec::new()));
    assert_eq!(daemon.paths("").await.len(), 5);
}

async fn nodes_have_chains_and_intents_of_their_own(site: Site) {
    let one = site.open().await;
    let two = site.open_as("two").await;
    let intent = IntentRow { id: 1, space: "/s".into(), change: "{}".into(), body: None };
    for open in [&one, &two, &one] {
        open.must([Edit::History(line("create", "/a"))]).await;
    }
    one.must([Edit::Intent(intent.clone())]).await;
    two.must([Edit::Intent(intent), Edit::ClearIntents(vec![1])]).await;
    assert_eq!(one.catalog.intents(0, 9).await.expect("read").len(), 1);
    assert_eq!(two.catalog.intents(0, 9).await.expect("read").len(), 0);
    let lines = two.catalog.history(&HistoryFilter { limit: 9, ..HistoryFilter::default() }).await.expect("read");
    let mut places: Vec<_> = lines.iter().map(|line| (line.node.as_str(), line.seq)).collect();
    places.sort_unstable();
    assert_eq!(places, [("one", 1), ("one", 2), ("two", 1)]);
    assert!(two.catalog.verify_history().await.expect("read").broken.is_empty());
}

async fn a_newer_format_is_refused(site: Site) {
    let open = site.open().await;
    open.tamper("UPDATE meta SET value = '999' WHERE key = 'format'").await;
    drop(open);
    let refused = site.try_open("one").await.err().expect("a newer format must be refused");
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.public().contains("999") && refused.public().contains("newer version"), "{refused}");
}

async fn closing_and_opening_keeps_everything(site: Site) {
    let open = site.open().await;
    open.must([put("a", 5), charge(5, 1, None, None), Edit::History(line("create", "/s/a"))]).await;
    drop(open);
    let open = site.open().await;
    assert_eq!(open.paths("").await, ["a"]);
    open.must([Edit::History(line("delete", "/s/a"))]).await;
    let verified = open.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken), (2, Vec::new()));
}

async fn the_version_changes_by_what_others_commit(site: Site) {
    let one = site.open().await;
    let two = site.open_as("two").await;
    let same_name = site.open().await;
    let start = one.catalog.version().await.expect("a version");
    for n in 0..5 {
        one.must([put(&format!("own{n}"), 1)]).await;
        assert_eq!(one.catalog.version().await.expect("a version"), start, "own commits do not count");
    }
    two.must([put("theirs", 1)]).await;
    let after_two = one.catalog.version().await.expect("a version");
    assert_ne!(after_two, start);
    same_name.must([put("the command line's", 1)]).await;
    assert_ne!(one.catalog.version().await.expect("a version"), after_two);
}

/// One batch at a time until the engine stops; what was acknowledged is there, the last one whole or not at all.
async fn a_stop_midway_leaves_all_or_nothing(site: Site) {
    for (moment, extra) in [(Moment::Before, 0), (Moment::After, 1)] {
        let real = site.open().await;
        real.must([
            Edit::RemoveFolder { space: "/s".into(), folder: String::new() },
            Edit::SetUsage { space: "/s".into(), bytes: 0, files: 0 },
        ])
        .await;
        let countdown = Arc::new(AtomicU64::new(0));
        let faulty = FaultyEngine::new(real.engine.clone(), countdown.clone(), Calls::Commits, Fault::Stop, moment);
        let engine: Arc<dyn Engine> = Arc::new(faulty);
        let broken = Open { catalog: Catalog::new(engine.clone()), engine };
        countdown.store(4, Ordering::SeqCst);
        let mut acknowledged = 0;
        for n in 0..10 {
            let edits = [put(&n.to_string(), 1), charge(1, 1, None, None), Edit::History(line("create", "/s"))];
            acknowledged += u64::from(broken.commit(edits).await.is_ok());
        }
        assert_eq!(acknowledged, 3);
        let read = broken.catalog.usage("/s").await.expect_err("a stopped engine answers nothing");
        assert_eq!(read.kind(), Kind::Unavailable);
        drop((broken, real));
        let open = site.open().await;
        let counted = open.catalog.usage("/s").await.expect("read");
        assert_eq!(counted, Usage { bytes: 3 + extra, files: 3 + extra });
        assert_eq!(open.catalog.sum_below("/s", "").await.expect("read"), counted);
        assert!(open.catalog.verify_history().await.expect("read").broken.is_empty());
    }
}

/// The server ends every connection of a node; what comes next works again, on new ones, with one chain.
async fn a_lost_connection_is_made_anew(site: Site) {
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stoa one'";
    let open = site.open().await;
    let other = site.open_as("two").await;
    open.must([put("before", 1), Edit::History(line("create", "/before"))]).await;
    assert_eq!(open.paths("").await.len(), 1);
    assert!(!other.ask(END, Vec::new()).await.is_empty());
    let mut tries = 0;
    while let Err(error) = open.commit([put("after", 1), Edit::History(line("create", "/after"))]).await {
        tries += 1;
        assert!(error.kind() == Kind::Unavailable && tries < 10, "{error:?}");
    }
    assert_eq!(open.paths("").await, ["after", "before"]);
    let verified = open.catalog.verify_history().await.expect("read");
    assert_eq!((verified.lines, verified.broken), (2, Vec::new()));
    let unreachable = Site::Postgres("postgres://postgres@%2Fnonexistent/x".to_owned());
    assert_eq!(unreachable.try_open("one").await.err().expect("nobody is there").kind(), Kind::Unavailable);
}

async fn tls_is_made_and_checked(trusted: String, stranger: String) {
    let open = Site::Postgres(trusted).open().await;
    open.must([put("a", 1)]).await;
    let secured = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND application_name = 'stoa one'";
    assert_eq!(open.ask(secured, Vec::new()).await, [[Value::Int(2)]], "the committer and one reader");
    let refused = Site::Postgres(stranger).try_open("one").await.err().expect("an unknown certificate");
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.detail().contains("certificate"), "{refused:?}");
}

async fn daemons_that_start_together_make_one_schema(site: Site) {
    let site = Arc::new(site);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let site = site.clone();
        tasks.spawn(async move { site.try_open(&format!("node{n}")).await.map(drop) });
    }
    for outcome in tasks.join_all().await {
        outcome.expect("each of them opens");
    }
    site.open().await.must([put("works", 1)]).await;
}

fn numbered(folder: &str, next: u32, modseq: i64, seen: Option<i64>) -> Edit {
    let row = MailFolderRow { space: "/mail/bob".into(), folder: folder.into(), validity: 7, next, modseq };
    Edit::Mail(MailEdit::PutFolder { row, seen })
}

fn message(uid: u32, name: &str, gone: i64) -> MessageRow {
    MessageRow {
        space: "/mail/bob".into(),
        uid,
        name: name.into(),
        flags: "S".into(),
        size: 5,
        gone,
        ..MessageRow::default()
    }
}

async fn a_mail_folder_is_numbered_by_one_at_a_time(site: Site) {
    let open = site.open().await;
    let put = |row: MessageRow| Edit::Mail(MailEdit::PutMessage(row));
    open.must([numbered("", 3, 1, None), put(message(1, "a", 0)), put(message(2, "b", 0))]).await;
    // Who has not seen what is there now must look again; nothing of his batch stays.
    for edit in [numbered("", 9, 1, None), numbered("", 9, 1, Some(0))] {
        assert_eq!(open.refused([put(message(9, "x", 0)), edit]).await, Kind::Conflict);
    }
    open.must([numbered("", 3, 2, Some(1)), put(message(1, "a", 44)), numbered(".Sent", 1, 1, None)]).await;
    let rows = |gone| open.catalog.messages("/mail/bob", "", 0, 10, gone);
    assert_eq!(rows(false).await.expect("read"), [message(2, "b", 0)]);
    assert_eq!(rows(true).await.expect("read"), [message(1, "a", 44), message(2, "b", 0)]);
    assert!(open.catalog.messages("/mail/bob", "", 2, 10, true).await.expect("read").is_empty());
    let folder = open.catalog.mail_folder("/mail/bob", "").await.expect("read").expect("a folder");
    assert_eq!((folder.validity, folder.next, folder.modseq), (7, 3, 2));
    let forget = |gone| Edit::Mail(MailEdit::Forget { gone, message: String::new() });
    open.must([forget(44)]).await;
    assert_eq!(rows(true).await.expect("read").len(), 2);
    open.must([forget(45)]).await;
    assert_eq!(rows(true).await.expect("read"), [message(2, "b", 0)]);
    open.must([Edit::Mail(MailEdit::RemoveFolder { space: "/mail/bob".into(), folder: String::new() })]).await;
    assert!(rows(true).await.expect("read").is_empty());
    let folders = open.catalog.mail_folders("/mail/bob").await.expect("read");
    assert_eq!(folders.into_iter().map(|row| row.folder).collect::<Vec<_>>(), [".Sent"]);
}

async fn deliveries_are_followed_and_forgotten(site: Site) {
    let open = site.open().await;
    let row = |message: &str, place, mark: Option<[u8; 16]>| DeliveryRow {
        message: message.into(),
        place,
        at: 5,
        sender: "Me@Else.where".into(),
        recipient: format!("Bob+{place}@example.org"),
        target: format!("/mail/{place}"),
        bytes: 9,
        changed: 5,
        mark,
        ..DeliveryRow::default()
    };
    let put = |row: DeliveryRow| Edit::Mail(MailEdit::PutDelivery(row));
    let all = [row("0a", 0, Some([1; 16])), row("0a", 1, None), row("0b", 0, Some([255; 16]))];
    open.must(all.clone().map(put)).await;
    assert_eq!(open.catalog.deliveries("0a", 9).await.expect("read"), &all[..2]);
    let none = ["by way of x;".to_owned(), "by way of y;".to_owned()];
    assert_eq!(open.catalog.deliveries_with("bob+0@example.org", "bob+0", &none, 9).await.expect("read").len(), 2);
    assert_eq!(
        open.catalog.deliveries_with("me@else.where", "me@else.where", &none, 2).await.expect("read")[0],
        all[2],
        "the newest first"
    );
    let marks = async |since: &str, before: (&str, i64)| {
        let rows = open.catalog.marks(since, before, 9).await.expect("read");
        rows.into_iter().map(|row| (row.message, row.mark[0])).collect::<Vec<_>>()
    };
    assert_eq!(marks("", ("~", 0)).await, [("0b".to_owned(), 255), ("0a".to_owned(), 1)]);
    assert_eq!(marks("", ("0b", 0)).await, [("0a".to_owned(), 1)]);
    assert_eq!(marks("0a", ("~", 0)).await, [("0b".to_owned(), 255)]);
    assert!(open.catalog.is_marked([1; 16], "0").await.expect("read"));
    assert!(!open.catalog.is_marked([1; 16], "0a").await.expect("read"));
    assert!(!open.catalog.is_marked([9; 16], "0").await.expect("read"));
    let fetched = |target: &str| Edit::Mail(MailEdit::Fetched { message: "0a".into(), target: target.into(), at: 8 });
    open.must([fetched("/mail/1"), fetched("/nowhere")]).await;
    open.must([Edit::Mail(MailEdit::Fetched { message: "0a".into(), target: "/mail/1".into(), at: 99 })]).await;
    let rows = open.catalog.deliveries("0a", 9).await.expect("read");
    let states: Vec<_> = rows.iter().map(|row| (row.state, row.changed)).collect();
    assert_eq!(states, [(DeliveryState::Stored, 5), (DeliveryState::Fetched, 8)]);
    open.must([Edit::Mail(MailEdit::Forget { gone: 0, message: "0b".into() })]).await;
    assert!(open.catalog.deliveries("0a", 9).await.expect("read").is_empty());
    assert_eq!(open.catalog.deliveries("0b", 9).await.expect("read").len(), 1);
}

async fn aliases_come_back_as_they_were(site: Site) {
    let open = site.open().await;
    let alias = |address: &str, targets: &[&str]| AliasRow {
        address: address.into(),
        targets: targets.iter().map(ToString::to_string).collect(),
        post: "anyone".into(),
    };
    let put = |row: AliasRow| Edit::Mail(MailEdit::PutAlias(row));
    open.must([put(alias("info", &["bob", "group:staff"])), put(alias("*@example.org", &["x"]))]).await;
    open.must([put(alias("info", &["\u{e4} \"quoted\""]))]).await;
    let found = open.catalog.aliases().await.expect("read");
    assert_eq!(found, [alias("*@example.org", &["x"]), alias("info", &["\u{e4} \"quoted\""])]);
    open.must([Edit::Mail(MailEdit::RemoveAlias("info".into()))]).await;
    assert_eq!(open.refused([Edit::Mail(MailEdit::RemoveAlias("info".into()))]).await, Kind::NotFound);
}

async fn uploads_are_closed_once_and_receipts_kept_once(site: Site) {
    let open = site.open().await;
    let upload = |edit| Edit::Upload(edit);
    let mut one = UploadRow {
        id: "0a".into(),
        account: "ann".into(),
        kind: UploadKind::Part,
        space: "/in".into(),
        path: "/in/a".into(),
        length: None,
        received: 0,
        expires: 50,
        about: "{}".into(),
    };
    let two = UploadRow { id: "0b".into(), kind: UploadKind::Broken, length: Some(1 << 40), ..one.clone() };
    open.must([upload(UploadEdit::Put(two.clone())), upload(UploadEdit::Put(one.clone()))]).await;
    (one.received, one.length) = (7, Some(9));
    open.must([upload(UploadEdit::Put(one.clone()))]).await;
    assert_eq!(open.catalog.uploads("", 9).await.expect("read"), [one.clone(), two.clone()]);
    assert_eq!(open.catalog.uploads("0a", 9).await.expect("read"), [two]);
    let other = site.open_as("two").await;
    assert_eq!(other.catalog.uploads("", 9).await.expect("read"), [], "stages are each node's own");

    let row = ReceiptRow {
        account: "ann".into(),
        key: "k".into(),
        place: 1,
        request: "PUT /in/a".into(),
        id: "r".into(),
        path: "/in/a (2)".into(),
        bytes: 9,
        modified: 3,
        sha256: Some([7; 32]),
        created: true,
        expires: 100,
    };
    let keep = |row: &ReceiptRow, now| upload(UploadEdit::Receipt { row: row.clone(), now });
    open.must([upload(UploadEdit::Close("0a".into())), keep(&row, 10)]).await;
    assert_eq!(open.refused([upload(UploadEdit::Close("0a".into()))]).await, Kind::Conflict);
    assert_eq!(open.refused([keep(&ReceiptRow { id: "s".into(), ..row.clone() }, 99)]).await, Kind::Conflict);
    let read = |place, now| open.catalog.receipt("ann", "k", place, now);
    assert_eq!(read(1, 99).await.expect("read"), Some(row.clone()));
    assert_eq!((read(0, 99).await.expect("read"), read(1, 100).await.expect("read")), (None, None));
    let next = ReceiptRow { id: "s".into(), sha256: None, created: false, expires: 200, ..row };
    open.must([keep(&next, 100)]).await;
    assert_eq!(read(1, 150).await.expect("read"), Some(next));
    open.must([
        upload(UploadEdit::Expire(200)),
        upload(UploadEdit::Forget("0b".into())),
        upload(UploadEdit::Forget("0b".into())),
    ])
    .await;
    assert_eq!((read(1, 150).await.expect("read"), open.catalog.uploads("", 9).await.expect("read")), (None, vec![]));
}
