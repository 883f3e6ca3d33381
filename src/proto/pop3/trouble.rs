//! Why a conversation fails, for `stoa trace --conversations`: the last refusal that nothing made good again.

use super::command::Command;
use super::reply::Reply;
use super::session::Session;
use crate::proto::dialogue::Turn;

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
            Self::Answer(_) | Self::Auth { .. } | Self::Pass(_) => ("its sign-in", true),
            Self::User(_) => ("USER", false),
            Self::Stls => ("STLS", false),
            Self::Retr(_) => ("RETR", true),
            Self::Top(..) => ("TOP", true),
            Self::Dele(_) => ("DELE", true),
            Self::Quit => ("QUIT", false),
            Self::List(_) => ("LIST", false),
            Self::Uidl(_) => ("UIDL", false),
            Self::Stat => ("STAT", false),
            _ => return None,
        };
        Some(Weighed { name, mends })
    }
}

impl Session {
    /// Remembers a refusal, or forgets the last one.
    pub(super) fn weigh(&mut self, weighed: Option<Weighed>, turn: &Turn<Reply>) {
        let Some(Weighed { name, mends }) = weighed else { return };
        match turn {
            Turn::Say(Reply::Err { text, .. }) | Turn::Close(Some(Reply::Err { text, .. })) => {
                self.trouble = Some(format!("{name} was refused: {text}").into());
            }
            Turn::Say(Reply::Ok(_)) | Turn::Give { .. } if mends => self.trouble = None,
            _ => {}
        }
    }
}

/// How many bytes of a line may be written down: a password, and what stands behind a word that is no command, may not.
pub(super) fn shown(line: &[u8]) -> usize {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let verb = line.get(..end).unwrap_or_default();
    let known = ["CAPA", "DELE", "LIST", "NOOP", "QUIT", "RETR", "RSET", "STAT", "STLS", "TOP", "UIDL", "USER"];
    match known.iter().any(|word| verb.eq_ignore_ascii_case(word.as_bytes())) {
        true => line.len(),
        false => end.min(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_written_down() {
        for (line, is) in [
            ("USER ann", "USER ann"),
            ("retr 1", "retr 1"),
            ("PASS open sesame", "PASS"),
            ("AUTH PLAIN AGFubgBzZXNhbWU=", "AUTH"),
            ("APOP ann 0123456789", "APOP"),
            ("AGFubgBzZXNhbWU=", "AGFu"),
        ] {
            assert_eq!(line.get(..shown(line.as_bytes())), Some(is));
        }
    }
}
