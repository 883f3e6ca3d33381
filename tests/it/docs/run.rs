//! Runs a page from its first block to its last.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::blocks::{self, Block, project};
use super::place::{Place, Start};
use super::unrun::UNRUN;

/// A page while it is run.
pub struct Run {
    pub place: Place,
    page: String,
    /// What the commands of the last `sh` block wrote.
    output: String,
    /// Entries of the table that were met.
    passed_over: BTreeSet<&'static str>,
}

/// Runs all blocks of a page. The place is as the page left it.
pub fn page(name: &str, start: Start) -> Place {
    let mut run = Run::new(name, start);
    for block in blocks::of(name) {
        run.block(&block);
    }
    for (page, first, why) in UNRUN {
        assert!(
            *page != name || run.passed_over.contains(first),
            "{name} has no block or line `{first}` any more ({why})"
        );
    }
    run.place
}

impl Run {
    pub fn new(page: &str, start: Start) -> Self {
        let place = Place::new(start);
        Self { place, page: page.into(), output: String::new(), passed_over: BTreeSet::new() }
    }

    /// Runs one block, by its language.
    pub fn block(&mut self, block: &Block) {
        let first = block.text.lines().next().unwrap_or_default();
        if block.language != "sh" && self.is_unrun(first) {
            return;
        }
        match block.language.as_str() {
            "sh" => self.commands(block),
            "toml" => self.configuration(block),
            "nginx" | "caddyfile" | "haproxy" => {
                // Run by the tests of `proxies.rs`.
                assert_eq!(self.page, "behind-a-proxy.md", "{}: no test runs this", block.at);
                assert!(!block.file().is_empty());
            }
            "text" => self.expected(block),
            "json" => self.same_keys(block),
            "js" => self.script(block),
            other => panic!("{}: no test runs a block of `{other}`; list it in unrun.rs with the reason", block.at),
        }
    }

    fn is_unrun(&mut self, line: &str) -> bool {
        let entry = UNRUN.iter().find(|(page, first, _)| *page == self.page && first.trim() == line.trim());
        self.passed_over.extend(entry.map(|(_, first, _)| first));
        entry.is_some()
    }

    /// Lines that the table lists are left out; `scripts/run` runs beside the other commands.
    fn commands(&mut self, block: &Block) {
        let (mut commands, mut output) = (String::new(), String::new());
        let lines: Vec<_> = block.text.lines().filter(|line| !self.is_unrun(line)).map(str::to_owned).collect();
        for line in lines {
            let command = line.split(" #").next().unwrap_or_default().trim_end();
            if command.ends_with("scripts/run") && !command.starts_with('#') {
                output += &self.shell(block, &std::mem::take(&mut commands));
                output += &self.place.serve(command);
            } else {
                commands.push_str(&line);
                commands.push('\n');
            }
        }
        output += &self.shell(block, &commands);
        self.output = output;
    }

    fn shell(&mut self, block: &Block, commands: &str) -> String {
        if commands.trim().is_empty() {
            return String::new();
        }
        self.place.sh(commands).unwrap_or_else(|error| panic!("{}:\n{}\n{error}", block.at, block.text))
    }

    /// Puts the block into the file that it names. `stoa check` has to be content.
    fn configuration(&mut self, block: &Block) {
        let path = self.place.put(block);
        let installed = path.starts_with(self.place.path("/etc/stoa"));
        let check = if installed { "stoa check --quiet".into() } else { self.check_of_another(&path) };
        self.place.sh(&check).unwrap_or_else(|error| panic!("{}:\n{}\n{error}", block.at, block.text));
    }

    /// Checks a file that the running daemon does not have yet: beside it, so with another data folder and other ports.
    fn check_of_another(&self, path: &Path) -> String {
        let (copy, data) = (self.place.path("/checked.toml"), self.place.path("/checked"));
        let text = fs::read_to_string(path).expect("the configuration");
        fs::write(&copy, format!("{text}\n[[listen]]\nprotocol = \"admin\"\naddress = \"127.0.0.1:0\"\n"))
            .expect("a copy");
        format!("STOA__DATA='{}' target/release/stoa --config '{}' check --quiet", data.display(), copy.display())
    }

    /// The lines of the block are in the output of the commands before it, in their order; `…` is any text.
    fn expected(&mut self, block: &Block) {
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let output = self.output.lines().map(squeezed).collect::<Vec<_>>();
        let mut rest = output.iter();
        let wanted = self.place.here(&block.text);
        for wanted in wanted.lines().map(squeezed).filter(|line| !line.is_empty()) {
            let met = rest.any(|line| is_like(line, &wanted));
            assert!(met, "{}: nothing was written like\n{wanted}\nbut\n{}", block.at, output.join("\n"));
        }
    }

    /// The last JSON that the commands before it wrote has the keys that the block shows.
    fn same_keys(&mut self, block: &Block) {
        let shown: serde_json::Value =
            serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.at));
        let written = self.output.lines().rev().find_map(|line| serde_json::from_str(line.trim()).ok());
        let written: serde_json::Value =
            written.unwrap_or_else(|| panic!("{}: no JSON was written:\n{}", block.at, self.output));
        assert_eq!(keys(&shown), keys(&written), "{}: {written}", block.at);
    }

    /// Runs a script as a page of a browser would, with a file to upload.
    fn script(&mut self, block: &Block) {
        let modules = project().join("target/clients/node_modules");
        assert!(modules.is_dir(), "run scripts/test once: it installs tus-js-client");
        let text = format!(
            "const tus = require('tus-js-client');\n\
             const file = Object.assign(Buffer.from('by tus'), {{ name: 'by-tus.txt', lastModified: 1700000000000 }});\n\
             const onError = error => {{ console.error(String(error)); process.exit(1); }};\n\
             const options = tus.Upload;\n\
             tus.Upload = class extends options {{ constructor(file, given) {{ super(file, {{ ...given, onError }}); }} }};\n{}",
            self.place.here(&block.text)
        );
        let path = self.place.path("/page.js");
        fs::write(&path, text).expect("a script");
        let output = Command::new("node").arg(&path).env("NODE_PATH", modules).output().expect("node");
        assert!(output.status.success(), "{}: {}", block.at, String::from_utf8_lossy(&output.stderr));
    }
}

/// Whether a line is what was expected, where `…` is any text.
fn is_like(line: &str, wanted: &str) -> bool {
    let mut pieces = wanted.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// The keys of objects, those of the first element of lists too.
fn keys(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| keys(value).into_iter().map(move |below| format!("{key}.{below}")))
            .collect(),
        serde_json::Value::Array(list) => list.first().map(keys).unwrap_or_default(),
        _ => vec![String::new()],
    }
}

/// The path of a file that a page left in its clone.
pub fn left(place: &Place, name: &str) -> PathBuf {
    place.path(name)
}

#[test]
fn expected_lines_may_leave_out_what_differs() {
    for (line, wanted, like) in [
        ("user admin, password abc", "user admin, password …", true),
        ("user admin, password abc", "user admin, password", false),
        ("a 1 b 2 c", "a … b … c", true),
        ("a 1 b 2 d", "a … b … c", false),
        ("xa", "a", false),
        ("anything", "…", true),
    ] {
        assert_eq!(is_like(line, wanted), like, "{line} / {wanted}");
    }
}
