//! `[log]`: what is written where, and when a file is rotated.

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// When a log file is set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// At midnight UTC.
    #[default]
    Daily,
    /// Each hour.
    Hourly,
    /// Only when `size` is reached.
    Size,
}

/// `[log]`: what is written where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,stoa::net=debug`.
    pub level: String,
    /// Folder of the files; empty: no files, only stderr (the journal under systemd).
    pub folder: String,
    /// `text` or `json`, for the files.
    pub format: String,
    /// `daily`, `hourly` or `size`.
    pub rotate: Rotate,
    /// A file is also set aside when it reaches this size.
    pub size: ByteSize,
    /// Files kept beside the current one, of each kind.
    pub keep: usize,
    /// Write the access lines too.
    pub access: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".into(),
            folder: String::new(),
            format: "text".into(),
            rotate: Rotate::Daily,
            size: ByteSize(100 << 20),
            keep: 14,
            access: true,
        }
    }
}

/// Target of the lines that say what a peer did; they go to `access.log`.
pub(super) const ACCESS: &str = "access";

/// Target of the lines about sign-ins; they go to both files.
pub(super) const LOGIN: &str = "login";
