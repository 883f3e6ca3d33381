//! Websites: folders of the tree shown under names of their own, as a web server shows them.
//!
//! A site adds no rights: who asks for its files is judged by the hub as everywhere, so a public site is a folder that everyone may
//! view.

mod answer;
mod host;
mod page;

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Result;
use crate::hub::TreePath;
use crate::proto::http::cors::Cors;
use crate::proto::http::pattern::Pattern;
use crate::proto::http::settings::{CacheRule, CacheRules, invalid};

pub use answer::answer;
pub use host::{Sites, TREE, name as host_name};
pub use page::refusal;

/// `[[site]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteSettings {
    /// Names it answers to: `www.example.org`, `*.example.org`, `*` for every name nobody else has.
    #[serde(deserialize_with = "one_or_many")]
    pub host: Vec<String>,
    /// The folder of the tree it shows.
    pub path: String,
    /// Files shown for a folder, the first that is there.
    pub index: Vec<String>,
    /// Shown for paths that are not there, with 200: for applications that read the path by script. Empty: none.
    pub fallback: String,
    /// Pages of the site for failures, by their status.
    pub error_pages: BTreeMap<String, String>,
    /// As `[http] cache_rules`, for this site; paths begin at the site.
    pub cache_rules: Vec<CacheRule>,
    /// Old places and where they are now; the first that fits counts.
    pub redirects: Vec<Redirect>,
    /// Show folders without an index as lists.
    pub listing: bool,
    /// `/about` shows `about.html`.
    pub clean_urls: bool,
    /// Its pages may run scripts and forms: whoever may write there speaks in the site's name.
    pub trusted: bool,
    /// `Content-Security-Policy` of a trusted site.
    pub policy: String,
    /// As `[http] cors`, for this site.
    pub cors: Vec<String>,
    /// The sign-in page and what else is under `/-/` here too.
    pub own_pages: bool,
}

impl Default for SiteSettings {
    fn default() -> Self {
        Self {
            host: Vec::new(),
            path: String::new(),
            index: vec!["index.html".into()],
            fallback: String::new(),
            error_pages: BTreeMap::new(),
            cache_rules: Vec::new(),
            redirects: Vec::new(),
            listing: false,
            clean_urls: false,
            trusted: false,
            policy: "frame-ancestors 'self'; base-uri 'self'; object-src 'none'".into(),
            cors: Vec::new(),
            own_pages: false,
        }
    }
}

/// One old place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// A path, `*` for any text: `/old/*`.
    pub from: String,
    /// A path of the site or a URL; its `*` is the text that the first one of `from` stood for.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

fn permanent() -> u16 {
    StatusCode::PERMANENT_REDIRECT.as_u16()
}

/// A site, read.
pub struct Website {
    /// Among all sites, from 1.
    pub number: u16,
    /// The folder it shows.
    pub root: TreePath,
    pub settings: SiteSettings,
    pub cache: CacheRules,
    pub cors: Cors,
    /// Its own security policy, where it is trusted.
    pub policy: Option<HeaderValue>,
    index: Vec<TreePath>,
    fallback: Option<TreePath>,
    errors: BTreeMap<u16, TreePath>,
    redirects: Vec<(Pattern, Redirect, StatusCode)>,
}

impl Website {
    fn new(number: u16, settings: &SiteSettings) -> Result<Self> {
        let wrong = |words: String| invalid_site(settings, &words);
        let root = TreePath::parse(&settings.path)
            .map_err(|error| wrong(format!("path: `{}`: {}", settings.path, error.public())))?;
        if root.parts().next() == Some("-") {
            return Err(wrong(format!("path: `{}` is reserved", settings.path)));
        }
        if settings.trusted && settings.own_pages {
            return Err(wrong(
                "trusted and own_pages: its scripts could act for whoever signs in there; keep one of the two".into(),
            ));
        }
        let inside = |key: &str, path: &str| {
            let absolute = format!("/{}", path.trim_start_matches('/'));
            TreePath::parse(&absolute).map_err(|error| wrong(format!("{key}: `{path}`: {}", error.public())))
        };
        let mut errors = BTreeMap::new();
        for (status, path) in &settings.error_pages {
            let number = status.parse().ok().filter(|number| (400..600).contains(number));
            let number =
                number.ok_or_else(|| wrong(format!("error_pages: `{status}` is not a status from 400 to 599")))?;
            errors.insert(number, inside("error_pages", path)?);
        }
        let index = settings.index.iter().map(|name| inside("index", name)).collect::<Result<_>>()?;
        let fallback = Some(settings.fallback.as_str()).filter(|path| !path.is_empty());
        let policy = HeaderValue::from_str(&settings.policy);
        let policy = policy.map_err(|_| wrong(format!("policy: `{}` cannot be a header", settings.policy)))?;
        Ok(Self {
            number,
            root,
            cache: CacheRules::new(&settings.cache_rules).map_err(|error| wrong(error.public().into()))?,
            cors: Cors::new(&settings.cors).map_err(|error| wrong(error.public().into()))?,
            policy: (settings.trusted && !policy.is_empty()).then_some(policy),
            index,
            fallback: fallback.map(|path| inside("fallback", path)).transpose()?,
            errors,
            redirects: settings.redirects.iter().map(|redirect| read(settings, redirect)).collect::<Result<_>>()?,
            settings: settings.clone(),
        })
    }

    /// A place of the tree as a path of the site, with its leading slash.
    pub fn path_of(&self, path: &TreePath) -> String {
        path.below(&self.root).map(|rel| format!("/{}", rel.as_str())).unwrap_or_default()
    }

    /// A place of the site in the tree.
    fn place(&self, path: &TreePath) -> Option<TreePath> {
        path.parts().try_fold(self.root.clone(), |place, name| place.join(name).ok())
    }
}

fn read(settings: &SiteSettings, redirect: &Redirect) -> Result<(Pattern, Redirect, StatusCode)> {
    let wrong = |words: String| invalid_site(settings, &format!("redirects: {words}"));
    let status = StatusCode::from_u16(redirect.status).ok();
    let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
    let status = status.ok_or_else(|| wrong(format!("{} is none of 301, 302, 303, 307 and 308", redirect.status)))?;
    if !redirect.from.starts_with('/') {
        return Err(wrong(format!("from = `{}` does not begin with a slash", redirect.from)));
    }
    let to = &redirect.to;
    let local = to.starts_with('/') && !to.starts_with("//");
    let plain = to.bytes().all(|byte| byte.is_ascii_graphic()) && to.matches('*').count() <= 1;
    if !plain || !(local || to.starts_with("https://") || to.starts_with("http://")) {
        return Err(wrong(format!("to = `{to}` is neither a path nor a URL with at most one `*`")));
    }
    Ok((Pattern::new(&redirect.from), redirect.clone(), status))
}

fn invalid_site(settings: &SiteSettings, words: &str) -> crate::Error {
    invalid(format!("site {}: {words}", settings.host.join(" ")))
}

/// One text, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Many(names) => names,
    })
}
