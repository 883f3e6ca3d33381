//! nginx, Caddy and HAProxy run exactly the block of the page, and everything that a client does works through them.
//!
//! Only ports and paths are this machine's. The proxies run without rights of their own, on loopback, at a port that is not the usual one.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::blocks::{self, Block};
use super::place::{Place, Start, free_port};
use super::run::Run;
use crate::daemon::until;
use crate::ftp_clients::stage::{bytes, digest, sum};

const PAGE: &str = "behind-a-proxy.md";
const HOST: &str = "files.example.org";

/// An account without rights, for a proxy that root starts.
const NOBODY: u32 = 65_534;

/// A proxy in front of a daemon.
struct Proxy {
    child: Child,
    place: Place,
    port: u16,
    /// The certificate that clients trust.
    trusted: PathBuf,
}

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

/// The daemon as these sections of the page say, with alice and a space for her.
fn daemon(sections: &[&str]) -> Place {
    let mut run = Run::new(PAGE, Start::Installed);
    let sections = [&["A certificate", "The listener"], sections].concat();
    for block in blocks::of(PAGE) {
        if ["sh", "toml"].contains(&block.language.as_str()) && sections.contains(&block.heading.as_str()) {
            run.block(&block);
        }
    }
    let mut place = run.place;
    let made = place.sh("systemctl restart stoa\n\
         echo wonderland | stoa user add alice --password-file -\n\
         stoa space add /scans --grant user:alice=edit --grant everyone=view");
    made.unwrap_or_else(|error| panic!("{error}\n{}", place.log()));
    place
}

/// The block of a language below a heading.
fn block(heading: &str, language: &str) -> Block {
    let found = blocks::of(PAGE).into_iter().find(|block| block.heading == heading && block.language == language);
    found.unwrap_or_else(|| panic!("{PAGE} has no block of {language} below {heading}"))
}

impl Proxy {
    /// Starts the proxy with the block, at a free port; once more at another when that one was lost.
    fn start(mut place: Place, block: &Block) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let text = here(&mut place, block, port);
            let (mut command, trusted) = match block.language.as_str() {
                "nginx" => nginx(&place, &text, if block.heading == "nginx" { HOST } else { "example.org" }),
                "caddyfile" => caddy(&place, &text),
                _ => haproxy(&place, &text),
            };
            let log = fs::File::create(place.path("/proxy.log")).unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            let mut child =
                command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/test once"));
            let mut ended = false;
            until("the proxy listens", || {
                ended = child.try_wait().unwrap().is_some();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            let said = fs::read_to_string(place.path("/proxy.log")).unwrap();
            if !ended {
                let proxy = Self { child, place, port, trusted };
                until("the proxy has its certificate", || proxy.is_ready());
                return proxy;
            }
            assert!(said.contains("in use"), "{}: {said}", block.at);
        }
        panic!("no port is free");
    }

    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.port)
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "--noproxy", "*", "--cacert"]).arg(&self.trusted);
        for host in [HOST, "example.org"] {
            command.args(["--resolve", &format!("{host}:{}:127.0.0.1", self.port)]);
        }
        command
    }

    fn is_ready(&self) -> bool {
        // `-k`: which of the names it serves does not matter, nor the status.
        let asked = self.curl().args(["-k", "-o", "/dev/null"]).arg(self.url("/")).output();
        self.trusted.exists() && asked.is_ok_and(|output| output.status.success())
    }

    /// Asks as alice, unless the arguments say otherwise.
    fn ask(&self, path: &str, arguments: &[&str]) -> Reply {
        let (head, body) = (self.place.path("/head"), self.place.path("/body"));
        let _ = fs::remove_file(&body);
        let mut curl = self.curl();
        curl.arg("-D").arg(&head).arg("-o").arg(&body).args(["-w", "%{http_code}"]).args(arguments);
        let url = if path.starts_with("https:") { path.to_owned() } else { self.url(path) };
        let output = curl.arg(url).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path} {arguments:?}: {error}{}", self.said());
        Reply {
            status: String::from_utf8_lossy(&output.stdout).parse().unwrap(),
            head: fs::read_to_string(head).unwrap(),
            body: String::from_utf8_lossy(&fs::read(body).unwrap_or_default()).into_owned(),
        }
    }

    fn alice(&self, path: &str, arguments: &[&str]) -> Reply {
        self.ask(path, &[&["-u", "alice:wonderland"], arguments].concat())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.place.path("/proxy.log")).unwrap_or_default()
    }

    /// A file of the space, on the disk.
    fn stored(&self, name: &str) -> PathBuf {
        self.place.data().join("tree/scans").join(name)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy said:\n{}", self.said());
        }
    }
}

impl Reply {
    #[track_caller]
    fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }

    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next_back().unwrap_or_default()
    }
}

/// The block with the ports and paths of this machine.
fn here(place: &mut Place, block: &Block, port: u16) -> String {
    let mut text = place.here(&block.text);
    for usual in [8080, 8443] {
        text = text.replace(&format!("127.0.0.1:{usual}"), &format!("127.0.0.1:{}", place.port("127.0.0.1", usual)));
    }
    text = text.replace("listen 443", &format!("listen 127.0.0.1:{port}"));
    text = text.replace("bind :443", &format!("bind 127.0.0.1:{port}"));
    text.replace(&format!("\n{HOST} {{"), &format!("\n{HOST}:{port} {{"))
}

/// The command as an account without rights, which owns the folder it works in.
fn unprivileged(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    let root = folder.parent().unwrap();
    if chown(folder, Some(NOBODY), Some(NOBODY)).is_ok() {
        let keys =
            ["ssl/private/files.example.org.key", "ssl/private/example.org.key", "haproxy/files.example.org.pem"];
        for path in keys.map(|name| root.join("etc").join(name)).into_iter().chain([root.to_owned()]) {
            chown(path, Some(NOBODY), None).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn folder(place: &Place) -> PathBuf {
    let folder = place.path("/proxy");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// What the distribution's `nginx.conf` has around the block.
fn nginx(place: &Place, text: &str, host: &str) -> (Command, PathBuf) {
    let folder = folder(place);
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};\n"));
    let whole = format!(
        "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{}{text}\n}}\n",
        temporary.concat()
    );
    fs::write(folder.join("nginx.conf"), whole).unwrap();
    let mut command = unprivileged("/usr/sbin/nginx", &folder);
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf"]);
    (command, place.path(&format!("/etc/ssl/{host}.pem")))
}

/// Caddy makes a certificate by itself: here by its own authority, which asks nobody outside.
fn caddy(place: &Place, text: &str) -> (Command, PathBuf) {
    let folder = folder(place);
    let (_, text) = text.split_once('\n').unwrap();
    let global = "{\nadmin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\n}\n";
    fs::write(folder.join("Caddyfile"), format!("{global}\n{text}")).unwrap();
    let mut command = unprivileged("/usr/bin/caddy", &folder);
    command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
    (command, folder.join("caddy/pki/authorities/local/root.crt"))
}

/// What the distribution's `haproxy.cfg` has before the block.
fn haproxy(place: &Place, text: &str) -> (Command, PathBuf) {
    let folder = folder(place);
    let defaults = "defaults\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n\n";
    fs::write(folder.join("haproxy.cfg"), format!("{defaults}{text}")).unwrap();
    let mut command = unprivileged("/usr/sbin/haproxy", &folder);
    command.args(["-db", "-f", "haproxy.cfg"]);
    (command, place.path(&format!("/etc/ssl/{HOST}.pem")))
}

/// Everything that a client does.
fn everything_works(proxy: &Proxy, in_front: bool) {
    files_and_folders(proxy);
    browsers(proxy);
    uploads_in_pieces(proxy);
    large_uploads_are_not_kept_back(proxy);
    // The client, not the proxy, is in the log.
    proxy.alice("/scans/a.txt", &["--interface", "127.0.0.5"]).is(200);
    let log = proxy.place.path("/var/log/stoa/access.log");
    until("the client is in the log", || fs::read_to_string(&log).is_ok_and(|text| text.contains("127.0.0.5")));
    if in_front {
        let lie = ["--interface", "127.0.0.6", "-H", "X-Forwarded-For: 192.0.2.66"];
        proxy.alice("/scans/a.txt", &lie).is(200);
        until("the other is in the log", || fs::read_to_string(&log).is_ok_and(|text| text.contains("127.0.0.6")));
        assert!(!fs::read_to_string(&log).unwrap().contains("192.0.2.66"), "a client says who it is");
    }
}

fn files_and_folders(proxy: &Proxy) {
    for (protocol, name) in [("--http1.1", "a.txt"), ("--http2", "b.txt")] {
        let path = format!("/scans/{name}");
        proxy.alice(&path, &[protocol, "-X", "PUT", "--data-binary", "0123456789"]).is(201);
        assert_eq!(proxy.ask(&path, &[protocol]).is(200).body, "0123456789");
        assert_eq!(proxy.ask(&path, &[protocol, "-r", "3-5"]).is(206).body, "345");
    }
    proxy.alice("/scans/new%20folder/", &["-X", "MKCOL"]).is(201);
    let own = proxy.port;
    for (index, origin) in
        [format!("https://{HOST}:{own}"), format!("http://{HOST}:{own}"), String::new()].iter().enumerate()
    {
        let to = format!("Destination: {origin}/scans/new%20folder/copy-{index}.txt");
        proxy.alice("/scans/a.txt", &["-X", "COPY", "-H", &to]).is(201);
        let to = format!("Destination: {origin}/scans/moved-{index}.txt");
        proxy.alice(&format!("/scans/new%20folder/copy-{index}.txt"), &["-X", "MOVE", "-H", &to]).is(201);
        assert_eq!(fs::read_to_string(proxy.stored(&format!("moved-{index}.txt"))).unwrap(), "0123456789");
    }
    for elsewhere in [format!("https://other.example.org:{own}"), format!("https://{HOST}:1")] {
        let to = format!("Destination: {elsewhere}/scans/x.txt");
        proxy.alice("/scans/a.txt", &["-X", "COPY", "-H", &to]).is(502);
    }
    let lock = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let taken = proxy.alice("/scans/b.txt", &["-X", "LOCK", "--data-binary", lock]);
    let token = taken.is(200).header("lock-token").to_owned();
    proxy.alice("/scans/b.txt", &["-X", "PUT", "--data-binary", "no"]).is(423);
    // Tagged with the address that the client knows.
    let tagged = format!("If: <{}> ({token})", proxy.url("/scans/b.txt"));
    proxy.alice("/scans/b.txt", &["-X", "PUT", "-H", &tagged, "--data-binary", "yes"]).is(204);
    proxy.alice("/scans/b.txt", &["-X", "UNLOCK", "-H", &format!("Lock-Token: {token}")]).is(204);
    assert!(proxy.alice("/scans/", &["-X", "PROPFIND", "-H", "Depth: 1"]).is(207).body.contains("moved-2.txt"));
}

fn browsers(proxy: &Proxy) {
    let here = format!("Origin: https://{HOST}:{}", proxy.port);
    let form = ["-d", "name=alice&password=wonderland"];
    proxy.ask("/-/login", &[&["-H", "Origin: https://evil.example"], &form[..]].concat()).is(403);
    let signed = proxy.ask("/-/login", &[&["-H", &here], &form[..]].concat());
    let cookie = signed.is(303).header("set-cookie").to_owned();
    assert!(cookie.contains("Host-stoa=") && cookie.contains("Secure"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    let file = ["-F", "file=by a form;filename=form.txt;type=text/plain"];
    proxy.ask("/scans/", &[&["-H", &cookie, "-H", "Origin: https://evil.example"], &file[..]].concat()).is(403);
    let posted = proxy.ask("/scans/", &[&["-H", &cookie, "-H", &here], &file[..]].concat());
    assert!([201, 303].contains(&posted.status), "{}{}", posted.head, posted.body);
    assert_eq!(fs::read_to_string(proxy.stored("form.txt")).unwrap(), "by a form");
    let page = proxy.ask("/-/connect", &["-H", &cookie]);
    assert!(page.is(200).body.contains(&proxy.url("/")), "{}", page.body);
}

fn uploads_in_pieces(proxy: &Proxy) {
    let tus = ["-H", "Tus-Resumable: 1.0.0"];
    let begin = ["-X", "POST", "-H", "Upload-Length: 10", "-H", "Upload-Metadata: filename dHVzLnR4dA=="];
    let begun = proxy.alice("/scans/", &[&tus[..], &begin].concat());
    let address = begun.is(201).header("location").to_owned();
    for (offset, piece) in [("0", "hello"), ("5", "world")] {
        let offset = format!("Upload-Offset: {offset}");
        let send = [
            "-X",
            "PATCH",
            "-H",
            "Content-Type: application/offset+octet-stream",
            "-H",
            &offset,
            "--data-binary",
            piece,
        ];
        proxy.alice(&address, &[&tus[..], &send].concat()).is(204);
    }
    assert_eq!(fs::read_to_string(proxy.stored("tus.txt")).unwrap(), "helloworld");
}

/// What has come is at the daemon while the client still sends.
fn large_uploads_are_not_kept_back(proxy: &Proxy) {
    let content = bytes(7, 12 << 20);
    let (first, second) = content.split_at(8 << 20);
    let mut curl = proxy.curl();
    curl.args(["--fail", "-u", "alice:wonderland", "-T", "-"]).arg(proxy.url("/scans/large.bin"));
    let mut curl = curl.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = curl.stdin.take().unwrap();
    input.write_all(first).unwrap();
    let stage = proxy.place.data().join("stage");
    let staged = || -> u64 {
        let entries = fs::read_dir(&stage).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum()
    };
    until("the first part is at the daemon", || staged() >= 4 << 20);
    input.write_all(second).unwrap();
    drop(input);
    let output = curl.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(sum(&proxy.stored("large.bin")), digest(&content));
}

#[test]
fn all_works_behind_nginx() {
    let proxy = Proxy::start(daemon(&[]), &block("nginx", "nginx"));
    everything_works(&proxy, true);
}

#[test]
fn all_works_behind_caddy() {
    let proxy = Proxy::start(daemon(&[]), &block("Caddy", "caddyfile"));
    everything_works(&proxy, true);
}

#[test]
fn all_works_behind_haproxy() {
    let proxy = Proxy::start(daemon(&[]), &block("HAProxy", "haproxy"));
    everything_works(&proxy, true);
}

#[test]
fn all_works_behind_haproxy_with_the_proxy_protocol() {
    let place = daemon(&["HAProxy, TLS passed through"]);
    let proxy = Proxy::start(place, &block("HAProxy, TLS passed through", "haproxy"));
    everything_works(&proxy, false);
}

#[test]
fn below_a_path_all_links_carry_it() {
    let place = daemon(&["Below a path"]);
    let proxy = Proxy::start(place, &block("Below a path", "nginx"));
    let at = |path: &str| format!("https://example.org:{}{path}", proxy.port);
    proxy.alice(&at("/files/scans/a.txt"), &["-X", "PUT", "--data-binary", "a"]).is(201);
    let to = format!("Destination: {}", at("/files/scans/b.txt"));
    proxy.alice(&at("/files/scans/a.txt"), &["-X", "MOVE", "-H", &to]).is(201);
    assert_eq!(proxy.ask(&at("/files/scans/b.txt"), &[]).is(200).body, "a");
    let signed = proxy.ask(&at("/files/-/login"), &["-d", "name=alice&password=wonderland"]);
    assert!(signed.is(303).header("set-cookie").contains("Path=/files"), "{}", signed.head);
    let page = proxy.ask(&at("/files/-/connect"), &[]);
    assert!(page.is(200).body.contains(&at("/files/")), "{}", page.body);
    proxy.ask(&at("/scans/b.txt"), &[]).is(404);
}
