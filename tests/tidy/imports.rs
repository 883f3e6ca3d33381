//! Which file imports which: every path that starts at `crate`, `super`, `self` or a child module is followed through re-exports to the file
//! that defines what it names.

use std::collections::{BTreeMap, BTreeSet};

use crate::Source;

/// File → files that it names.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// One source file as a module.
struct Module {
    file: String,
    path: Vec<String>,
    code: String,
}

/// Resolves paths to files.
struct Tree {
    files: BTreeMap<Vec<String>, String>,
    /// What a module re-exports under which name.
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

/// Reads the imports of all sources; what tests import does not count.
pub fn read(sources: &[Source]) -> Imports {
    let modules: Vec<Module> = sources.iter().map(module).collect();
    let files = modules.iter().map(|one| (one.path.clone(), one.file.clone())).collect();
    let mut tree = Tree { files, exports: BTreeMap::new() };
    for module in &modules {
        for (_, path) in uses(&module.code).0.into_iter().filter(|(exported, _)| *exported) {
            let (path, name) = named(&path);
            if let Some(path) = tree.absolute(module, &path) {
                tree.exports.insert((module.path.clone(), name), path);
            }
        }
    }
    modules.iter().map(|module| (module.file.clone(), tree.imports(module))).collect()
}

/// The sets of files that import each other in a circle.
pub fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reached(imports, file))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, far) in &reach {
        let circle: BTreeSet<String> = far
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(file)))
            .map(|one| (*one).clone())
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reached<'a>(imports: &'a Imports, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        for other in imports.get(file).into_iter().flatten() {
            if seen.insert(other) {
                next.push(other);
            }
        }
    }
    seen
}

fn module(source: &Source) -> Module {
    let inside = source.name.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod" || inside == "lib") {
        path.pop();
    }
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code = source.code().lines().filter(is_code).collect::<Vec<_>>().join("\n");
    Module { file: source.name.clone(), path, code }
}

impl Tree {
    fn imports(&self, module: &Module) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let (uses, code) = uses(&module.code);
        for (exported, path) in uses.into_iter().chain(mentions(&code).map(|path| (false, path))) {
            let (path, _) = named(&path);
            let Some(path) = self.absolute(module, &path) else { continue };
            // A module that re-exports its children does not import them.
            if exported && path.starts_with(&module.path) {
                continue;
            }
            found.extend(self.file(&path).filter(|file| *file != module.file));
        }
        found
    }

    /// From the root of the crate; `None` for what another crate defines.
    fn absolute(&self, module: &Module, path: &str) -> Option<Vec<String>> {
        let mut parts = path.split("::").map(str::trim).map(str::to_owned).peekable();
        let mut base = match parts.peek()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.path.clone(),
            first => {
                let child = [&module.path[..], &[first.to_owned()]].concat();
                return self.files.contains_key(&child).then(|| [module.path.clone(), parts.collect()].concat());
            }
        };
        while parts.peek().is_some_and(|part| matches!(part.as_str(), "crate" | "self" | "super")) {
            if parts.next()? == "super" {
                base.pop();
            }
        }
        base.extend(parts);
        Some(base)
    }

    /// The file that defines what a path names.
    fn file(&self, path: &[String]) -> Option<String> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(path.split_at(*length).0))?;
        let (module, rest) = path.split_at(length);
        let exported = rest.split_first().and_then(|(name, behind)| {
            let target = self.exports.get(&(module.to_vec(), name.clone()))?;
            (target.split_last() != Some((name, module))).then(|| [target, behind].concat())
        });
        match exported {
            Some(target) => self.file(&target),
            None => self.files.get(module).cloned(),
        }
    }
}

/// A path without its ` as name`, and the name it is known by.
fn named(path: &str) -> (String, String) {
    let (path, alias) = path.split_once(" as ").map_or((path, None), |(path, alias)| (path, Some(alias)));
    let path = path.trim().trim_end_matches("::self");
    let last = path.rsplit("::").next().unwrap_or_default();
    (path.to_owned(), alias.unwrap_or(last).trim().to_owned())
}

/// Every path of every `use`, and whether it is re-exported; and the code without them.
fn uses(code: &str) -> (Vec<(bool, String)>, String) {
    let (mut found, mut others) = (Vec::new(), String::new());
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, after) = (&rest[..at], &rest[at + "use ".len()..]);
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        others.push_str(before);
        rest = after;
        if line.is_empty() || line.starts_with("pub") {
            let (tree, behind) = after.split_once(';').unwrap_or_default();
            found.extend(leaves(tree).into_iter().map(|path| (line.starts_with("pub"), path)));
            rest = behind;
        }
    }
    others.push_str(rest);
    (found, others)
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((stem, inner)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("a part").push(letter);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(part)).map(|leaf| format!("{stem}{leaf}")).collect()
}

/// Paths in the code itself, `super::name::function(…)`.
fn mentions(code: &str) -> impl Iterator<Item = String> {
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(move |letter: char| !is_path(letter));
    words.filter(|word| word.contains("::")).map(|word| word.trim_matches(':').to_owned())
}
