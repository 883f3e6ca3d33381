//! Which site a request is for, by the name it asks for (RFC 9110 §7.2).

use std::collections::HashMap;

use super::{SiteSettings, Website};
use crate::error::Result;
use crate::proto::http::settings::invalid;

/// The number of the tree among the sites.
pub const TREE: u16 = 0;

/// All sites and the names they answer to.
pub struct Sites {
    all: Vec<Website>,
    exact: HashMap<String, u16>,
    /// `.example.org` for `*.example.org`, the longest first.
    wild: Vec<(String, u16)>,
    /// For every other name; `None`: nobody's.
    other: Option<u16>,
}

impl Sites {
    /// Reads them; `hosts` are the names of the tree.
    ///
    /// # Errors
    /// `Invalid`: two that answer to one name, and what is wrong within one.
    pub fn new(settings: &[SiteSettings], hosts: &[String]) -> Result<Self> {
        let other = hosts.is_empty().then_some(TREE);
        let mut known = Self { all: Vec::new(), exact: HashMap::new(), wild: Vec::new(), other };
        for name in hosts {
            known.answer_to(name, TREE)?;
        }
        let mut default = None;
        for (number, site) in (1..).zip(settings) {
            if site.host.is_empty() {
                return Err(invalid(format!("site of {}: no host; name one, or `*` for every other name", site.path)));
            }
            for name in &site.host {
                match name.as_str() {
                    "*" if default.is_some() => return Err(invalid("site *: two sites are for every other name")),
                    "*" => default = Some(number),
                    name => known.answer_to(name, number)?,
                }
            }
            known.all.push(Website::new(number, site)?);
        }
        known.other = default.or(known.other);
        known.wild.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Ok(known)
    }

    fn answer_to(&mut self, pattern: &str, number: u16) -> Result<()> {
        let lower = pattern.trim_end_matches('.').to_ascii_lowercase();
        let (suffix, plain) = match lower.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => (true, suffix),
            _ => (false, lower.as_str()),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if plain.is_empty() || !plain.bytes().all(named) || name(plain.as_bytes()) != plain {
            return Err(invalid(format!(
                "host `{pattern}` is not a name; write www.example.org or *.example.org, without a port"
            )));
        }
        let taken = match suffix {
            true => {
                let taken = self.wild.iter().any(|(known, _)| known == plain);
                self.wild.push((plain.to_owned(), number));
                taken
            }
            false => self.exact.insert(plain.to_owned(), number).is_some(),
        };
        match taken {
            true => Err(invalid(format!("host `{pattern}` is given twice; a name is for one site"))),
            false => Ok(()),
        }
    }

    /// Does every name mean the tree?
    fn is_plain(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty() && self.other == Some(TREE)
    }

    /// The number of the site that a `Host` is for; `None` when the name is nobody's.
    pub fn number(&self, host: &[u8]) -> Option<u16> {
        if self.is_plain() {
            return Some(TREE);
        }
        let name = name(host);
        let exact = self.exact.get(name.as_ref() as &str).copied();
        let wild = || self.wild.iter().find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(suffix.as_str()));
        exact.or_else(|| wild().map(|(_, number)| *number)).or(self.other)
    }

    /// A site by its number; `None` for the tree.
    pub fn get(&self, number: u16) -> Option<&Website> {
        self.all.get(usize::from(number).checked_sub(1)?)
    }
}

/// The name in a `Host`: lower case, without port and last dot.
pub fn name(host: &[u8]) -> std::borrow::Cow<'_, str> {
    let text = std::str::from_utf8(host).unwrap_or_default().trim();
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(text.len(), |at| at + 2),
        None => text.rfind(':').unwrap_or(text.len()),
    };
    let plain = text.get(..end).unwrap_or(text);
    let plain = plain.strip_suffix('.').unwrap_or(plain);
    match plain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => plain.to_ascii_lowercase().into(),
        false => plain.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(hosts: &[&str]) -> SiteSettings {
        let host = hosts.iter().map(ToString::to_string).collect();
        SiteSettings { host, path: "/www".into(), ..SiteSettings::default() }
    }

    #[test]
    fn the_most_particular_name_counts() {
        let all = [site(&["www.a.org", "a.org"]), site(&["*.a.org"]), site(&["*.b.a.org"]), site(&["[::1]"])];
        let sites = Sites::new(&all, &[]).unwrap();
        for (host, number) in [
            ("www.a.org", 1),
            ("WWW.A.org.:8080", 1),
            ("a.org:443", 1),
            ("x.a.org", 2),
            ("x.y.a.org", 2),
            ("x.b.a.org", 3),
            ("b.a.org", 2),
            ("[::1]:8080", 4),
            ("xa.org", TREE),
            ("", TREE),
        ] {
            assert_eq!(sites.number(host.as_bytes()), Some(number), "{host}");
        }
        assert_eq!(sites.get(2).unwrap().number, 2);
        assert!(sites.get(TREE).is_none() && sites.get(9).is_none());
    }

    #[test]
    fn names_of_the_tree_leave_the_others_to_nobody_or_to_the_site_of_all() {
        let tree = ["files.a.org".to_owned()];
        let sites = Sites::new(&[site(&["www.a.org"])], &tree).unwrap();
        assert_eq!((sites.number(b"files.a.org"), sites.number(b"evil.example")), (Some(TREE), None));
        let sites = Sites::new(&[site(&["*"])], &tree).unwrap();
        assert_eq!((sites.number(b"files.a.org"), sites.number(b"evil.example")), (Some(TREE), Some(1)));
    }

    #[test]
    fn two_sites_of_one_name_and_names_that_are_none_are_refused() {
        let said = |all: &[SiteSettings]| Sites::new(all, &[]).err().unwrap().public().to_owned();
        assert!(said(&[site(&["a.org"]), site(&["A.org."])]).contains("twice"));
        assert!(said(&[site(&["*"]), site(&["*"])]).contains("two sites"));
        assert!(said(&[site(&["a.org:80"])]).contains("without a port"));
        assert!(said(&[site(&["https://a.org"])]).contains("not a name"));
        assert!(said(&[site(&[])]).contains("no host"));
        let wrong = SiteSettings { error_pages: [("200".into(), "/a".into())].into(), ..site(&["a.org"]) };
        assert!(said(&[wrong]).contains("200"));
        let wrong = SiteSettings { trusted: true, own_pages: true, ..site(&["a.org"]) };
        assert!(said(&[wrong]).contains("own_pages"));
    }
}
