//! The verdict: principal × path → verbs.
//!
//! A grant belongs to a space and says which principal may do what in it. The most specific space covering a path is
//! the one that counts. What a caller has no verb at all on does not exist for it.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// One thing that can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Verb {
    /// See names in a folder.
    List = 1,
    /// Read a file's bytes.
    Read = 2,
    /// Make a file or folder that was not there.
    Create = 4,
    /// Replace a file that is there, change its bytes or its time. Whoever may do that may also append.
    Overwrite = 8,
    /// Remove.
    Delete = 16,
    /// Give another name, in the same space.
    Rename = 32,
    /// Make share links.
    Share = 64,
    /// Change grants and quota.
    Admin = 128,
    /// Add bytes at the end of a file that is there, and change nothing else.
    Append = 256,
}

/// A set of verbs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u16);

impl Verb {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::List,
        Self::Read,
        Self::Create,
        Self::Append,
        Self::Overwrite,
        Self::Delete,
        Self::Rename,
        Self::Share,
        Self::Admin,
    ];

    /// Its word in the configuration and in the history.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Share => "share",
            Self::Admin => "admin",
            Self::Append => "append",
        }
    }
}

impl Verbs {
    /// No verb.
    pub const NONE: Self = Self(0);
    /// `view`: list read.
    pub const VIEW: Self = Self(1 | 2);
    /// `drop`: create.
    pub const DROP: Self = Self(4);
    /// `edit`: list read create overwrite delete rename.
    pub const EDIT: Self = Self(1 | 2 | 4 | 8 | 16 | 32);
    /// `own`: edit and share admin.
    pub const OWN: Self = Self(255);

    /// True when the verb is in it. `overwrite` includes `append`.
    #[must_use]
    pub fn has(self, verb: Verb) -> bool {
        let appends = verb == Verb::Append && self.names(Verb::Overwrite);
        self.names(verb) || appends
    }

    /// True when the verb itself is in it.
    fn names(self, verb: Verb) -> bool {
        self.0 & verb as u16 != 0
    }

    /// True when nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With one verb more.
    #[must_use]
    pub fn with(self, verb: Verb) -> Self {
        Self(self.0 | verb as u16)
    }

    /// Reads `view`, `drop`, `edit`, `own` or verbs separated by blanks or commas.
    ///
    /// # Errors
    /// `Invalid`, naming the unknown word.
    pub fn parse(text: &str) -> Result<Self> {
        let mut verbs = Self::NONE;
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            verbs = verbs.and(match word {
                "view" => Self::VIEW,
                "drop" => Self::DROP,
                "edit" => Self::EDIT,
                "own" => Self::OWN,
                other => match Verb::ALL.into_iter().find(|verb| verb.word() == other) {
                    Some(verb) => Self(verb as u16),
                    None => {
                        return Err(Error::new(
                            Kind::Invalid,
                            format!(
                                "`{other}` is not a verb; use view, drop, edit, own or some of: list read create append overwrite delete rename share admin"
                            ),
                        ));
                    }
                },
            });
        }
        Ok(verbs)
    }
}

impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Verb::ALL.into_iter().filter(|verb| self.names(*verb)).map(Verb::word).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verbs({self})")
    }
}
