//! The files in `conf/` and the code say the same.

use std::path::{Path, PathBuf};

use stoa::config::{self, Config, schema};

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

/// The file with its examples (`#` without a blank) made real.
fn with_examples(text: &str) -> String {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// `[section] key` of every key of `wanted` that `given` lacks.
fn missing(wanted: &toml::Table, given: &toml::Table, section: &str, into: &mut Vec<String>) {
    for (key, value) in wanted {
        match (value, given.get(key)) {
            (toml::Value::Table(wanted), None) if wanted.is_empty() => {}
            (_, None) => into.push(format!("[{section}] {key} = {value}")),
            (toml::Value::Table(wanted), Some(toml::Value::Table(given))) => {
                missing(wanted, given, &format!("{section}.{key}"), into);
            }
            _ => {}
        }
    }
}

#[test]
fn the_sample_is_the_default() {
    let loaded = config::load_with(Some(&conf("stoa.toml")), Vec::new()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let (sample, default) = (toml::Table::try_from(&loaded.config).unwrap(), schema::defaults());
    let mut different = Vec::new();
    missing(&sample, &default, "not in the code", &mut different);
    for (key, value) in &default {
        let given = sample.get(key);
        if given != Some(value) {
            different.push(format!(
                "{key}: default {value}, sample {}",
                given.map_or_else(String::new, ToString::to_string)
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn the_sample_lists_every_key() {
    let text = std::fs::read_to_string(conf("stoa.toml")).unwrap();
    let sample: toml::Table = toml::from_str(&with_examples(&text)).unwrap();
    let mut lacking = Vec::new();
    let mut known = schema::defaults();
    for list in schema::LISTS {
        known.remove(list);
        let first = sample.get(list).and_then(|items| items.get(0)).and_then(toml::Value::as_table);
        let first = first.unwrap_or_else(|| panic!("conf/stoa.toml shows no [[{list}]]"));
        missing(&schema::element(list), first, list, &mut lacking);
    }
    missing(&known, &sample, "", &mut lacking);
    assert!(lacking.is_empty(), "conf/stoa.toml lacks:\n{}", lacking.join("\n"));
}

#[test]
fn every_key_of_the_sample_has_a_comment() {
    let text = std::fs::read_to_string(conf("stoa.toml")).unwrap();
    let keys = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#'));
    let mut seen = std::collections::BTreeSet::new();
    for line in keys {
        let key = line.split(" = ").next().unwrap_or_default().to_owned();
        assert!(!seen.insert(key) || line.contains('#'), "no comment: {line}");
    }
}

#[test]
fn the_examples_in_the_sample_are_right() {
    let text = with_examples(&std::fs::read_to_string(conf("stoa.toml")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stoa.toml");
    // A user has either a hash or a file: the sample shows both keys.
    std::fs::write(&file, text).unwrap();
    config::load_with(Some(&file), Vec::new()).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn the_other_files_are_right() {
    for name in ["development.toml", "cluster.toml"] {
        config::load_with(Some(&conf(name)), Vec::new()).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
