//! The fenced blocks of a page, each with its language, its heading and its line.

use std::fs;
use std::path::{Path, PathBuf};

/// One fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// `docs/webdav.md:41`, for messages.
    pub at: String,
    /// The heading that it stands below.
    pub heading: String,
    pub language: String,
    pub text: String,
}

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `README.md` and every page of `docs/`, by their names.
pub fn all_pages() -> Vec<String> {
    let entries = fs::read_dir(project().join("docs")).expect("docs/");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut pages: Vec<_> =
        names.filter(|name| std::path::Path::new(name).extension().is_some_and(|end| end == "md")).collect();
    pages.push("README.md".into());
    pages.sort();
    pages
}

/// Where a page is.
fn path(page: &str) -> PathBuf {
    if page == "README.md" { project().join(page) } else { project().join("docs").join(page) }
}

/// The text of a page.
pub fn read(page: &str) -> String {
    let path = path(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a page in their order.
pub fn of(page: &str) -> Vec<Block> {
    blocks(page, &read(page))
}

fn blocks(page: &str, text: &str) -> Vec<Block> {
    let (mut found, mut open, mut heading) = (Vec::new(), None::<Block>, String::new());
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => found.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                let at = format!("{page}:{}", index + 1);
                open = Some(Block { at, heading: heading.clone(), language: language.into(), text: String::new() });
            }
            (None, None) if line.starts_with('#') => line.trim_start_matches('#').trim().clone_into(&mut heading),
            (None, None) => {
                assert!(!line.trim_start().starts_with("```"), "{page}:{}: a block is not indented", index + 1);
            }
        }
    }
    assert!(open.is_none(), "{page}: the last block does not end");
    found
}

impl Block {
    /// The file that the block belongs in: its first line is `# PATH`, or `# PATH, in place of …`.
    pub fn file(&self) -> &str {
        let first = self.text.lines().next().unwrap_or_default();
        let path = first.strip_prefix("# ").and_then(|rest| rest.split([',', ':', ' ']).next()).unwrap_or_default();
        assert!(path.contains(['/', '.']), "{}: the first line does not name the file: `{first}`", self.at);
        path
    }

    /// What is written into that file takes the place of something there.
    pub fn replaces(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("in place of"))
    }
}

#[test]
fn a_block_has_its_language_heading_and_line() {
    let text = "# One\n\n```sh\n# not a heading\nls\n```\n## Two\n```toml\n# /etc/a.toml, in place of b\nc = 1\n```\n";
    let found = blocks("x.md", text);
    let told: Vec<_> = found.iter().map(|b| (&*b.at, &*b.heading, &*b.language)).collect();
    assert_eq!(told, [("x.md:3", "One", "sh"), ("x.md:8", "Two", "toml")]);
    assert_eq!((found[1].file(), found[1].replaces()), ("/etc/a.toml", true));
    assert_eq!(found[0].text, "# not a heading\nls\n");
}
