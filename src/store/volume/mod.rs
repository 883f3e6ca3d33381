//! A tree of files and folders somewhere: here a plain directory that any program can read.
//!
//! Bytes are staged invisibly, sealed durable, and put in place by an idempotent [`Change`] that can be
//! replayed after a crash. No path given to a volume can leave its root: not by `..`, a symlink or a race.

mod change;
pub mod directory;
mod interface;
pub mod name;
mod node;
mod opened;
pub mod path;
mod read;

pub use change::{Body, Change, StageId};
pub use interface::{Room, Soaked, Stage, Then, Touched, Volume};
pub use node::{Fingerprint, Node, NodeKind};
pub use opened::Opened;
