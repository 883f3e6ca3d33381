//! The pages for people say what is so: their commands run, their configuration is taken, the keys they name are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::daemon::Place;
use crate::ftp_clients::stage::{Form, Stage, assert_same, sum, write};

/// Pages whose keys are all looked up.
const ABOUT_FTP: [&str; 3] = ["devices.md", "ftp-clients.md", "ftp-nat.md"];

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The words between single backticks, outside of blocks.
fn quoted(page: &str) -> Vec<&str> {
    let text = page.split("\n```").step_by(2).flat_map(str::lines);
    text.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_commands_for_ftp_clients_work_as_written() {
    let stage = Stage::new(Form::plain(), false);
    let certificate = stage.certificate();
    // What people do once: trust the server's certificate.
    fs::write(stage.local(".curlrc"), format!("cacert = \"{certificate}\"\n")).unwrap();
    fs::write(stage.local(".wgetrc"), format!("ca_certificate = {certificate}\nca_directory = /nowhere\n")).unwrap();
    fs::write(stage.local(".lftprc"), format!("set ssl:ca-file {certificate}\n")).unwrap();
    write(&stage.local("report.pdf"), 1, 123_456);
    write(&stage.local("film.mp4"), 2, 3_000_001);
    write(&stage.local("photos/a.jpg"), 3, 50_000);
    write(&stage.local("photos/2020/b c.jpg"), 4, 60_000);
    let commands = blocks(&page("ftp-clients.md"), "sh");
    assert!(commands.len() >= 5);
    for commands in commands {
        let script = format!("set -euo pipefail\nHOST=localhost:{} ME=alice PW=wonder\n{commands}", stage.port());
        stage.must("bash", &["-c", &script], "");
    }
    let stored = |name: &str| stage.daemon.on_disk("/scans").join(name);
    for name in ["report.pdf", "2026/07/report.pdf", "film.mp4"] {
        assert_eq!(sum(&stored(name)), sum(&stage.local(name.rsplit('/').next().unwrap())), "{name}");
    }
    assert!(!stored("all.log").exists() && !stored("old.log").exists());
    for copy in ["copy", "restored"] {
        assert_same(copy, &stage.local("photos"), &stage.local(copy), true);
    }
    assert_same("ncftpput", &stage.local("photos"), &stored("tree/photos"), true);
    assert_eq!(sum(&stage.local("film-again.mp4")), sum(&stage.local("film.mp4")));
    for name in ["again.pdf", "once-more.pdf"] {
        assert_eq!(sum(&stage.local(name)), sum(&stage.local("report.pdf")), "{name}");
    }
}

/// The same with every address with a port replaced by one that this machine has.
fn on_loopback(block: &str) -> String {
    let line = |line: &str| match line.split_once("address = \"").and_then(|(_, rest)| rest.split_once('"')) {
        Some((address, _)) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            line.replace(&format!("\"{address}\""), "\"127.0.0.1:0\"")
        }
        _ => line.to_owned(),
    };
    block.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_configuration_on_the_pages_is_taken() {
    let mut seen = 0;
    for name in ABOUT_FTP.iter().chain(&["operations.md", "websites.md", "behind-a-proxy.md"]) {
        for block in blocks(&page(name), "toml") {
            let place = Place::new("");
            let passwords = place.config().with_file_name("passwords");
            fs::create_dir_all(&passwords).unwrap();
            let block = block.replace("/etc/stoa", &passwords.display().to_string());
            for path in block.split('"').filter(|text| text.ends_with(".password")) {
                fs::write(path, "wonder\n").unwrap();
            }
            for path in block.split('"').filter(|text| Path::new(text).extension().is_some_and(|end| end == "pem")) {
                let key = rcgen::KeyPair::generate().unwrap();
                let params = rcgen::CertificateParams::new(vec!["example.org".into()]).unwrap();
                fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
                fs::write(path, params.self_signed(&key).unwrap().pem()).unwrap();
                fs::write(path.replace(".pem", ".key"), key.serialize_pem()).unwrap();
            }
            place.configure(&format!("\n{}", on_loopback(&block)));
            let checked = place.run(&["check", "--quiet"], "");
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{name}:\n{block}\n{said}{}", String::from_utf8_lossy(&checked.stdout));
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_keys_the_pages_name_are_there() {
    let known = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/stoa.toml")).unwrap();
    let known: BTreeSet<&str> = known.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').collect();
    for name in ABOUT_FTP {
        let page = page(name);
        for span in quoted(&page) {
            // `key` or `key = value`; a word with an underscore is nothing else on these pages.
            let key = span.split(" = ").next().unwrap_or_default();
            let is_key = key.contains('_') && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(!is_key || known.contains(key), "{name} names `{key}`, which conf/stoa.toml does not have");
        }
    }
}

#[test]
fn the_commands_for_uploads_work_as_written() {
    let daemon =
        crate::uploads::daemon("[[space]]\npath = \"/scans\"\ngrants = [ { to = \"user:alice\", allow = \"edit\" } ]");
    let desk = tempfile::tempdir().unwrap();
    write(&desk.path().join("report.pdf"), 1, 123_456);
    write(&desk.path().join("film.mp4"), 2, 2_000_001);
    fs::create_dir_all(daemon.on_disk("/scans/2026")).unwrap();
    let commands = blocks(&page("uploads.md"), "sh");
    assert!(commands.len() >= 4);
    for commands in commands {
        let script = format!("set -euo pipefail\nURL=http://{} ME=alice:secret-alice\n{commands}", daemon.http);
        let done = std::process::Command::new("bash").args(["-c", &script]).current_dir(desk.path()).output().unwrap();
        assert!(done.status.success(), "{commands}\n{}", String::from_utf8_lossy(&done.stderr));
    }
    for name in ["report.pdf", "2026/11/report.pdf", "receipt.pdf", "once.pdf"] {
        assert_eq!(sum(&daemon.on_disk("/scans").join(name)), sum(&desk.path().join("report.pdf")), "{name}");
    }
    assert_eq!(sum(&daemon.on_disk("/scans/film.mp4")), sum(&desk.path().join("film.mp4")));
    assert!(fs::metadata(desk.path().join("some.zip")).unwrap().len() > 123_456);
}
