//! `[http]`: what the door is told, and the same read once into what requests are answered by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::proto::http::base::Base;
use crate::proto::http::coding::Coding;
use crate::proto::http::cors::Cors;
use crate::proto::http::forwarded::Dialect;
use crate::proto::http::pattern::Pattern;
use crate::proto::http::sibling::Siblings;
use crate::proto::http::sites::{SiteSettings, Sites};
use crate::proto::http::{head, mime, target};
use crate::units::{ByteSize, Span};

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Take Basic passwords without TLS from other machines too, for labs.
    pub basic_in_clear: bool,
    /// Memory for responses that are asked for often; 0: none are kept.
    pub cache: ByteSize,
    /// What caches between us and readers may do with files everyone may read; the first rule that fits counts.
    pub cache_rules: Vec<CacheRule>,
    /// Codings for text that is compressed while it is sent, the one we like best first; empty: none.
    pub compress: Vec<String>,
    /// 1 (fast) to 9 (small).
    pub compress_level: u32,
    /// Smaller files are sent as they are.
    pub compress_least: ByteSize,
    /// Larger files are sent as they are.
    pub compress_most: ByteSize,
    /// Pages of these origins may read answers with scripts; `*`: every page, reading only.
    pub cors: Vec<String>,
    /// Which headers trusted proxies write; the others are a client's own and not looked at.
    pub forwarded: Dialect,
    /// Names at which the tree is shown; empty: every name that no site has.
    pub hosts: Vec<String>,
    /// Most bytes of a request's head.
    pub head_size: ByteSize,
    /// Most header lines of a request.
    pub head_lines: usize,
    /// Browsers are told to come by TLS only, for this long; 0: they are not.
    pub hsts: Span,
    /// The port that `redirect_to_https` leads to.
    pub https_port: u16,
    /// The path below which a proxy shows this server: `/files`.
    pub prefix: String,
    /// Send `a.css.br`, `.zst` or `.gz` in the place of `a.css` to whoever takes it.
    pub precompressed: bool,
    /// Larger files are sent as they are: each pair is unpacked and compared once.
    pub precompressed_most: ByteSize,
    /// Answer requests without TLS with the way to the same place by TLS.
    pub redirect_to_https: bool,
    /// Longest path and query.
    pub uri_length: ByteSize,
    /// Largest body of a request; 0: as large as a file may be.
    pub body_size: ByteSize,
    /// Ask guests to sign in when they use a method of WebDAV, also where everyone may read.
    pub webdav_sign_in: bool,
    /// Largest XML body of a WebDAV request.
    pub xml_body: ByteSize,
    /// Most files and folders that one COPY of a folder copies.
    pub copy_entries: usize,
    /// Most files in one form.
    pub form_files: usize,
    /// Content types by extension, before our own table.
    pub types: BTreeMap<String, String>,
    /// `[[site]]`, put in by whoever reads the files.
    #[serde(skip_serializing)]
    pub site: Vec<SiteSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            basic_in_clear: false,
            cache: ByteSize(64 << 20),
            cache_rules: Vec::new(),
            compress: vec!["zstd".into(), "br".into(), "gzip".into()],
            compress_level: 4,
            compress_least: ByteSize(1 << 10),
            compress_most: ByteSize(64 << 20),
            cors: Vec::new(),
            forwarded: Dialect::default(),
            hosts: Vec::new(),
            head_size: ByteSize(32 << 10),
            head_lines: 100,
            hsts: Span(Duration::from_hours(24 * 180)),
            https_port: 443,
            prefix: String::new(),
            precompressed: true,
            precompressed_most: ByteSize(1 << 30),
            redirect_to_https: false,
            uri_length: ByteSize(8 << 10),
            body_size: ByteSize(0),
            webdav_sign_in: false,
            xml_body: ByteSize(256 << 10),
            copy_entries: 100_000,
            form_files: 1_000,
            types: BTreeMap::new(),
            site: Vec::new(),
        }
    }
}

/// What is said in `Cache-Control` of the files a pattern fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRule {
    /// A name with `*`, or with a slash in it a path: `*.css`, `/assets/*`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// `public, max-age=31536000, immutable`
    pub control: String,
}

/// Cache rules, read.
pub struct CacheRules(Vec<(Pattern, HeaderValue)>);

impl CacheRules {
    /// Reads them.
    ///
    /// # Errors
    /// `Invalid`: a value that no header can carry.
    pub fn new(rules: &[CacheRule]) -> Result<Self> {
        let read = rules.iter().map(|rule| match HeaderValue::from_str(&rule.control) {
            Ok(value) if !rule.control.trim().is_empty() && !rule.pattern.is_empty() => {
                Ok((Pattern::new(&rule.pattern), value))
            }
            _ => Err(invalid(format!(
                "cache_rules: `{}` = `{}`; write {{ match = \"*.css\", control = \"public, max-age=3600\" }}",
                rule.pattern, rule.control
            ))),
        });
        Ok(Self(read.collect::<Result<_>>()?))
    }

    /// What is said of a path, with its leading slash.
    pub fn of(&self, path: &str) -> Option<&HeaderValue> {
        self.0.iter().find(|(pattern, _)| pattern.fits(path)).map(|(_, value)| value)
    }
}

/// Settings read once: what every request is answered by.
pub struct Rules {
    pub settings: Settings,
    /// What stands before every path.
    pub base: Base,
    pub cache: CacheRules,
    pub codings: Vec<Coding>,
    pub cors: Cors,
    pub sites: Sites,
    /// Files compressed beforehand, and what is known of them.
    pub siblings: Siblings,
    /// `Strict-Transport-Security`, where it is said.
    pub hsts: Option<HeaderValue>,
    /// Content types by name.
    pub types: Types,
}

/// Content types by extension: those of the configuration, then our own table.
#[derive(Clone, Default)]
pub struct Types(Arc<HashMap<String, String>>);

impl Types {
    /// The content type of a file by its name.
    pub fn of<'a>(&'a self, name: &str) -> &'a str {
        let own = || self.0.get(&name.rsplit_once('.')?.1.to_ascii_lowercase()).map(String::as_str);
        let own = if self.0.is_empty() { None } else { own() };
        own.unwrap_or_else(|| mime::of(name))
    }
}

impl Rules {
    /// Reads the settings.
    ///
    /// # Errors
    /// `Invalid`, naming the key and the value.
    pub fn new(settings: Settings) -> Result<Self> {
        let codings = settings.compress.iter().map(|name| {
            Coding::named(name).ok_or_else(|| invalid(format!("compress: `{name}` is none of gzip, br and zstd")))
        });
        let codings = codings.collect::<Result<_>>()?;
        if !(1..=9).contains(&settings.compress_level) {
            return Err(invalid(format!("compress_level: {} is not 1 to 9", settings.compress_level)));
        }
        for (key, size, least, most) in [
            ("head_size", settings.head_size.0, 1 << 10, MOST_HEAD),
            ("uri_length", settings.uri_length.0, 256, MOST_URI),
        ] {
            if size < least || size > most {
                let most = ByteSize(most);
                return Err(invalid(format!("{key}: {} is not {} to {most}", ByteSize(size), ByteSize(least))));
            }
        }
        if !(10..=MOST_LINES).contains(&settings.head_lines) {
            return Err(invalid(format!("head_lines: {} is not 10 to {MOST_LINES}", settings.head_lines)));
        }
        let hsts = match settings.hsts.0.as_secs() {
            0 => None,
            seconds => HeaderValue::from_str(&format!("max-age={seconds}")).ok(),
        };
        Ok(Self {
            base: Base::new(&settings.prefix)?,
            cache: CacheRules::new(&settings.cache_rules)?,
            codings,
            cors: Cors::new(&settings.cors)?,
            sites: Sites::new(&settings.site, &settings.hosts)?,
            siblings: Siblings::new(settings.precompressed_most.0),
            hsts,
            types: types(&settings.types)?,
            settings,
        })
    }

    /// The content type of a file by its name.
    pub fn kind(&self, name: &str) -> &str {
        self.types.of(name)
    }
}

/// What the front of every connection takes at most, before anything is known of the door.
const MOST_HEAD: u64 = head::LONGEST as u64;
const MOST_URI: u64 = target::LONGEST_URI as u64;
const MOST_LINES: usize = head::LINES;

fn types(wanted: &BTreeMap<String, String>) -> Result<Types> {
    let mut types = HashMap::new();
    for (extension, kind) in wanted {
        let plain = extension.trim_start_matches('.').to_ascii_lowercase();
        if plain.is_empty() || !mime::is_type(kind) {
            return Err(invalid(format!("types: {extension} = `{kind}`; write md = \"text/markdown; charset=utf-8\"")));
        }
        types.insert(plain, kind.clone());
    }
    Ok(Types(Arc::new(types)))
}

/// What is wrong with `[http]`.
pub fn invalid(words: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("[http] {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_named_and_the_default_is_right() {
        assert!(Rules::new(Settings::default()).is_ok());
        let said = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            Rules::new(settings).err().map(|error| error.public().to_owned()).unwrap_or_default()
        };
        assert!(said(|it| it.compress = vec!["lzma".into()]).contains("lzma"));
        assert!(said(|it| it.compress_level = 12).contains("12"));
        assert!(said(|it| it.prefix = "files".into()).contains("files"));
        assert!(said(|it| it.head_size = ByteSize(1)).contains("head_size"));
        assert!(said(|it| it.cors = vec!["app.example".into()]).contains("app.example"));
        assert!(said(|it| drop(it.types.insert("md".into(), "markdown".into()))).contains("markdown"));
        let rule = CacheRule { pattern: "*.css".into(), control: "a\nb".into() };
        assert!(
            said(move |it| it.cache_rules = vec![CacheRule { pattern: "*".into(), control: "a\nb".into() }])
                .contains("cache_rules")
        );
        assert!(CacheRules::new(&[rule]).is_err());
    }

    #[test]
    fn a_type_of_ones_own_comes_before_the_table() {
        let settings = Settings { types: [(".MD".into(), "text/x-md".into())].into(), ..Settings::default() };
        let rules = Rules::new(settings).unwrap();
        assert_eq!(
            (rules.kind("a.md"), rules.kind("a.Md"), rules.kind("a.css")),
            ("text/x-md", "text/x-md", "text/css; charset=utf-8")
        );
    }
}
