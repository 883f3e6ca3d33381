//! A folder's zip is read by the programs and libraries people have, by the directory at its end or as it comes, with every byte in place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use sha2::Digest;

use crate::daemon::Daemon;
use crate::uploads::{connect, daemon, exchange, request};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/h2/bin/python");
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules");
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/zip/");

/// How a reader is given the zip and what it makes of it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Reads the file named last; prints what is in it.
    File,
    /// Reads its standard input; prints what is in it.
    Stream,
    /// Reads the file named last; unpacks into the folder it is in.
    Unpack,
    /// Reads its standard input; unpacks into the folder it is in.
    UnpackStream,
}

/// Words that begin with `@` are files of `tests/clients/zip`.
const READERS: [(Way, &[&str]); 14] = [
    (Way::Unpack, &["unzip", "-q", "-o"]),
    (Way::Unpack, &["7z", "x", "-y"]),
    (Way::Unpack, &["bsdtar", "-xf"]),
    (Way::UnpackStream, &["bsdtar", "-xf", "-"]),
    (Way::Unpack, &["jar", "xf"]),
    (Way::UnpackStream, &["jar", "x"]),
    (Way::Stream, &["java", "@Unzip.java"]),
    (Way::File, &["python3", "@unzip.py"]),
    (Way::Stream, &[PYTHON, "@unzip.py"]),
    (Way::File, &["go", "run", "@unzip.go"]),
    (Way::Stream, &["go", "run", "@unzip.go"]),
    (Way::File, &["node", "@unzip.js", "yauzl"]),
    (Way::Stream, &["node", "@unzip.js", "unzipper"]),
    (Way::Stream, &["node", "@unzip.js", "fflate"]),
];

/// Size and sum by name; folders end with a slash.
type Contents = BTreeMap<String, (u64, String)>;

fn command(words: &[&str], place: &Path) -> Command {
    let mut command = Command::new(words[0]);
    for word in &words[1..] {
        match word.strip_prefix('@') {
            Some(file) => command.arg(format!("{CLIENTS}{file}")),
            None => command.arg(word),
        };
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    command.current_dir(place).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("NODE_PATH", NODE);
    command.env("GOCACHE", cache).env("GO111MODULE", "off");
    command
}

/// What a reader finds in a zip, or what it says against it.
fn find(way: Way, words: &[&str], zip: &Path) -> Result<Contents, String> {
    let place = tempfile::tempdir().unwrap();
    let mut command = command(words, place.path());
    match way {
        Way::File | Way::Unpack => command.arg(zip),
        Way::Stream | Way::UnpackStream => command.stdin(File::open(zip).unwrap()),
    };
    let output = command.output().unwrap_or_else(|error| panic!("{words:?}: {error}; scripts/test installs it"));
    match output.status.success() {
        false => Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))),
        true if matches!(way, Way::File | Way::Stream) => Ok(printed(&String::from_utf8(output.stdout).unwrap())),
        true => {
            let mut found = Contents::new();
            unpacked(place.path(), "", &mut found);
            Ok(found)
        }
    }
}

/// `SHA-256 SIZE NAME`, one a line.
fn printed(text: &str) -> Contents {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}")).to_owned();
        let (sum, size, name) = (word(), word(), word());
        (name, (size.parse().unwrap(), sum))
    };
    text.lines().map(line).collect()
}

fn unpacked(folder: &Path, name: &str, found: &mut Contents) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            let name = format!("{name}/");
            found.insert(name.clone(), described(b""));
            unpacked(&entry.path(), &name, found);
        } else {
            found.insert(name, described(&fs::read(entry.path()).unwrap()));
        }
    }
}

fn described(body: &[u8]) -> (u64, String) {
    use std::fmt::Write;
    let mut sum = String::new();
    for byte in sha2::Sha256::digest(body) {
        write!(sum, "{byte:02x}").unwrap();
    }
    (body.len() as u64, sum)
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    (0..length).map(|_| next()).collect()
}

/// Names on the disk and their names in the zip.
const NAMES: [(&[u8], &str); 16] = [
    (b"plain.txt", "plain.txt"),
    (b"a b  c", "a b  c"),
    (b"-rf", "-rf"),
    (b"100%", "100%"),
    (b"a%5Cb", "a%255Cb"),
    (b"back\\slash", "back%5Cslash"),
    (b"line\nfeed", "line\u{fffd}0Afeed"),
    (b"latin-\xe9", "latin-\u{fffd}E9"),
    ("\u{dc}bersicht \u{20ac}.pdf".as_bytes(), "\u{dc}bersicht \u{20ac}.pdf"),
    ("\u{8acb}\u{6c42}\u{66f8}".as_bytes(), "\u{8acb}\u{6c42}\u{66f8}"),
    ("\u{1f4f7}.jpg".as_bytes(), "\u{1f4f7}.jpg"),
    (b"'quoted' \"twice\"", "'quoted' \"twice\""),
    (b"con", "con"),
    (b"dot.", "dot."),
    (b"$(x) `y` & *?", "$(x) `y` & *?"),
    (b"[brackets]", "[brackets]"),
];

/// Seconds and the time that a zip can say.
const TIMES: [(i64, &str); 9] = [
    (-2_000_000_000, "1980 1 1 0 0 0"),
    (-1, "1980 1 1 0 0 0"),
    (315_532_799, "1980 1 1 0 0 0"),
    (315_532_800, "1980 1 1 0 0 0"),
    (1_700_000_001, "2023 11 14 22 13 20"),
    (2_147_483_648, "2038 1 19 3 14 8"),
    (4_354_819_198, "2107 12 31 23 59 58"),
    (4_354_819_200, "2107 12 31 23 59 58"),
    (7_000_000_000, "2107 12 31 23 59 58"),
];

fn set_time(path: &Path, seconds: i64) {
    let away = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH - away } else { UNIX_EPOCH + away };
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Fills a folder; what its zip must hold.
fn fill(folder: &Path) -> Contents {
    let mut expected = Contents::new();
    let mut lay = |name: &[u8], shown: &str, body: &[u8]| {
        let path = folder.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, body).unwrap();
        expected.insert(format!("d/{shown}"), described(body));
        path
    };
    for (name, shown) in NAMES {
        let (name, shown) = ([&b"names/"[..], name].concat(), format!("names/{shown}"));
        lay(&name, &shown, shown.as_bytes());
    }
    let long = format!("names/{}", "\u{e9}".repeat(127));
    lay(long.as_bytes(), &long, b"long");
    for (number, (seconds, _)) in TIMES.iter().enumerate() {
        let name = format!("times/{number}");
        set_time(&lay(name.as_bytes(), &name, b"dated"), *seconds);
    }
    for size in
        [0, 1, 32_767, 32_768, 32_769, 65_535, 65_536, 262_143, 262_144, 262_145, 1 << 20, 10 << 20, (10 << 20) + 7]
    {
        let name = format!("sizes/{size}");
        lay(name.as_bytes(), &name, &noise(size));
    }
    lay(b"zeros", "zeros", &vec![0; 3 << 20]);
    let marks = [&b"PK\x03\x04"[..], b"PK\x07\x08", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PKPPK\x07\x08PK"];
    lay(b"marks", "marks", &marks.concat().repeat(20_000));
    for at in [32_765, 32_766, 32_767, 262_141, 262_143] {
        let name = format!("mark at {at}");
        lay(name.as_bytes(), &name, &[&noise(at)[..], b"PK\x07\x08", &noise(99)].concat());
    }
    for number in 0..1500 {
        let name = format!("many/{}/{number}", number % 7);
        lay(name.as_bytes(), &name, name.as_bytes());
    }
    for name in ["empty", "empty too/below/that", "\u{e4}\u{f6}\u{fc}"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in ["empty", "empty too", "empty too/below", "empty too/below/that", "\u{e4}\u{f6}\u{fc}"]
        .map(str::to_owned)
        .into_iter()
        .chain(["many", "names", "sizes", "times"].map(str::to_owned))
        .chain((0..7).map(|number| format!("many/{number}")))
    {
        expected.insert(format!("d/{name}/"), described(b""));
    }
    expected
}

fn download(daemon: &Daemon, to: &Path) {
    let said = exchange(daemon.http, &request("alice", "GET", "/in/d/?archive=zip", &[], b""));
    assert_eq!(said.status, 200);
    fs::write(to, &said.body).unwrap();
}

/// What differs, some of it.
fn differences(found: &Contents, expected: &Contents) -> String {
    let missing = expected.iter().filter(|(name, what)| found.get(*name) != Some(what));
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    let missing: Vec<_> =
        missing.take(5).map(|(name, what)| (name, what.0, found.get(name).map(|one| one.0))).collect();
    format!("{missing:?}, beside {:?}", more.take(5).collect::<Vec<_>>())
}

#[test]
fn every_reader_finds_every_byte() {
    let daemon = daemon("");
    let desk = tempfile::tempdir().unwrap();
    let zip = desk.path().join("d.zip");
    let folder = daemon.on_disk("/in/d");
    fs::create_dir_all(&folder).unwrap();
    let mut expected = fill(&folder);
    // A zip in a zip: its records are content now.
    download(&daemon, &zip);
    fs::copy(&zip, folder.join("inner.zip")).unwrap();
    expected.insert("d/inner.zip".into(), described(&fs::read(&zip).unwrap()));
    download(&daemon, &zip);
    let part = desk.path().join("part.zip");
    let whole = fs::read(&zip).unwrap();
    fs::write(&part, &whole[..whole.len() / 2]).unwrap();

    let wrong = std::sync::Mutex::new(Vec::new());
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((way, words)) = READERS.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
                    match find(*way, words, &zip) {
                        Err(said) => wrong.lock().unwrap().push(format!("{words:?}: {said}")),
                        Ok(mut found) => {
                            // An unpacker also makes the folder around all.
                            found.remove("d/");
                            if found != expected {
                                wrong.lock().unwrap().push(format!("{words:?}: {}", differences(&found, &expected)));
                            }
                        }
                    }
                    if find(*way, words, &part).is_ok() {
                        wrong.lock().unwrap().push(format!("{words:?}: takes half a zip for a whole one"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for words in [&["unzip", "-tq"][..], &["zipinfo", "-1"], &["7z", "t"], &["bsdtar", "-tf"], &["jar", "tf"]] {
        let said = find(Way::Unpack, words, &zip);
        assert!(said.is_ok(), "{words:?}: {said:?}");
    }
    let script = "import sys, zipfile\nfor one in zipfile.ZipFile(sys.argv[1]).infolist(): print(ascii(one.filename), *one.date_time, one.flag_bits & 0x800)";
    let said = command(&["python3", "-c", script], desk.path()).arg(&zip).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    for (number, (_, time)) in TIMES.iter().enumerate() {
        assert!(said.contains(&format!("'d/times/{number}' {time} 2048\n")), "{number} {time}: {said}");
    }
}

/// Bytes of the file that needs zip64.
const LARGE: u64 = (4 << 30) + 5;

/// Starts a reader of what comes.
fn reading(words: &[&str], place: &Path) -> Child {
    let mut command = command(words, place);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("{words:?}: {error}; scripts/test installs it"))
}

/// Of more than 4 GiB only the size is compared: each reader checks the sum itself.
#[test]
fn a_file_beyond_4_gib_is_read_as_it_comes() {
    let daemon = daemon("");
    let desk = tempfile::tempdir().unwrap();
    fs::create_dir_all(daemon.on_disk("/in/d")).unwrap();
    File::create(daemon.on_disk("/in/d/large")).unwrap().set_len(LARGE).unwrap();
    fs::write(daemon.on_disk("/in/d/small"), "small").unwrap();

    let java = format!("{CLIENTS}Unzip.java");
    let mut readers = [reading(&["java", &java], desk.path()), reading(&["bsdtar", "-xOf", "-"], desk.path())];
    let sizes: Vec<_> = readers.iter_mut().map(|reader| count(reader.stdout.take().unwrap())).collect();
    let mut stream = connect(daemon.http);
    let request = String::from_utf8(request("alice", "GET", "/in/d/?archive=zip", &[], b"")).unwrap();
    stream.write_all(request.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        for reader in &mut readers {
            reader.stdin.as_mut().unwrap().write_all(&buffer[..read]).unwrap();
        }
    }
    for (mut reader, said) in readers.into_iter().zip(sizes) {
        drop(reader.stdin.take());
        let mut errors = String::new();
        reader.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(reader.wait().unwrap().success(), "{errors}");
        let (bytes, start) = said.join().unwrap();
        let listed = String::from_utf8_lossy(&start).contains(&format!(" {LARGE} d/large\n"));
        assert!(listed || bytes == LARGE + 5, "{bytes} bytes: {errors}");
    }
}

/// How many bytes come, and the first of them.
fn count(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<(u64, Vec<u8>)> {
    std::thread::spawn(move || {
        let mut start = Vec::new();
        from.by_ref().take(4096).read_to_end(&mut start).unwrap();
        (start.len() as u64 + std::io::copy(&mut from, &mut std::io::sink()).unwrap(), start)
    })
}
