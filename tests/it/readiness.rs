//! `/ready` and the metrics tell the truth, name what is wrong, and go back when it is mended; `/health` says alive all the while.

use std::fs;

use crate::daemon::{Daemon, until};
use crate::operations::{get, metric, put};
use crate::volume::Mounted;

/// Waits until it is not ready; the words.
fn not_ready(daemon: &Daemon) -> String {
    until("it is not ready", || get(daemon.admin, "/ready").0 == 503);
    assert_eq!(get(daemon.admin, "/health").0, 200, "alive all the same");
    assert_eq!(metric(daemon, "stoa_ready"), 0);
    get(daemon.admin, "/ready").1
}

fn ready(daemon: &Daemon) {
    until("it is ready", || get(daemon.admin, "/ready").0 == 200);
    assert_eq!(metric(daemon, "stoa_ready"), 1);
}

#[test]
fn a_full_disk_of_one_space_is_named_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let Some(_mounted) = Mounted::tmpfs(&source, "8m") else { return };
    let space = format!(
        "[[space]]\npath = \"/small\"\nsource = {source:?}\ngrants = [{{ to = \"users\", allow = \"own\" }}]\n"
    );
    let daemon = Daemon::start(&format!(
        "[storage]\nkeep_free = \"2 MiB\"\n{space}[[space]]\npath = \"/shared\"\ngrants = [{{ to = \"users\", allow = \"own\" }}]\n"
    ));
    ready(&daemon);
    let filler = source.join("filler");
    fs::write(&filler, vec![0; 7 << 20]).unwrap();
    let why = not_ready(&daemon);
    assert!(why.contains(source.to_str().unwrap()) && why.contains("storage.keep_free"), "{why}");
    assert_eq!((put(&daemon, "/small/a", "x"), put(&daemon, "/shared/a", "x")), (507, 201));
    fs::remove_file(&filler).unwrap();
    ready(&daemon);
    assert_eq!(put(&daemon, "/small/a", "x"), 201);
}

#[test]
fn a_catalog_that_is_gone_is_named_until_it_is_back() {
    let daemon = Daemon::start("");
    ready(&daemon);
    assert_eq!(put(&daemon, "/shared/a", "x"), 201);
    for name in ["catalog.db", "catalog.redo"] {
        let (there, away) = (daemon.data.join(name), daemon.data.join("away"));
        fs::rename(&there, &away).unwrap();
        let why = not_ready(&daemon);
        assert!(why.contains(name) && why.contains("removed"), "{name}: {why}");
        fs::rename(&away, &there).unwrap();
        ready(&daemon);
        assert_eq!(put(&daemon, "/shared/a", "y"), 204, "{name}");
    }
}
