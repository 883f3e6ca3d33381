//! The pages for people say what is so: every block of every page is run, and the keys they name are there.
//!
//! A page is run from its first block to its last, in a folder that stands for a machine (`docs/place.rs`), from a clone, from a running
//! `scripts/run`, or from an installed server. It makes the users, spaces and files it uses itself. What cannot be run is listed in `docs/unrun.rs`.

mod blocks;
mod clients;
mod place;
mod proxies;
mod run;
mod shell;
mod unrun;

use std::collections::BTreeSet;
use std::fs;

use place::Start;

/// A test for each page, and the list of them.
macro_rules! pages {
    ($($test:ident: $page:literal from $start:ident;)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                run::page($page, Start::$start);
            }
        )*
    };
}

pages! {
    the_page_adding_a_protocol_is_right: "adding-a-protocol.md" from Clone;
    the_page_architecture_is_right: "architecture.md" from Clone;
    the_page_backup_is_right: "backup.md" from Installed;
    the_page_behind_a_proxy_is_right: "behind-a-proxy.md" from Installed;
    the_page_devices_is_right: "devices.md" from Installed;
    the_page_ftp_nat_is_right: "ftp-nat.md" from Installed;
    the_page_ftp_rules_is_right: "ftp-rules.md" from Installed;
    the_page_http_is_right: "http.md" from Running;
    the_page_mail_is_right: "mail.md" from Installed;
    the_page_operations_is_right: "operations.md" from Clone;
    the_page_performance_is_right: "performance.md" from Clone;
    the_page_reliability_is_right: "reliability.md" from Clone;
    the_page_storage_is_right: "storage.md" from Running;
    the_page_troubleshooting_is_right: "troubleshooting.md" from Installed;
    the_page_upgrade_is_right: "upgrade.md" from Installed;
    the_page_websites_is_right: "websites.md" from Installed;
}

/// Pages whose tests look at what came of the commands, in `docs/clients.rs`.
const LOOKED_AT: [&str; 4] = ["README.md", "ftp-clients.md", "uploads.md", "webdav.md"];

#[test]
fn every_page_is_run() {
    let mut run: Vec<_> = PAGES.iter().chain(&LOOKED_AT).map(|page| (*page).to_owned()).collect();
    run.sort();
    assert_eq!(blocks::all_pages(), run);
    for (page, first, why) in unrun::UNRUN {
        assert!(run.iter().any(|known| known == page), "no page {page}: {first} ({why})");
    }
}

/// A heading as the end of a link names it: `#the-seal`.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for page in blocks::all_pages() {
        let text = blocks::read(&page);
        let folder = blocks::project().join(if page == "README.md" { "" } else { "docs" });
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { text.clone() } else { fs::read_to_string(folder.join(file)).unwrap_or_default() };
            let there = if place.is_empty() {
                folder.join(file).exists()
            } else {
                target
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#').trim()) == place)
            };
            assert!(there, "{page}: nothing is at {link}");
        }
    }
}

/// The words between single backticks, outside of blocks.
fn quoted(page: &str) -> Vec<&str> {
    let text = page.split("\n```").step_by(2).flat_map(str::lines);
    text.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_keys_the_pages_name_are_there() {
    let known = fs::read_to_string(blocks::project().join("conf/stoa.toml")).unwrap();
    let known: BTreeSet<&str> = known.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').collect();
    for name in ["devices.md", "ftp-clients.md", "ftp-nat.md"] {
        let page = blocks::read(name);
        for span in quoted(&page) {
            // `key` or `key = value`; a word with an underscore is nothing else on these pages.
            let key = span.split(" = ").next().unwrap_or_default();
            let is_key = key.contains('_') && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(!is_key || known.contains(key), "{name} names `{key}`, which conf/stoa.toml does not have");
        }
    }
}
