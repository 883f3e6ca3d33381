//! Why a conversation fails, for `stoa trace --conversations`: the last refusal that nothing made good again.

use super::command::Command;
use super::session::{Session, Turn};

/// A command whose refusal is worth keeping, by name, and whether its success makes up for an earlier refusal.
#[derive(Clone, Copy)]
pub(super) struct Weighed {
    name: &'static str,
    mends: bool,
}

impl Command {
    /// What a machine must get right to do its work.
    pub(super) fn weighed(&self) -> Option<Weighed> {
        let (name, mends) = match self {
            Self::Appe(_) => ("APPE", false),
            Self::Auth(_) => ("AUTH", false),
            Self::Cwd(_) => ("CWD", true),
            Self::Dele(_) => ("DELE", true),
            Self::Epsv(_) => ("EPSV", false),
            Self::List(..) => ("a listing", false),
            Self::Mkd(_) => ("MKD", true),
            Self::Pass(_) => ("its sign-in", true),
            Self::Pasv => ("PASV", false),
            Self::Port(..) => ("active mode (PORT)", false),
            Self::Retr(_) => ("RETR", false),
            Self::Rnto(_) => ("RNTO", true),
            Self::Stor(_) => ("STOR", false),
            Self::Stou(_) => ("STOU", false),
            Self::User(_) => ("USER", false),
            _ => return None,
        };
        Some(Weighed { name, mends })
    }
}

impl Session {
    /// Remembers a refusal, or forgets the last one.
    pub(super) fn weigh(&mut self, weighed: Option<Weighed>, turn: &Turn) {
        let (Some(Weighed { name, mends }), Turn::Say(reply) | Turn::Close(Some(reply))) = (weighed, turn) else {
            return;
        };
        if reply.code() >= 400 {
            self.trouble = Some(format!("{name} was refused: {}", reply.line()).into());
        } else if mends {
            self.trouble = None;
        }
    }

    /// The same for a transfer that ended.
    pub(super) fn weigh_transfer(&mut self, verb: &str, turn: &Turn) {
        let Turn::Say(reply) = turn else { return };
        self.trouble = (reply.code() >= 400).then(|| format!("{verb} failed: {}", reply.line()).into());
    }
}
