//! The driver of every line protocol: reads lines, asks the dialogue, does its turns.

use super::dialogue::Dialogue;
use crate::net::Link;

/// Drives one conversation to its end.
///
/// # Errors
/// Only those of the connection itself; everything a peer says is answered.
pub async fn converse<D: Dialogue>(_talk: D, _link: Link) -> std::io::Result<()> {
    todo!()
}
