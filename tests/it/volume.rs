//! The directory volume: what it promises to the hub, and what a hostile tree cannot make it do.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stoa::error::{Kind, Result};
use stoa::store::fault::volume::{FaultyVolume, VolumeBreak, VolumeFault, VolumePoint};
use stoa::store::volume::directory::Lookups;
use stoa::store::volume::name::canonical;
use stoa::store::{Body, Change, Directory, Node, NodeKind, RelPath, Soaked, StageId, Then, Touched, Volume};
use tempfile::TempDir;
use tokio::time::timeout;

/// A volume in a folder of its own, with something outside that nothing may reach.
struct Place {
    home: TempDir,
    volume: Directory,
}

impl Place {
    fn new(lookups: Lookups) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/secret"), "secret").unwrap();
        let volume =
            Directory::open_with(&home.path().join("tree"), &home.path().join("stage"), true, lookups).unwrap();
        Self { home, volume }
    }

    fn tree(&self, path: &str) -> PathBuf {
        self.home.path().join("tree").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    async fn put(&self, path: &str, body: &'static str) -> Result<Option<Node>> {
        self.volume.publish(&inline(path), Some(Bytes::from_static(body.as_bytes()))).await
    }

    async fn sealed(&self, id: &str, body: &'static str) -> StageId {
        let id = StageId(id.into());
        let mut stage = self.volume.stage(&id).await.unwrap();
        stage.append(Bytes::from_static(body.as_bytes())).await.unwrap();
        stage.seal(None).await.unwrap();
        id
    }

    async fn kind(&self, change: Change) -> Kind {
        self.volume.publish(&change, Some(Bytes::new())).await.unwrap_err().kind()
    }

    fn untouched_outside(&self) {
        let names: Vec<_> = fs::read_dir(self.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.outside().join("secret")).unwrap(), "secret");
    }
}

const BOTH: [Lookups; 2] = [Lookups::Probe, Lookups::Walk];

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn inline(path: &str) -> Change {
    Change::Put { path: rel(path), body: Body::Inline, modified: None }
}

fn staged(path: &str, id: &StageId) -> Change {
    Change::Put { path: rel(path), body: Body::Staged(id.clone()), modified: None }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: rel(from), to: rel(to) }
}

fn names(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

/// Every path below a folder with its content, links shown as themselves.
fn picture(folder: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            lines.insert(format!("{}/", path.display()));
            lines.extend(picture(&path));
        } else if kind.is_file() {
            let content = fs::read_to_string(&path).unwrap();
            lines.insert(format!("{} = {content} @ {}", path.display(), fs::metadata(&path).unwrap().mtime()));
        } else {
            lines.insert(format!("{} ?", path.display()));
        }
    }
    lines
}

#[tokio::test]
async fn a_put_file_is_there_with_its_bytes_time_and_parents() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        let change = Change::Put { path: rel("a/b/c.txt"), body: Body::Inline, modified: Some(-1_500_000) };
        let node = place.volume.publish(&change, Some(Bytes::from_static(b"hello"))).await.unwrap().unwrap();
        assert_eq!((node.name.as_str(), node.size, node.modified), ("c.txt", 5, -1_500_000));
        assert_eq!(place.volume.stat(&rel("a/b/c.txt")).await.unwrap(), node);
        let opened = place.volume.open(&rel("a/b/c.txt")).await.unwrap();
        assert_eq!(opened.node, node);
        assert_eq!(opened.read_at(1, 3).await.unwrap(), "ell");
        assert_eq!(opened.read_at(3, usize::MAX).await.unwrap(), "lo");
        assert_eq!(opened.read_at(9, 9).await.unwrap(), "");
        assert_eq!(fs::metadata(place.tree("a/b/c.txt")).unwrap().mode() & 0o137, 0, "not for others");
        assert_eq!(place.volume.stat(&RelPath::root()).await.unwrap().kind, NodeKind::Folder);
        place.volume.sync(&[change, rename("gone", "gone-too"), inline("never/was")]).await.unwrap();
        assert!(place.volume.room().await.unwrap().free > 0);
    }
}

#[tokio::test]
async fn a_replaced_file_has_another_tag_even_with_the_same_size_and_time() {
    let place = Place::new(Lookups::Probe);
    let mut tags = BTreeSet::new();
    for body in ["one", "two", "six"] {
        let change = Change::Put { path: rel("a"), body: Body::Inline, modified: Some(1_000_000) };
        let old = place.volume.open(&rel("a")).await.ok();
        let node = place.volume.publish(&change, Some(Bytes::from_static(body.as_bytes()))).await.unwrap().unwrap();
        tags.insert(node.tag);
        if let Some(old) = old {
            assert_ne!(old.read_at(0, 3).await.unwrap(), body, "an open file survives its replacement");
        }
        // One tick of the file system's clock, which tells a reused inode from its last life.
        tokio::time::sleep(Duration::from_millis(11)).await;
    }
    assert_eq!(tags.len(), 3);
}

#[tokio::test]
async fn staged_bytes_are_invisible_until_published_and_appendable_after_a_restart() {
    let place = Place::new(Lookups::Probe);
    let id = StageId("0190-up".into());
    let mut stage = place.volume.stage(&id).await.unwrap();
    stage.append(Bytes::from_static(b"hello ")).await.unwrap();
    drop(stage);
    let mut stage = place.volume.stage(&id).await.unwrap();
    assert_eq!(stage.len(), 6);
    stage.append(Bytes::from(vec![b'x'; 300_000])).await.unwrap();
    stage.truncate(6).await.unwrap();
    stage.append(Bytes::from_static(b"world")).await.unwrap();
    assert_eq!(stage.read_at(0, 100).await.unwrap(), "hello world");
    assert_eq!(stage.truncate(99).await.unwrap_err().kind(), Kind::Invalid);
    stage.seal(None).await.unwrap();
    assert_eq!(place.volume.stages().await.unwrap(), std::slice::from_ref(&id));
    assert!(place.volume.list(&RelPath::root(), None, 10).await.unwrap().is_empty());

    let node = place.volume.publish(&staged("x/up", &id), None).await.unwrap().unwrap();
    assert_eq!(node.size, 11);
    assert_eq!(fs::read_to_string(place.tree("x/up")).unwrap(), "hello world");
    assert!(place.volume.stages().await.unwrap().is_empty());
    place.volume.discard(&id).await.unwrap();
}

#[tokio::test]
async fn a_stage_takes_other_files_and_what_a_socket_holds() {
    let place = Place::new(Lookups::Probe);
    place.put("source", "0123456789").await.unwrap();
    let source = place.volume.open(&rel("source")).await.unwrap().file;
    let mut stage = place.volume.stage(&StageId("s".into())).await.unwrap();
    stage.append_file(&source, 4).await.unwrap();
    let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = Arc::new(OwnedFd::from(socket));
    let soaked = stage.soak(&socket, 99).await.unwrap().unwrap();
    assert!(matches!(soaked, Soaked { bytes: 0, then: Then::Dry }), "{soaked:?}");
    (&peer).write_all(b"spliced").unwrap();
    let soaked = stage.soak(&socket, 3).await.unwrap().unwrap();
    assert!(matches!(soaked, Soaked { bytes: 3, then: Then::More }), "{soaked:?}");
    drop(peer);
    let soaked = stage.soak(&socket, 99).await.unwrap().unwrap();
    assert!(matches!(soaked, Soaked { bytes: 4, then: Then::End }), "{soaked:?}");
    assert_eq!(stage.read_at(0, 99).await.unwrap(), "0123spliced");
    assert_eq!(stage.append_file(&source, 11).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!((stage.len(), stage.file().metadata().unwrap().len()), (11, 11));
}

#[tokio::test]
async fn an_append_that_nobody_waited_for_does_not_spoil_the_next() {
    let place = Place::new(Lookups::Probe);
    let mut stage = place.volume.stage(&StageId("s".into())).await.unwrap();
    for _ in 0..20 {
        let big = stage.append(Bytes::from(vec![b'x'; 1 << 20]));
        let _ = timeout(Duration::ZERO, big).await;
        let len = stage.len();
        stage.append(Bytes::from_static(b"kept")).await.unwrap();
        assert_eq!(stage.read_at(len, 4).await.unwrap(), "kept");
    }
    stage.seal(None).await.unwrap();
    assert_eq!(stage.file().metadata().unwrap().len(), stage.len());
}

#[tokio::test]
async fn a_forked_stage_is_published_twice_from_one_copy() {
    let place = Place::new(Lookups::Probe);
    let first = place.sealed("first", "mail").await;
    let second = StageId("second".into());
    place.volume.fork(&first, &second).await.unwrap();
    place.volume.fork(&first, &second).await.unwrap();
    place.volume.publish(&staged("a/new/1", &first), None).await.unwrap().unwrap();
    place.volume.publish(&staged("b/new/1", &second), None).await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(place.tree("a/new/1")).unwrap(), "mail");
    assert_eq!(fs::metadata(place.tree("a/new/1")).unwrap().ino(), fs::metadata(place.tree("b/new/1")).unwrap().ino());
}

#[tokio::test]
async fn stage_names_from_a_tampered_intent_lead_nowhere() {
    let place = Place::new(Lookups::Probe);
    for name in ["../outside/secret", "..", ".own-1", "", "a/b", "a\0b"] {
        let id = StageId(name.into());
        assert_eq!(place.volume.stage(&id).await.err().unwrap().kind(), Kind::Internal);
        assert!(place.volume.discard(&id).await.is_err());
        assert!(place.volume.publish(&staged("a", &id), None).await.is_err());
    }
    place.untouched_outside();
}

/// What a crash between publish and clearing asks for: each change done once, twice, and again after a restart.
#[tokio::test]
async fn every_change_done_again_leaves_the_same() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        place.put("old", "old").await.unwrap();
        place.put("folder/x", "x").await.unwrap();
        place.put("doomed/deep/y", "y").await.unwrap();
        place.put("hollow/z", "z").await.unwrap();
        fs::remove_file(place.tree("hollow/z")).unwrap();
        let id = place.sealed("one", "staged").await;
        let changes = [
            inline("new/file"),
            staged("stage/file", &id),
            Change::Folder { path: rel("made/deep") },
            rename("old", "moved/old"),
            rename("folder", "moved/folder"),
            Change::Remove { path: rel("new/never") },
            Change::RemoveFolder { path: rel("doomed"), all: true },
            Change::RemoveFolder { path: rel("hollow"), all: false },
            Change::SetModified { path: rel("moved/old"), modified: 77_000_000 },
        ];
        for change in &changes {
            let body = Some(Bytes::from_static(b"inline"));
            place.volume.publish(change, body.clone()).await.unwrap();
            let once = picture(&place.tree(""));
            let node = place.volume.publish(change, body.clone()).await.unwrap();
            let expect_node = matches!(change, Change::Put { .. } | Change::Rename { .. } | Change::SetModified { .. });
            assert_eq!(node.is_some(), expect_node, "{change:?}");
            let keep_times = |lines: &BTreeSet<String>| {
                lines.iter().map(|l| l.split('@').next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(keep_times(&picture(&place.tree(""))), keep_times(&once), "{change:?}");
            let again = Directory::open(&place.tree(""), &place.home.path().join("stage"), false).unwrap();
            again.publish(change, body).await.unwrap();
            assert_eq!(keep_times(&picture(&place.tree(""))), keep_times(&once), "{change:?}");
        }
        place.volume.sync(&changes).await.unwrap();
        assert_eq!(fs::read_to_string(place.tree("stage/file")).unwrap(), "staged");
        assert_eq!(fs::read_to_string(place.tree("moved/folder/x")).unwrap(), "x");
        assert!(!place.tree("doomed").exists() && !place.tree("hollow").exists());
        assert_eq!(fs::metadata(place.tree("moved/old")).unwrap().mtime(), 77);
    }
}

#[tokio::test]
async fn a_file_moved_over_a_hard_link_of_itself_loses_its_old_name() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        for (from, to) in [("a", "b"), ("a", "A"), ("d/a", "d/b"), ("d/a", "e/a"), ("a", "d/a")] {
            for path in [from, to] {
                fs::create_dir_all(place.tree(path).parent().unwrap()).unwrap();
            }
            place.put(from, "bytes").await.unwrap();
            fs::hard_link(place.tree(from), place.tree(to)).unwrap();
            fs::hard_link(place.tree(from), place.tree("third")).unwrap();
            for _ in 0..2 {
                let node = place.volume.publish(&rename(from, to), None).await.unwrap().unwrap();
                assert_eq!(node.size, 5, "{from} {to}");
                assert!(!place.tree(from).exists(), "{from} {to}: the old name is there");
                assert_eq!(fs::read(place.tree(to)).unwrap(), b"bytes", "{from} {to}");
                assert_eq!(fs::read(place.tree("third")).unwrap(), b"bytes", "{from} {to}");
            }
            fs::remove_file(place.tree(to)).unwrap();
            fs::remove_file(place.tree("third")).unwrap();
        }
    }
}

#[tokio::test]
async fn several_are_seen_as_each_is_seen_alone() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        for path in ["a/one", "a/two", "b/one", "top"] {
            place.put(path, "x").await.unwrap();
        }
        symlink(place.outside(), place.tree("a/way")).unwrap();
        symlink("b", place.tree("c")).unwrap();
        let paths = ["a", "a/none", "a/one", "a/two", "a/way", "a/way/secret", "b/one", "c/one", "d/e", "top", "top/x"];
        let mut paths: Vec<_> = paths.into_iter().map(rel).collect();
        paths.push(RelPath::root());
        let kind = |seen: Result<Node>| seen.map_err(|error| error.kind());
        for (path, seen) in paths.iter().zip(place.volume.stat_each(&paths).await) {
            assert_eq!(kind(seen), kind(place.volume.stat(path).await), "{path}");
        }
    }
}

#[tokio::test]
async fn small_files_leave_nothing_in_the_staging_folder_and_replace_what_is_there() {
    let place = Place::new(Lookups::Probe);
    fs::create_dir(place.tree("deep")).unwrap();
    symlink("elsewhere", place.tree("deep/link")).unwrap();
    for (path, body) in [("deep/a", "1"), ("deep/a", "22"), ("deep/link", "333"), ("new/a", "4")] {
        let node = place.put(path, body).await.unwrap().unwrap();
        assert_eq!(place.volume.stat(&rel(path)).await.unwrap(), node, "the tag is that of the file in its place");
        assert_eq!(fs::read_to_string(place.tree(path)).unwrap(), body);
    }
    assert!(fs::symlink_metadata(place.tree("deep/link")).unwrap().is_file());
    assert_eq!(place.kind(inline("deep")).await, Kind::WrongType);
    let left: Vec<_> = fs::read_dir(place.home.path().join("stage")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn many_files_are_synced_together_whatever_became_of_some_of_them() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        let changes: Vec<_> = (0..200).map(|number| inline(&format!("box{}/{number}", number % 3))).collect();
        for change in &changes {
            place.volume.publish(change, Some(Bytes::from_static(b"inline"))).await.unwrap();
        }
        fs::remove_dir_all(place.tree("box1")).unwrap();
        fs::write(place.tree("box1"), "a file now").unwrap();
        fs::remove_file(place.tree("box2/2")).unwrap();
        place.volume.sync(&changes).await.unwrap();
        assert_eq!(fs::read_dir(place.tree("box0")).unwrap().count(), 67);
    }
}

#[tokio::test]
async fn a_staged_file_taken_by_another_program_after_its_publish_stays_gone() {
    let place = Place::new(Lookups::Probe);
    let id = place.sealed("one", "staged").await;
    place.volume.publish(&staged("a", &id), None).await.unwrap().unwrap();
    fs::remove_file(place.tree("a")).unwrap();
    assert_eq!(place.volume.publish(&staged("a", &id), None).await.unwrap(), None);
}

#[tokio::test]
async fn a_folder_is_never_destroyed_by_a_put_or_a_rename() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        place.put("folder/x", "x").await.unwrap();
        place.put("file", "f").await.unwrap();
        place.put("other/y", "y").await.unwrap();
        fs::create_dir(place.tree("empty")).unwrap();
        let id = place.sealed("one", "staged").await;
        for target in ["folder", "empty"] {
            assert_eq!(place.kind(inline(target)).await, Kind::WrongType);
            assert_eq!(place.kind(staged(target, &id)).await, Kind::WrongType);
            assert_eq!(place.kind(rename("file", target)).await, Kind::WrongType);
            assert_eq!(place.kind(rename("other", target)).await, Kind::Exists);
        }
        assert_eq!(place.kind(rename("folder", "file")).await, Kind::WrongType);
        assert_eq!(place.kind(rename("folder", "folder/in/itself")).await, Kind::Invalid);
        assert_eq!(place.kind(Change::Remove { path: rel("folder") }).await, Kind::WrongType);
        assert_eq!(place.kind(Change::RemoveFolder { path: rel("folder"), all: false }).await, Kind::NotEmpty);
        assert_eq!(place.kind(Change::RemoveFolder { path: rel("file"), all: true }).await, Kind::WrongType);
        assert_eq!(place.kind(Change::RemoveFolder { path: rel("file"), all: false }).await, Kind::WrongType);
        assert_eq!(place.kind(inline("file/below")).await, Kind::WrongType);
        assert_eq!(place.kind(Change::Folder { path: rel("file/below") }).await, Kind::WrongType);
        for all in [true, false] {
            assert_eq!(place.kind(Change::RemoveFolder { path: RelPath::root(), all }).await, Kind::Invalid);
        }
        assert_eq!(fs::read_to_string(place.tree("file")).unwrap(), "f");
        assert_eq!(fs::read_to_string(place.tree("folder/x")).unwrap(), "x");
        assert_eq!(place.volume.stages().await.unwrap(), [id], "refused bytes stay staged");
        assert_eq!(fs::read_dir(place.home.path().join("stage")).unwrap().count(), 1, "and nothing else is left");
    }
}

#[tokio::test]
async fn what_is_neither_file_nor_folder_is_seen_and_never_followed_opened_or_waited_for() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        place.put("real/file", "x").await.unwrap();
        symlink(place.outside(), place.tree("out")).unwrap();
        symlink("real", place.tree("in")).unwrap();
        symlink("real/file", place.tree("link")).unwrap();
        symlink("nowhere", place.tree("dangling")).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, place.tree("fifo"), mode).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.tree("socket")).unwrap();
        let device = rustix::fs::makedev(1, 3);
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            place.tree("null"),
            rustix::fs::FileType::CharacterDevice,
            mode,
            device,
        );
        let mut special = vec!["dangling", "fifo", "in", "link", "out", "socket"];
        match made {
            Ok(()) => special.insert(4, "null"),
            Err(error) => eprintln!("no device node could be made ({error}): not tested"),
        }
        for path in special.iter().copied().chain(["out/secret", "in/file"]) {
            let stat = timeout(Duration::from_secs(5), place.volume.stat(&rel(path))).await.expect("never blocks");
            let open = timeout(Duration::from_secs(5), place.volume.open(&rel(path))).await.expect("never blocks");
            let (seen, refused) = match path.contains('/') {
                true => (Err(Kind::NotFound), Kind::NotFound),
                false => (Ok(NodeKind::Special), Kind::WrongType),
            };
            assert_eq!(stat.map(|node| node.kind).map_err(|error| error.kind()), seen, "stat {path}");
            assert_eq!(open.err().unwrap().kind(), refused, "open {path}");
        }
        special.insert(special.len() - 1, "real");
        special.sort_unstable();
        assert_eq!(names(&place.volume.list(&RelPath::root(), None, 99).await.unwrap()), special);
        assert_eq!(place.volume.list(&rel("out"), None, 99).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(place.volume.list(&rel("real/file"), None, 99).await.unwrap_err().kind(), Kind::WrongType);
        assert_eq!(place.volume.open(&rel("real")).await.err().unwrap().kind(), Kind::WrongType);
        assert_eq!(place.volume.stat(&rel("real/file/x")).await.unwrap_err().kind(), Kind::WrongType);

        assert_eq!(place.kind(inline("out/new")).await, Kind::WrongType);
        assert_eq!(place.kind(inline("in/new")).await, Kind::WrongType);
        assert_eq!(place.kind(Change::Folder { path: rel("out/a/b") }).await, Kind::WrongType);
        assert_eq!(place.kind(rename("real/file", "out/file")).await, Kind::WrongType);
        place.volume.publish(&Change::Remove { path: rel("out/secret") }, None).await.unwrap();
        assert_eq!(place.kind(Change::RemoveFolder { path: rel("out"), all: true }).await, Kind::WrongType);
        assert_eq!(place.volume.publish(&rename("out/secret", "stolen"), None).await.unwrap(), None);
        assert!(place.tree("out").is_symlink() && !place.tree("stolen").exists());
        place.put("link", "mine").await.unwrap();
        assert_eq!(fs::read_to_string(place.tree("link")).unwrap(), "mine", "a link is replaced, never followed");
        assert_eq!(fs::read_to_string(place.tree("real/file")).unwrap(), "x");
        place.untouched_outside();
    }
}

#[tokio::test]
async fn removing_a_folder_takes_hidden_entries_along_and_follows_nothing() {
    let place = Place::new(Lookups::Probe);
    place.put("doomed/a/b/c", "x").await.unwrap();
    symlink(place.outside(), place.tree("doomed/out")).unwrap();
    symlink(place.outside(), place.tree("doomed/a/out")).unwrap();
    fs::create_dir(place.tree("doomed/a/.stoa-1")).unwrap();
    fs::write(place.tree("doomed/a/.stoa-1/.stoa-x"), "x").unwrap();
    fs::create_dir(place.tree("doomed/.stoa-1")).unwrap();
    place.volume.publish(&Change::RemoveFolder { path: rel("doomed"), all: true }, None).await.unwrap();
    assert!(!place.tree("doomed").exists());
    assert_eq!(fs::read_dir(place.home.path().join("stage")).unwrap().count(), 0);
    place.untouched_outside();
}

#[tokio::test]
async fn a_very_deep_tree_can_be_made_and_removed() {
    let place = Place::new(Lookups::Probe);
    let deep = vec!["d"; 2040].join("/");
    let file = format!("{deep}/file");
    place.volume.publish(&inline(&file), Some(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(place.volume.stat(&rel(&file)).await.unwrap().size, 1);
    let longest = format!("{deep}/{}", "n".repeat(4096 - deep.len() - 1));
    assert_eq!(place.volume.stat(&rel(&longest)).await.unwrap_err().kind(), Kind::Invalid);
    place.volume.publish(&Change::RemoveFolder { path: rel("d"), all: true }, None).await.unwrap();
    assert!(fs::read_dir(place.tree("")).unwrap().next().is_none());
}

#[tokio::test]
async fn names_may_be_255_bytes_of_anything_but_slash_and_nul() {
    let place = Place::new(Lookups::Probe);
    for name in ["n".repeat(255), "ä".repeat(127), "a\nb\\c*?\u{202e}".into(), " ".into(), "-rf".into(), "...".into()]
    {
        place.volume.publish(&inline(&name), Some(Bytes::new())).await.unwrap();
        assert_eq!(place.volume.stat(&rel(&name)).await.unwrap().name, canonical(&name));
        assert!(place.tree(&name).exists(), "on the disk as it was typed");
    }
    for name in ["n".repeat(256), "..".into(), "a/../b".into(), "/etc".into(), "a//b".into(), ".stoa-stage".into()] {
        assert_eq!(RelPath::new(&name).unwrap_err().kind(), Kind::Invalid);
    }
    fs::write(place.tree("").join(std::ffi::OsStr::new(&String::from("ok"))), "").unwrap();
    let foreign = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    fs::write(place.tree("").join::<&std::ffi::OsStr>(foreign), "").unwrap();
    fs::write(place.tree(".stoa-hidden"), "").unwrap();
    let nodes = place.volume.list(&RelPath::root(), None, 99).await.unwrap();
    assert_eq!(nodes.len(), 8, "{:?}", names(&nodes));
}

#[tokio::test]
async fn a_hundred_thousand_names_are_listed_in_order_without_reading_them_again_for_each_page() {
    let place = Place::new(Lookups::Probe);
    fs::create_dir(place.tree("big")).unwrap();
    for number in 0..100_000 {
        File::create(place.tree("big").join(format!("{:06}", (number * 7919) % 100_000))).unwrap();
    }
    // Names are kept between pages only once the folder's own clock has moved on.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let start = Instant::now();
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = place.volume.list(&rel("big"), all.last().map(String::as_str), 1000).await.unwrap();
        let full = page.len() == 1000;
        all.extend(page.into_iter().map(|node| node.name));
        if !full {
            break;
        }
    }
    let spent = start.elapsed();
    eprintln!("100,000 names in {spent:?}");
    assert_eq!(all, (0..100_000).map(|number| format!("{number:06}")).collect::<Vec<_>>());
    assert!(spent < Duration::from_secs(10), "{spent:?}");
}

#[tokio::test]
async fn a_listing_shows_what_was_made_between_its_pages() {
    let place = Place::new(Lookups::Probe);
    for name in ["a", "b", "c", "d"] {
        place.put(name, "").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(names(&place.volume.list(&RelPath::root(), None, 2).await.unwrap()), ["a", "b"]);
    place.put("cc", "").await.unwrap();
    fs::remove_file(place.tree("c")).unwrap();
    assert_eq!(names(&place.volume.list(&RelPath::root(), Some("b"), 2).await.unwrap()), ["cc", "d"]);
    assert!(place.volume.list(&RelPath::root(), Some("d"), 2).await.unwrap().is_empty());
    assert!(place.volume.list(&RelPath::root(), None, 0).await.unwrap().is_empty());
}

/// A local program with rights in the tree swaps a folder for a link to the outside, over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_swapped_for_a_link_while_we_work_leads_nowhere() {
    for lookups in BOTH {
        let place = Place::new(lookups);
        let (target, folder, link) = (place.tree("t"), place.tree("real"), place.tree("link"));
        fs::create_dir(&folder).unwrap();
        symlink(place.outside(), &link).unwrap();
        fs::rename(&folder, &target).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut swaps = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    use rustix::fs::{CWD, RenameFlags, renameat_with};
                    renameat_with(CWD, &target, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                    swaps += 1;
                }
                swaps
            }
        });
        let end = Instant::now() + Duration::from_secs(1);
        let mut hits = 0_u64;
        while Instant::now() < end {
            hits += u64::from(place.put("t/new", "x").await.is_ok());
            if let Ok(opened) = place.volume.open(&rel("t/secret")).await {
                panic!("read {:?}", opened.read_at(0, 9).await);
            }
            assert!(place.volume.stat(&rel("t/secret")).await.is_err());
            if let Ok(nodes) = place.volume.list(&rel("t"), None, 9).await {
                assert!(!names(&nodes).contains(&"secret"));
            }
            let _ = place.volume.publish(&Change::Remove { path: rel("t/secret") }, None).await;
            let _ = place.volume.publish(&Change::Folder { path: rel("t/a/b") }, None).await;
            let _ = place.volume.publish(&Change::RemoveFolder { path: rel("t/a"), all: true }, None).await;
            let _ = place.volume.publish(&rename("t/secret", "stolen"), None).await;
            let _ = place.volume.publish(&Change::SetModified { path: rel("t/secret"), modified: 0 }, None).await;
        }
        stop.store(true, Ordering::Relaxed);
        let swaps = swapper.join().unwrap();
        eprintln!("{lookups:?}: {swaps} swaps, {hits} puts went through");
        assert!(swaps > 100 && hits > 0);
        place.untouched_outside();
        assert_ne!(fs::metadata(place.outside().join("secret")).unwrap().mtime(), 0);
        assert!(!place.tree("stolen").exists());
    }
}

#[tokio::test]
async fn staging_on_another_disk_moves_into_the_tree_and_is_hidden_there() {
    let Ok(far) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("no /dev/shm: not tested");
        return;
    };
    let near = tempfile::tempdir().unwrap();
    if fs::metadata(far.path()).unwrap().dev() == fs::metadata(near.path()).unwrap().dev() {
        eprintln!("/dev/shm is on the same file system: not tested");
        return;
    }
    let volume = Directory::open(near.path(), far.path(), false).unwrap();
    let mut stage = volume.stage(&StageId("s".into())).await.unwrap();
    stage.append(Bytes::from_static(b"x")).await.unwrap();
    assert!(near.path().join(".stoa-stage/s").exists());
    assert!(volume.list(&RelPath::root(), None, 9).await.unwrap().is_empty());
    volume.publish(&staged("x", &StageId("s".into())), None).await.unwrap().unwrap();
    assert_eq!(names(&volume.list(&RelPath::root(), None, 9).await.unwrap()), ["x"]);
}

/// A small file system of its own, unmounted at the end; `None` where this account may not mount.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                eprintln!("this account may not mount a tmpfs: not tested");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_in_words_and_leaves_nothing_partial() {
    let home = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::tmpfs(&home.path().join("small"), "256k") else { return };
    let small = home.path().join("small");
    let volume = Directory::open(&small.join("tree"), &small.join("stage"), true).unwrap();
    let mut stage = volume.stage(&StageId("s".into())).await.unwrap();
    stage.append(Bytes::from(vec![1; 100_000])).await.unwrap();
    let error = stage.append(Bytes::from(vec![2; 400_000])).await.unwrap_err();
    assert_eq!((error.kind(), error.public()), (Kind::Full, "the server's disk is full"));
    assert_eq!((stage.len(), stage.file().metadata().unwrap().len()), (100_000, 100_000));
    let big = Bytes::from(vec![3; 300_000]);
    let error = volume.publish(&inline("big"), Some(big)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Full);
    assert!(volume.list(&RelPath::root(), None, 9).await.unwrap().is_empty());
    assert_eq!(fs::read_dir(small.join("stage")).unwrap().count(), 1);
    stage.seal(None).await.unwrap();
    volume.publish(&staged("s", &StageId("s".into())), None).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_folder_on_another_disk_inside_the_tree_takes_files_and_can_be_emptied() {
    let place = Place::new(Lookups::Probe);
    let Some(_mounted) = Mounted::tmpfs(&place.tree("other"), "4m") else { return };
    place.put("other/a/inline", "inline").await.unwrap().unwrap();
    let id = place.sealed("one", "staged").await;
    let node = place.volume.publish(&staged("other/a/staged", &id), None).await.unwrap().unwrap();
    assert_eq!(place.volume.publish(&staged("other/a/staged", &id), None).await.unwrap(), Some(node));
    assert_eq!(fs::read_to_string(place.tree("other/a/staged")).unwrap(), "staged");
    place.put("here", "x").await.unwrap();
    assert_eq!(place.kind(rename("here", "other/here")).await, Kind::Invalid);
    place.volume.publish(&Change::RemoveFolder { path: rel("other/a"), all: true }, None).await.unwrap();
    assert!(fs::read_dir(place.tree("other")).unwrap().next().is_none());
}

#[tokio::test]
async fn what_other_programs_do_is_told() {
    let place = Place::new(Lookups::Probe);
    symlink(place.outside(), place.tree("out")).unwrap();
    let mut touched = place.volume.watch().expect("inotify works here");
    fs::write(place.outside().join("secret"), "secret").unwrap();
    fs::create_dir(place.tree("new")).unwrap();
    let mut seen = BTreeSet::new();
    expect(&mut touched, &mut seen, "new").await;
    fs::write(place.tree("new/file"), "x").unwrap();
    fs::write(place.tree("top"), "x").unwrap();
    expect(&mut touched, &mut seen, "top").await;
    fs::rename(place.tree("top"), place.tree("moved")).unwrap();
    fs::remove_file(place.tree("moved")).unwrap();
    expect(&mut touched, &mut seen, "moved").await;
    fs::create_dir(place.tree("deep")).unwrap();
    expect(&mut touched, &mut seen, "deep").await;
    // Told means watched: what comes into it from now on is told by its own name.
    fs::create_dir(place.tree("deep/er")).unwrap();
    expect(&mut touched, &mut seen, "deep/er").await;
    fs::write(place.tree("deep/er/file"), "x").unwrap();
    expect(&mut touched, &mut seen, "deep/er/file").await;
    fs::rename(place.tree("deep"), place.tree("new/deep")).unwrap();
    expect(&mut touched, &mut seen, "new/deep").await;
    fs::write(place.tree("new/deep/er/late"), "x").unwrap();
    expect(&mut touched, &mut seen, "new/deep/er/late").await;
    File::open(place.tree("new/file")).unwrap();
    assert!(!seen.iter().any(|path| path.starts_with("out")), "{seen:?}");
}

#[tokio::test]
async fn a_new_file_of_our_own_is_not_told_and_whatever_others_do_to_it_is() {
    let place = Place::new(Lookups::Probe);
    let mut touched = place.volume.watch().expect("inotify works here");
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        let (ours, other) = (format!("ours-{round}"), format!("other-{round}"));
        place.put(&ours, "x").await.unwrap();
        fs::write(place.tree(&other), "x").unwrap();
        expect(&mut touched, &mut seen, &other).await;
        assert!(!seen.contains(&ours), "{seen:?}");
        match round {
            0 => fs::write(place.tree(&ours), "changed").unwrap(),
            1 => fs::remove_file(place.tree(&ours)).unwrap(),
            _ => fs::rename(place.tree(&other), place.tree(&ours)).unwrap(),
        }
        expect(&mut touched, &mut seen, &ours).await;
    }
    // A file that takes the place of another is not new.
    seen.clear();
    place.put("ours-0", "y").await.unwrap();
    expect(&mut touched, &mut seen, "ours-0").await;
    fs::remove_file(place.tree("ours-0")).unwrap();
    fs::hard_link(place.tree("ours-2"), place.tree("linked")).unwrap();
    expect(&mut touched, &mut seen, "linked").await;
}

#[tokio::test]
async fn a_volume_inside_another_is_watched_by_both_and_either_may_stop() {
    let place = Place::new(Lookups::Probe);
    fs::create_dir(place.tree("sub")).unwrap();
    let sub = Directory::open(&place.tree("sub"), &place.home.path().join("stage"), false).unwrap();
    let mut outer = place.volume.watch().expect("inotify works here");
    let mut inner = sub.watch().expect("inotify works here");
    let (mut seen_outer, mut seen_inner) = (BTreeSet::new(), BTreeSet::new());
    fs::write(place.tree("sub/a"), "x").unwrap();
    expect(&mut outer, &mut seen_outer, "sub/a").await;
    expect(&mut inner, &mut seen_inner, "a").await;
    drop(inner);
    tokio::task::yield_now().await;
    fs::write(place.tree("sub/b"), "x").unwrap();
    expect(&mut outer, &mut seen_outer, "sub/b").await;
}

async fn expect(touched: &mut tokio::sync::mpsc::Receiver<Touched>, seen: &mut BTreeSet<String>, path: &str) {
    while !seen.contains(path) {
        match timeout(Duration::from_secs(10), touched.recv()).await.expect("told in time") {
            Some(Touched::Path(path)) => seen.insert(path.to_string()),
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test]
async fn a_watcher_that_falls_behind_says_so_instead_of_losing_changes() {
    let place = Place::new(Lookups::Probe);
    let mut touched = place.volume.watch().expect("inotify works here");
    for number in 0..20_000 {
        fs::write(place.tree("").join(format!("{number}")), "").unwrap();
    }
    let mut everything = false;
    while let Ok(Some(one)) = timeout(Duration::from_secs(2), touched.recv()).await {
        everything |= one == Touched::Everything;
        if everything {
            break;
        }
    }
    assert!(everything);
}

#[tokio::test]
async fn an_armed_fault_breaks_exactly_the_call_it_was_set_to() {
    for way in VolumeBreak::ALL {
        let place = Place::new(Lookups::Probe);
        let inner = Arc::new(Directory::open(&place.tree(""), &place.home.path().join("stage"), false).unwrap());
        let left = Arc::new(AtomicU64::new(0));
        let faulty = FaultyVolume::new(inner, VolumeFault::new(VolumePoint::Publish, way, left.clone()));
        let body = || Some(Bytes::from_static(b"x"));
        faulty.publish(&inline("a"), body()).await.unwrap();
        left.store(2, Ordering::SeqCst);
        faulty.publish(&inline("b"), body()).await.unwrap();
        assert_eq!(faulty.publish(&inline("c"), body()).await.unwrap_err().kind(), Kind::Unavailable);
        let done = matches!(way, VolumeBreak::FailAfter | VolumeBreak::StopAfter);
        let stopped = matches!(way, VolumeBreak::StopAfter | VolumeBreak::StopBefore);
        assert_eq!(place.tree("c").exists(), done, "{way:?}");
        assert_eq!(faulty.publish(&inline("d"), body()).await.is_err(), stopped, "{way:?}");
        assert_eq!(faulty.stat(&rel("a")).await.is_err(), stopped, "{way:?}");
    }
}
