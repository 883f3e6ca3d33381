//! Pages for clients: their commands run, and what they should have brought is there.

use std::fs;

use super::place::Start;
use super::run::{left, page};
use crate::ftp_clients::stage::{assert_same, sum};

#[test]
fn the_readme_works_from_its_first_line_to_its_last() {
    let place = page("README.md", Start::Clone);
    for name in ["by-ftp.md", "by-mail.md"] {
        assert_eq!(sum(&left(&place, "stoa-data/tree/shared").join(name)), sum(&left(&place, "README.md")), "{name}");
    }
}

#[test]
fn the_commands_for_ftp_clients_bring_every_file() {
    let place = page("ftp-clients.md", Start::Running);
    let scans = left(&place, "stoa-data/tree/scans");
    for name in ["report.pdf", "2026/07/report.pdf", "film.mp4"] {
        assert_eq!(sum(&scans.join(name)), sum(&left(&place, name.rsplit('/').next().unwrap())), "{name}");
    }
    assert!(!scans.join("all.log").exists() && !scans.join("old.log").exists());
    for copy in ["copy", "restored"] {
        assert_same(copy, &left(&place, "photos"), &left(&place, copy), true);
    }
    assert_same("ncftpput", &left(&place, "photos"), &scans.join("tree/photos"), true);
    assert_eq!(sum(&left(&place, "film-again.mp4")), sum(&left(&place, "film.mp4")));
    for name in ["again.pdf", "once-more.pdf"] {
        assert_eq!(sum(&left(&place, name)), sum(&left(&place, "report.pdf")), "{name}");
    }
}

#[test]
fn the_commands_for_uploads_bring_every_file() {
    let place = page("uploads.md", Start::Running);
    let scans = left(&place, "stoa-data/tree/scans");
    for name in ["report.pdf", "2026/11/report.pdf", "receipt.pdf", "once.pdf"] {
        assert_eq!(sum(&scans.join(name)), sum(&left(&place, "report.pdf")), "{name}");
    }
    assert_eq!(sum(&scans.join("film.mp4")), sum(&left(&place, "film.mp4")));
    assert_eq!(fs::read_to_string(scans.join("by-tus.txt")).unwrap(), "by tus");
    assert!(fs::metadata(left(&place, "some.zip")).unwrap().len() > 123_456);
}

#[test]
fn the_commands_for_webdav_bring_every_change() {
    let place = page("webdav.md", Start::Running);
    // A change that leaves the size as it was, and a file that was removed.
    let documents = left(&place, "stoa-data/tree/documents/backup");
    assert_same("rclone", &left(&place, "Documents"), &documents, true);
}
