//! Acts: one thing a caller may ask for, as a value.
//!
//! Each act states its claim (verb and path: what policy judges and history records) and plans the batch and the
//! publishes that do it. Planning has no side effects and may run again after a conflict.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::undo::Was;
use crate::hub::view::{Space, View};
use crate::hub::{Caller, Hub};
use crate::store::{Batch, Change, Edit, HistoryLine, Node};

/// What an act wants: judged by policy before anything is planned.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub path: &'a TreePath,
    /// A second verb and path, such as the place something is renamed to.
    pub also: Option<(Verb, &'a TreePath)>,
}

/// Makes an answer from the nodes that the publishes left in place, one a change.
pub type Answer<Y> = Box<dyn FnOnce(&[Option<Node>]) -> Y + Send>;

/// What planning found necessary.
pub struct Plan<Y> {
    /// Guards, usage, history; the intents are added from `changes`.
    pub batch: Batch,
    /// Publishes in order.
    pub changes: Vec<Planned>,
    /// Must have the whole space to itself (a folder moves or goes); the turnstile then plans again, holding it.
    pub wide: bool,
    /// What undoes the edits that belong to no change's path, should the volume refuse: see [`crate::hub::undo`].
    pub undo: Vec<Edit>,
    /// Makes the answer from what the publishes left in place, one node a change.
    pub answer: Answer<Y>,
}

/// One publish on one space's volume.
#[derive(Clone)]
pub struct Planned {
    /// Whose volume.
    pub space: Arc<Space>,
    /// What to do.
    pub change: Change,
    /// Small bodies ride in the intent.
    pub body: Option<Bytes>,
    /// What the records of its path were, for when the volume refuses it.
    pub(crate) was: Option<Was>,
}

/// What an act may look at while planning.
pub struct Sight<'a> {
    /// The hub, for the catalog's reads.
    pub hub: &'a Hub,
    /// Accounts and spaces.
    pub view: &'a View,
    /// Who asks.
    pub caller: &'a Caller,
    /// A guard failed the last time: what was taken for granted then must be looked up now.
    pub again: bool,
}

impl Sight<'_> {
    /// A line of history about what this caller does, successful unless changed.
    #[must_use]
    pub fn line(&self, verb: &str, path: &TreePath, bytes: u64, detail: impl Into<String>) -> Edit {
        let origin = self.caller.origin();
        Edit::History(HistoryLine {
            at: crate::hub::now(),
            door: origin.door.to_owned(),
            account: self.caller.name().to_owned(),
            address: origin.peer.ip().to_canonical().to_string(),
            verb: verb.to_owned(),
            path: path.to_string(),
            bytes,
            result: "ok".to_owned(),
            detail: detail.into(),
            ..HistoryLine::default()
        })
    }
}

/// One thing a caller may ask for.
#[async_trait]
pub trait Act: Send + Sync {
    /// What it answers.
    type Yield: Send + 'static;

    /// Verb and path; `None` when the act judges for itself while planning (mail to a mailbox is not a grant).
    fn claim(&self) -> Option<Claim<'_>>;

    /// Every path it will touch: their spaces are held still while it runs.
    fn paths(&self) -> Vec<&TreePath> {
        self.claim()
            .map(|claim| std::iter::once(claim.path).chain(claim.also.map(|(_, path)| path)).collect())
            .unwrap_or_default()
    }

    /// Reads what it must and writes down what does it. No side effects; may run again.
    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<Self::Yield>>;
}
