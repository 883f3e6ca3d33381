//! Aliases: addresses that stand for users, groups, drop addresses and one another, declared or made by command.
//!
//! What an alias cannot be (its syntax) is refused where it is written; a target that is gone is only skipped, so that
//! removing a user never stops the server.

use std::collections::HashMap;

use super::pattern::Pattern;
use super::recipient::GROUP;
use super::settings::Post;
use crate::error::{Error, Kind, Result};
use crate::hub::Hub;
use crate::hub::admin::line;
use crate::hub::compile::{From, Problems};
use crate::hub::settings::Settings;
use crate::store::{AliasRow, Batch, Edit, MailEdit};

/// Longest address and target.
const LONGEST: usize = 320;

/// An alias as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// As it is written, lower case.
    pub(crate) address: String,
    /// What it stands for; the name of a group in lower case.
    pub(crate) to: Vec<String>,
    /// Who may write to it.
    pub(crate) post: Post,
    /// From the configuration file.
    pub(crate) declared: bool,
}

/// Every alias, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    exact: HashMap<String, Alias>,
    /// The most meaningful first.
    wild: Vec<(Pattern, Alias)>,
}

/// An alias as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasView {
    /// Its record.
    pub row: AliasRow,
    /// From the configuration file.
    pub declared: bool,
}

impl Aliases {
    /// Checks and sorts them; an address that is there twice belongs to the configuration.
    pub(crate) fn compile(settings: &Settings, rows: &[AliasRow], problems: &mut Problems) -> Self {
        let mut aliases = Self::default();
        for alias in &settings.aliases {
            let row = AliasRow {
                address: alias.address.clone(),
                targets: alias.to.clone(),
                post: alias.post.as_str().to_owned(),
            };
            match checked(&row, &settings.domains, true) {
                Ok(alias) if aliases.has(&alias.address) => {
                    problems.add(From::Settings, format!("[[alias]] {}: is there twice; remove one", alias.address));
                }
                Ok(alias) => aliases.add(alias),
                Err(what) => problems.add(From::Settings, format!("[[alias]] {}: {what}", alias.address)),
            }
        }
        for row in rows {
            match checked(row, &settings.domains, false) {
                Ok(alias) if aliases.has(&alias.address) => {}
                Ok(alias) => aliases.add(alias),
                Err(what) => problems.add(From::Catalog, format!("alias {}: {what}", row.address)),
            }
        }
        aliases.wild.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.weight()));
        aliases
    }

    fn has(&self, address: &str) -> bool {
        self.exact.contains_key(address) || self.wild.iter().any(|(_, alias)| alias.address == address)
    }

    fn add(&mut self, alias: Alias) {
        match Pattern::parse(&alias.address) {
            Some(pattern) if alias.address.contains('*') => self.wild.push((pattern, alias)),
            _ => {
                self.exact.insert(alias.address.clone(), alias);
            }
        }
    }

    /// The alias of an address in lower case: with its domain first, then for every domain.
    pub(super) fn exact(&self, local: &str, domain: &str) -> Option<&Alias> {
        let whole = (!domain.is_empty()).then(|| self.exact.get(&format!("{local}@{domain}"))).flatten();
        whole.or_else(|| self.exact.get(local))
    }

    /// The wildcard that fits best.
    pub(super) fn wild(&self, local: &str, domain: &str) -> Option<&Alias> {
        let address = format!("{local}@{domain}");
        let fits = |(pattern, alias): &&(Pattern, Alias)| {
            pattern.fits(if alias.address.contains('@') { &address } else { local })
        };
        self.wild.iter().find(fits).map(|(_, alias)| alias)
    }

    fn all(&self) -> impl Iterator<Item = &Alias> {
        self.exact.values().chain(self.wild.iter().map(|(_, alias)| alias))
    }
}

/// An alias in its one form, or what is wrong with it.
fn checked(row: &AliasRow, domains: &[String], declared: bool) -> std::result::Result<Alias, String> {
    let address = in_form(&row.address, domains)?;
    if Pattern::parse(&address).is_none() || address.split_once('@').is_some_and(|(_, domain)| domain.contains('*')) {
        return Err("may have one `*`, before the `@`; write it like scan-*@example.org".into());
    }
    if row.targets.is_empty() {
        return Err("leads to nobody; name users, group:NAME, drop addresses or aliases".into());
    }
    let mut to = Vec::with_capacity(row.targets.len());
    for target in &row.targets {
        let plain = in_form(target, domains).map_err(|what| format!("`{target}`: {what}"))?;
        if plain.contains('*') {
            return Err(format!("`{target}`: a target has no `*`"));
        }
        // Behind the delimiter a folder may be named, whose case counts.
        to.push(if plain.starts_with(GROUP) { plain } else { target.trim().to_owned() });
    }
    let post =
        Post::parse(&row.post).ok_or_else(|| format!("`{}` may not post; use anyone, users or members", row.post))?;
    Ok(Alias { address, to, post, declared })
}

/// Lower case, our domain or none.
fn in_form(text: &str, domains: &[String]) -> std::result::Result<String, String> {
    let text = text.trim().to_lowercase();
    let (local, domain) = text.rsplit_once('@').unwrap_or((&text, ""));
    if local.is_empty() || text.len() > LONGEST || text.chars().any(|one| one.is_whitespace() || one.is_control()) {
        return Err("is not an address; write it like info or info@example.org".into());
    }
    let ours = domain.is_empty() || domains.iter().any(|one| one.to_lowercase() == domain);
    match ours {
        true => Ok(text),
        false => Err(format!("{domain} is not one of our domains; mail is not sent on to other servers")),
    }
}

impl Hub {
    /// All aliases, by address.
    #[must_use]
    pub fn aliases(&self) -> Vec<AliasView> {
        let view = self.view();
        let shown = view.aliases.all().map(|alias| AliasView {
            row: AliasRow {
                address: alias.address.clone(),
                targets: alias.to.clone(),
                post: alias.post.as_str().to_owned(),
            },
            declared: alias.declared,
        });
        let mut all: Vec<AliasView> = shown.collect();
        all.sort_by(|a, b| a.row.address.cmp(&b.row.address));
        all
    }

    /// Makes or replaces an alias; it holds from now on.
    ///
    /// # Errors
    /// `Invalid` when it is none or leads nowhere, `Denied` for a declared one.
    pub async fn put_alias(&self, row: AliasRow) -> Result<()> {
        let view = self.view();
        let alias = checked(&row, &view.settings.domains, false)
            .map_err(|what| Error::new(Kind::Invalid, format!("alias {}: {what}", row.address)))?;
        self.refuse_declared_alias(&alias.address)?;
        for target in &alias.to {
            if !super::recipient::leads_somewhere(&view, target) {
                let what = format!("alias {}: `{target}` leads nowhere; make it first", alias.address);
                return Err(Error::new(Kind::Invalid, what));
            }
        }
        let detail = format!("alias {} leads to {}", alias.address, alias.to.join(", "));
        let row = AliasRow { address: alias.address, targets: alias.to, post: alias.post.as_str().to_owned() };
        let edits = vec![line("", detail), Edit::Mail(MailEdit::PutAlias(row))];
        self.catalog().commit(Batch { edits }).await?;
        self.refresh().await
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a declared one.
    pub async fn remove_alias(&self, address: &str) -> Result<()> {
        let address = address.trim().to_lowercase();
        self.refuse_declared_alias(&address)?;
        let edits = vec![line("", format!("removed the alias {address}")), Edit::Mail(MailEdit::RemoveAlias(address))];
        self.catalog().commit(Batch { edits }).await?;
        self.refresh().await
    }

    fn refuse_declared_alias(&self, address: &str) -> Result<()> {
        match self.view().aliases.all().any(|alias| alias.declared && alias.address == address) {
            true => Err(Error::new(
                Kind::Denied,
                format!("the alias {address} is declared in the configuration file; change it there and reload"),
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(all: &[(&str, &[&str])]) -> Aliases {
        let rows: Vec<AliasRow> = all
            .iter()
            .map(|(address, to)| AliasRow {
                address: (*address).into(),
                targets: to.iter().map(ToString::to_string).collect(),
                post: "anyone".into(),
            })
            .collect();
        let settings = Settings { domains: vec!["example.org".into(), "B.org".into()], ..Settings::default() };
        let mut problems = Problems::default();
        let aliases = Aliases::compile(&settings, &rows, &mut problems);
        assert_eq!(problems, Problems::default());
        aliases
    }

    #[test]
    fn the_nearest_alias_is_found() {
        let aliases = aliases(&[
            ("info", &["a"]),
            ("INFO@b.org", &["b"]),
            ("*@b.org", &["c"]),
            ("scan-*@b.org", &["d"]),
            ("scan-*", &["e"]),
        ]);
        let to = |alias: Option<&Alias>| alias.map(|alias| alias.to.join(",")).unwrap_or_default();
        assert_eq!(to(aliases.exact("info", "example.org")), "a");
        assert_eq!(to(aliases.exact("info", "b.org")), "b");
        assert_eq!(to(aliases.exact("info", "")), "a");
        assert_eq!(to(aliases.wild("scan-7", "b.org")), "d");
        assert_eq!(to(aliases.wild("scan-7", "example.org")), "e");
        assert_eq!(to(aliases.wild("x", "b.org")), "c");
        assert_eq!(to(aliases.wild("x", "example.org")), "");
    }

    #[test]
    fn what_cannot_be_an_alias_is_said() {
        let row = |address: &str, to: &[&str], post: &str| AliasRow {
            address: address.into(),
            targets: to.iter().map(ToString::to_string).collect(),
            post: post.into(),
        };
        let domains = ["example.org".to_owned()];
        for (wrong, word) in [
            (row("", &["a"], "anyone"), "not an address"),
            (row("a b", &["a"], "anyone"), "not an address"),
            (row("a", &[], "anyone"), "nobody"),
            (row("a", &["b"], "all"), "may not post"),
            (row("*@*", &["b"], "anyone"), "one of our domains"),
            (row("a**", &["b"], "anyone"), "one `*`"),
            (row("a", &["b*"], "anyone"), "no `*`"),
            (row("a@elsewhere.org", &["b"], "anyone"), "one of our domains"),
            (row("a", &["b@elsewhere.org"], "anyone"), "not sent on"),
        ] {
            let what = checked(&wrong, &domains, false).expect_err(&wrong.address);
            assert!(what.contains(word), "{what}");
        }
    }
}
