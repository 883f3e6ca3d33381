//! The fuzzers' checks (`fuzz/checks`) on their seeds, on what clients say in the transcripts, and on both with a byte changed here and
//! there: the same bytes in every run.

use std::path::{Path, PathBuf};

use crate::transcripts::unescape;

#[path = "../../fuzz/checks/ftp_arguments.rs"]
mod ftp_arguments;
#[path = "../../fuzz/checks/ftp_command.rs"]
mod ftp_command;
#[path = "../../fuzz/checks/mime.rs"]
mod mime;
#[path = "../../fuzz/checks/proxy.rs"]
mod proxy;
#[path = "../../fuzz/checks/smtp_command.rs"]
mod smtp_command;

/// Changed copies of each seed.
const CHANGES: u32 = 40;

#[test]
fn ftp_lines_are_read_alike_wherever_they_are_cut() {
    replay("ftp_command", "ftp", ftp_command::check);
}

#[test]
fn ftp_arguments_never_panic() {
    replay("ftp_arguments", "", ftp_arguments::check);
}

#[test]
fn smtp_lines_and_content_are_read_alike_wherever_they_are_cut() {
    replay("smtp_command", "smtp", smtp_command::check);
}

#[test]
fn attachments_have_plain_names_wherever_the_message_is_cut() {
    replay("mime", "", mime::check);
}

#[test]
fn proxy_headers_ask_for_more_or_end() {
    replay("proxy", "", proxy::check);
}

fn replay(target: &str, door: &str, check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds: Vec<(PathBuf, Vec<u8>)> = files(&root.join("fuzz/corpus").join(target))
        .into_iter()
        .map(|file| (file.clone(), std::fs::read(file).expect("a seed")))
        .collect();
    assert!(!seeds.is_empty(), "no seeds");
    if !door.is_empty() {
        let said =
            files(&root.join("tests/transcripts").join(door)).into_iter().map(|file| (file.clone(), said(&file)));
        seeds.extend(said);
    }
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |most: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).expect("31 bits") % most.max(1)
    };
    for (file, seed) in seeds {
        println!("{}", file.display());
        check(&seed);
        for _ in 0..CHANGES {
            let mut changed = seed.clone();
            for _ in 0..=roll(3) {
                let (at, byte) = (roll(changed.len()), u8::try_from(roll(256)).expect("a byte"));
                match (roll(4), changed.get_mut(at)) {
                    (0 | 1, Some(there)) => *there = byte,
                    (2, Some(_)) => drop(changed.remove(at)),
                    _ => changed.insert(at, byte),
                }
            }
            check(&changed);
        }
    }
}

/// The plain files of a folder, in order; what a fuzzer found on its own lies in a folder below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// What the client says in a transcript, with the byte that tells where to cut before it. As `scripts/fuzz` makes its seeds.
fn said(file: &Path) -> Vec<u8> {
    let mut bytes = vec![3];
    for line in std::fs::read_to_string(file).expect("a transcript").lines() {
        if let Some(text) = line.strip_prefix("C: ") {
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        } else if let Some(text) = line.strip_prefix("C> ") {
            bytes.extend(unescape(text).expect("escapes"));
        }
    }
    bytes
}
