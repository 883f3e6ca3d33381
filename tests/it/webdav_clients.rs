//! WebDAV as other people's programs speak it: litmus, cadaver, rclone, curl, and davfs2 where the machine can mount it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::daemon::until;
use crate::webdav::Dav;

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn litmus_finds_nothing_wrong() {
    let dav = Dav::start();
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}/dav/", dav.daemon.http);
    let output =
        Command::new("litmus").args(["-k", &url, "alice", "secret"]).current_dir(&folder).output().expect("litmus");
    let text = said(&output);
    assert!(output.status.success() && !text.contains("FAIL"), "{text}");
    for suite in ["basic", "copymove", "props", "locks", "http"] {
        assert!(text.contains(&format!("<- summary for `{suite}'")), "{suite}: {text}");
    }
    assert_eq!(text.matches("0 failed. 100.0%").count(), 5, "{text}");
    assert!(!text.contains("SKIPPED"), "{text}");
    // A fragment in a request line never reaches us: the library that reads it drops it.
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARNING")).collect();
    assert!(warnings.iter().all(|line| line.contains("delete_fragment")), "{text}");
}

#[test]
fn cadaver_moves_files_and_sees_locks() {
    let dav = Dav::start();
    let home = tempfile::tempdir().expect("a home");
    let netrc = home.path().join(".netrc");
    fs::write(&netrc, "machine 127.0.0.1 login alice password secret\n").expect("a netrc");
    fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).expect("private");
    fs::write(home.path().join("a.txt"), "by cadaver").expect("a file");
    let script = "put a.txt\nmkcol sub\ncopy a.txt sub/b.txt\nmove a.txt sub/c.txt\nls sub\nlock sub/b.txt\nshowlocks\n\
                  propset sub/b.txt colour blue\npropget sub/b.txt colour\nunlock sub/b.txt\nget sub/c.txt back.txt\nrmcol none\nquit\n";
    let mut child = Command::new("cadaver")
        .arg(format!("http://{}/dav/", dav.daemon.http))
        .env("HOME", home.path())
        .current_dir(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cadaver");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), script.as_bytes()).expect("a script");
    let output = child.wait_with_output().expect("an end");
    let text = said(&output);
    assert_eq!(fs::read_to_string(home.path().join("back.txt")).unwrap_or_else(|_| panic!("{text}")), "by cadaver");
    assert_eq!(fs::read_to_string(dav.daemon.on_disk("/dav/sub/b.txt")).expect("a copy"), "by cadaver");
    assert!(text.contains("Value of colour is: blue") || text.contains("blue"), "{text}");
    assert!(text.contains("opaquelocktoken"), "{text}");
    assert!(!dav.propfind("/dav/sub/b.txt", "0", "").contains("activelock>"), "{text}");
}

#[test]
fn rclone_keeps_a_folder_in_step() {
    let dav = Dav::start();
    let folder = tempfile::tempdir().expect("a folder");
    let local = folder.path().join("local");
    fs::create_dir_all(local.join("deep/er")).expect("folders");
    for (name, size) in [("a.txt", 10), ("ü & %41.bin", 200_000), ("deep/er/empty", 0), ("deep/b", 70_000)] {
        fs::write(local.join(name), vec![b'x'; size]).expect("a file");
    }
    let obscured = run(Command::new("rclone").args(["obscure", "secret"]));
    let rclone = |arguments: &[&str]| {
        run(Command::new("rclone")
            .args(["--config", "/dev/null", "--retries", "1", "--timeout", "30s"])
            .args(arguments)
            .env("RCLONE_WEBDAV_URL", format!("http://{}/dav", dav.daemon.http))
            .env("RCLONE_WEBDAV_USER", "alice")
            .env("RCLONE_WEBDAV_PASS", String::from_utf8_lossy(&obscured.stdout).trim()))
    };
    let local_text = local.display().to_string();
    rclone(&["sync", &local_text, ":webdav:mirror"]);
    rclone(&["check", "--download", &local_text, ":webdav:mirror"]);
    fs::remove_file(local.join("deep/b")).expect("removed");
    fs::rename(local.join("a.txt"), local.join("deep/c.txt")).expect("moved");
    rclone(&["sync", &local_text, ":webdav:mirror"]);
    rclone(&["check", "--download", &local_text, ":webdav:mirror"]);
    assert!(!dav.daemon.on_disk("/dav/mirror/deep/b").exists());
    let back = folder.path().join("back");
    rclone(&["copy", ":webdav:mirror", &back.display().to_string()]);
    assert_eq!(fs::read(back.join("ü & %41.bin")).expect("a file").len(), 200_000);
    rclone(&["moveto", ":webdav:mirror/deep", ":webdav:moved"]);
    rclone(&["purge", ":webdav:mirror"]);
    assert!(dav.daemon.on_disk("/dav/moved/c.txt").exists() && !dav.daemon.on_disk("/dav/mirror").exists());
    assert!(String::from_utf8_lossy(&rclone(&["about", ":webdav:"]).stdout).contains("Free:"));
}

#[test]
fn curl_speaks_every_method() {
    let dav = Dav::start();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-u", "alice:secret", "-w", "\n%{http_code}"]).args(arguments);
        let text = String::from_utf8_lossy(&run(&mut command).stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a code");
        (code.to_owned(), body.to_owned())
    };
    let url = |path: &str| format!("http://{}{path}", dav.daemon.http);
    assert_eq!(curl(&["-X", "MKCOL", &url("/dav/a/")]).0, "201");
    assert_eq!(curl(&["-X", "PUT", "-d", "text", &url("/dav/a/b.txt")]).0, "201");
    let (code, body) = curl(&["-X", "PROPFIND", "-H", "Depth: 1", &url("/dav/a/")]);
    assert!(code == "207" && body.contains("<D:href>/dav/a/b.txt</D:href>"), "{body}");
    let copy = format!("Destination: {}", url("/dav/c.txt"));
    assert_eq!(curl(&["-X", "COPY", "-H", &copy, &url("/dav/a/b.txt")]).0, "201");
    assert_eq!(curl(&["-X", "MOVE", "-H", &copy, &url("/dav/a/b.txt")]).0, "204");
    assert_eq!(curl(&["-X", "OPTIONS", &url("/dav/")]).0, "200");
    assert_eq!(curl(&["--request-target", "*", "-X", "OPTIONS", &url("/")]).0, "200");
    assert_eq!(curl(&["-X", "DELETE", &url("/dav/a/")]).0, "204");
}

/// A mount that is undone when the test ends, however it ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Needs FUSE and the right to mount; a machine without them (a plain container) cannot run it, and says so.
#[test]
fn davfs2_mounts_the_tree() {
    let dav = Dav::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (mount, secrets, conf) = (folder.path().join("mnt"), folder.path().join("secrets"), folder.path().join("conf"));
    fs::create_dir(&mount).expect("a mount point");
    let url = format!("http://{}/dav/", dav.daemon.http);
    fs::write(&secrets, format!("{url} alice secret\n")).expect("secrets");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("private");
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).expect("a cache");
    // It works as a user of its own.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("for all");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("for all");
    let text = format!(
        "secrets {}\ncache_dir {}\nask_auth 0\ndelay_upload 0\nbuf_size 64\n",
        secrets.display(),
        cache.display()
    );
    fs::write(&conf, text).expect("a configuration");
    let mounted = Command::new("mount.davfs")
        .arg(&url)
        .arg(&mount)
        .args(["-o", &format!("conf={}", conf.display())])
        .stdin(Stdio::null())
        .output()
        .expect("mount.davfs");
    if !mounted.status.success() {
        let why = said(&mounted);
        let able = ["/dev/fuse", "not permitted", "user root", "superuser", "not a member"]
            .iter()
            .any(|word| why.contains(word));
        assert!(able, "davfs2 could not mount, and not for want of FUSE or rights: {why}");
        println!("davfs2 was not tried: this machine cannot mount FUSE: {}", why.trim());
        return;
    }
    let guard = Mounted(&mount);
    fs::create_dir(mount.join("sub")).expect("a folder");
    fs::write(mount.join("sub/a.txt"), "by davfs2").expect("a file");
    until("the file arrives", || {
        fs::read(dav.daemon.on_disk("/dav/sub/a.txt")).is_ok_and(|bytes| bytes == b"by davfs2")
    });
    fs::rename(mount.join("sub/a.txt"), mount.join("b.txt")).expect("moved");
    until("it is moved", || dav.daemon.on_disk("/dav/b.txt").exists());
    assert_eq!(fs::read_to_string(mount.join("b.txt")).expect("read"), "by davfs2");
    let listed = fs::read_dir(&mount).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let listed: Vec<_> = listed.filter(|name| name != "lost+found").collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    drop(guard);
}
