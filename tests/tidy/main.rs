//! The house rules as a test: which room may name which, how long a file and a function may be, which words live where.
//!
//! A failure here names the file, the line and the rule. The table of arrows is the one in `docs/architecture.md`.

mod imports;

use std::fs;
use std::path::{Path, PathBuf};

/// Room → rooms it may name in `use crate::…` or `crate::…`. Anything else fails.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("origin", &[]),
    ("units", &[]),
    ("telemetry", &["error", "origin", "units"]),
    ("store", &["error", "units"]),
    ("hub", &["error", "origin", "units", "telemetry", "store"]),
    ("net", &["error", "origin", "units", "telemetry"]),
    ("proto", &["error", "origin", "units", "telemetry", "net", "hub"]),
    ("config", &["error", "origin", "units", "telemetry", "net", "hub", "store", "proto"]),
    ("daemon", &["error", "origin", "units", "telemetry", "net", "hub", "store", "proto", "config"]),
    ("cli", &["error", "origin", "units", "telemetry", "net", "hub", "store", "proto", "config", "daemon"]),
];

/// Word → the only places where it may occur: engines, sockets and HTTP have one home each.
const HOMES: &[(&str, &[&str])] = &[
    ("rusqlite", &["src/store/"]),
    ("tokio_postgres", &["src/store/"]),
    ("deadpool_postgres", &["src/store/"]),
    ("tokio::net", &["src/net/"]),
    ("std::net::Tcp", &["src/net/"]),
    ("tokio_rustls", &["src/net/"]),
    ("hyper::", &["src/proto/http/"]),
    ("mail_auth", &["src/proto/smtp/"]),
    ("mailparse", &["src/hub/mail"]),
    ("std::env::set_var", &[]),
    ("println!", &["src/cli/"]),
];

/// Longest file, in lines: without and with its inline tests.
const FILE: (usize, usize) = (600, 800);

/// Longest function, in lines.
const FUNCTION: usize = 70;

/// Module names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "global"];

struct Source {
    path: PathBuf,
    name: String,
    text: String,
}

impl Source {
    /// The text before its inline tests.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or(&self.text)
    }

    fn room(&self) -> &str {
        let inside = self.name.strip_prefix("src/").unwrap_or(&self.name);
        inside.split(['/', '.']).next().unwrap_or_default()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("src"), root, &mut found);
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn collect(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable source folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("UTF-8 source");
            found.push(Source { path, name, text });
        }
    }
}

fn fail_on(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn arrows_never_point_up() {
    let mut problems = Vec::new();
    for source in sources() {
        let room = source.room();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else { continue };
        for (number, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for named in rooms_named(line) {
                let known = ARROWS.iter().any(|(name, _)| *name == named);
                if known && named != room && !allowed.contains(&named) {
                    problems.push(format!("{}:{}: `{room}` may not use `{named}`", source.name, number + 1));
                }
            }
        }
    }
    fail_on(&problems);
}

/// Rooms after each `crate::` in a line.
fn rooms_named(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .filter_map(|(at, word)| line.get(at + word.len()..))
        .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default())
        .collect()
}

/// Parts of the tree in which files still import each other in a circle, with how many do. The rest has none, and these only shrink.
const CIRCLES: &[(&str, usize)] = &[("src/hub/", 45), ("src/proto/", 55)];

#[test]
fn files_do_not_import_each_other_in_circles() {
    let mut left: Vec<(&str, usize)> = CIRCLES.iter().map(|(part, _)| (*part, 0)).collect();
    let mut problems = Vec::new();
    for circle in imports::circles(&imports::read(&sources())) {
        let known = left.iter_mut().find(|(part, _)| circle.iter().all(|file| file.starts_with(part)));
        match known {
            Some((_, count)) => *count += circle.len(),
            None => problems.push(format!("these import each other: {}", Vec::from_iter(circle).join(", "))),
        }
    }
    for ((part, most), (_, count)) in CIRCLES.iter().zip(&left) {
        if count != most {
            problems.push(format!(
                "{count} files of {part} are in circles, not {most}: more may not be; write down what is left"
            ));
        }
    }
    fail_on(&problems);
}

#[test]
fn imports_can_be_read_by_a_text_scan() {
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if line.contains("use crate::{") || line.contains("super::super") {
                problems.push(format!("{}:{}: name the room in the path: {}", source.name, number + 1, line.trim()));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn languages_do_not_know_each_other() {
    let languages: Vec<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto"))
        .expect("src/proto")
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(languages.len() >= 3, "the languages were not found");
    let mut problems = Vec::new();
    for source in sources() {
        let Some(own) = languages.iter().find(|name| source.name.starts_with(&format!("src/proto/{name}/"))) else {
            continue;
        };
        for other in languages.iter().filter(|name| *name != own) {
            if source.text.contains(&format!("proto::{other}")) {
                problems.push(format!("{}: `{own}` may not use `{other}`", source.name));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn engines_sockets_and_http_stay_at_home() {
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.code().lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (word, homes) in HOMES {
                if line.contains(word) && !homes.iter().any(|home| source.name.starts_with(home)) {
                    problems.push(format!("{}:{}: `{word}` belongs in {homes:?}", source.name, number + 1));
                }
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut problems = Vec::new();
    for source in sources() {
        let (code, whole) = (source.code().lines().count(), source.text.lines().count());
        if code > FILE.0 || whole > FILE.1 {
            problems.push(format!("{}: {code} lines of code, {whole} in all; at most {FILE:?}", source.name));
        }
        if !source.text.starts_with("//! ") {
            problems.push(format!("{}: begins without saying what it is for", source.name));
        }
        let stem = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = source.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        if EMPTY_NAMES.contains(&stem.as_str()) || EMPTY_NAMES.contains(&folder.as_str()) {
            problems.push(format!("{}: a name that says nothing", source.name));
        }
    }
    fail_on(&problems);
}

#[test]
fn functions_are_short() {
    let mut problems = Vec::new();
    for source in sources() {
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in source.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if open.is_none() && starts_function(line) && !line.trim_end().ends_with(';') && !line.contains('}') {
                open = Some((number, indent, line.trim().to_owned()));
                continue;
            }
            if let Some((start, depth, head)) = &open
                && indent == *depth
                && line.trim_start().starts_with(['}', ';'])
            {
                let length = number - start + 1;
                if length > FUNCTION {
                    problems.push(format!("{}:{}: {length} lines: {head}", source.name, start + 1));
                }
                open = None;
            }
        }
    }
    fail_on(&problems);
}

fn starts_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    loop {
        match words.next() {
            Some("fn") => return true,
            Some("async" | "const" | "unsafe" | "pub") => {}
            Some(word) if word.starts_with("pub(") || word == "super)" => {}
            _ => return false,
        }
    }
}

#[test]
fn nothing_unfinished_is_left() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                problems.push(format!("{}:{}: unfinished: {}", source.name, number + 1, line.trim()));
            }
            let silent_allow = line.contains("[allow(") && !line.contains("reason");
            if silent_allow {
                problems.push(format!("{}:{}: an allow needs a reason", source.name, number + 1));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn main_is_thin() {
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).expect("src/main.rs");
    assert!(main.lines().count() <= 60, "main.rs only hands over to the command line");
}
