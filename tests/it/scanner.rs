//! The scanner's story: one document by FTP and by mail, through a real daemon and foreign clients, is one and the same.

use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, Place, until};
use crate::mail::with_files;

const CONFIG: &str = r#"
domain = "example.org"
[smtp]
auth_in_clear = true
[[space]]
path = "/scans"
address = "scans"
overwrite = "keep-both"
quota_files = 4
grants = [ { to = "device:copier", allow = "drop" }, { to = "everyone", allow = "view" } ]
"#;

fn curl(args: &[&str]) -> bool {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--user", "copier:toner-and-paper"]).args(args);
    command.status().expect("curl").success()
}

/// Uploads a file by FTP.
fn by_ftp(daemon: &Daemon, file: &Path, to: &str) -> bool {
    let url = format!("ftp://{}{to}", daemon.ftp);
    curl(&["--ftp-create-dirs", "--upload-file", &file.display().to_string(), &url])
}

/// Sends it as an attachment.
fn by_mail(daemon: &Daemon, file: &Path, to: &str) -> bool {
    let message = daemon.data.join("message.eml");
    let name = file.file_name().expect("a name").to_string_lossy();
    std::fs::write(&message, with_files(&[(&name, &std::fs::read(file).expect("the file"))])).expect("a file");
    let to = format!("{to}@example.org");
    let url = format!("smtp://{}", daemon.smtp);
    curl(&[
        "--mail-from",
        "copier@example.org",
        "--mail-rcpt",
        &to,
        "--upload-file",
        &message.display().to_string(),
        &url,
    ])
}

#[test]
fn the_same_scan_by_ftp_and_by_mail_is_filed_the_same() {
    let place = Place::new(CONFIG);
    place.must(&["device", "add", "copier"], "toner-and-paper\n");
    let daemon = place.start();
    let file = daemon.data.join("scan 1.pdf");
    std::fs::write(&file, b"%PDF-1.7 one page").expect("a file");
    assert!(by_ftp(&daemon, &file, "/scans/2026/"), "{}", daemon.log());
    assert!(by_mail(&daemon, &file, "scans+2026"), "{}", daemon.log());

    // The same folder, the same rule for a name that is taken, the same bytes, for the same owner, with the same line.
    let folder = daemon.on_disk("/scans/2026");
    for name in ["scan 1.pdf", "scan 1 (2).pdf"] {
        assert_eq!(std::fs::read(folder.join(name)).expect(name), b"%PDF-1.7 one page");
    }
    let history = daemon.must(&["history", "--path", "/scans/2026", "--json"], "");
    let lines: Vec<serde_json::Value> = history.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let made: Vec<_> = lines.iter().filter(|line| line["verb"] == "create").collect();
    let told = |key: &str| made.iter().map(|line| line[key].as_str().expect(key).to_owned()).collect::<Vec<_>>();
    assert_eq!(told("door"), ["ftp", "smtp"], "{history}");
    assert_eq!(told("account"), ["copier", "copier"]);
    assert_eq!(told("result"), ["ok", "ok"]);
    assert_eq!(told("path"), ["/scans/2026/scan 1.pdf", "/scans/2026/scan 1 (2).pdf"]);
    assert!(made.iter().all(|line| line["bytes"] == 17), "{history}");

    // The same quota: two more files and it is full, for either door.
    for name in ["scan 3.pdf", "scan 4.pdf", "scan 5.pdf", "scan 6.pdf"] {
        std::fs::write(daemon.data.join(name), b"%PDF").expect("a file");
    }
    assert!(by_mail(&daemon, &daemon.data.join("scan 3.pdf"), "scans"), "{}", daemon.log());
    assert!(by_ftp(&daemon, &daemon.data.join("scan 4.pdf"), "/scans/"), "{}", daemon.log());
    assert!(!by_mail(&daemon, &daemon.data.join("scan 5.pdf"), "scans"));
    assert!(!by_ftp(&daemon, &daemon.data.join("scan 6.pdf"), "/scans/"));
    let spaces = daemon.must(&["space", "list", "--json"], "");
    let spaces: serde_json::Value = serde_json::from_str(&spaces).expect("JSON");
    let scans = spaces.as_array().expect("a list").iter().find(|space| space["path"] == "/scans").expect("the space");
    assert_eq!((&scans["files"], &scans["bytes"]), (&4.into(), &(17 + 17 + 4 + 4).into()));

    // What became of the mail is there to be asked.
    let trace = daemon.must(&["trace", "scans+2026@example.org"], "");
    assert!(
        trace.contains("<copier@example.org>") && trace.contains("/scans/2026") && trace.contains("stored"),
        "{trace}"
    );
    until("the refusal is written down", || {
        let trace = daemon.must(&["trace", "scans@example.org"], "");
        trace.contains("refused: /scans is full")
    });
    daemon.stop();
}
