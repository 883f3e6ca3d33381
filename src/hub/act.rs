//! Acts: one thing a caller may ask for, as a value.
//!
//! Each act states its claim (verb and path: what policy judges and history records) and plans the batch and the
//! publishes that do it. Planning has no side effects and may run again after a conflict.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::view::{Space, View};
use crate::hub::{Caller, Hub};
use crate::store::{Batch, Change};
use std::sync::Arc;

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

/// What planning found necessary.
pub struct Plan<Y> {
    /// Guards, usage, history; the intents are added from `changes`.
    pub batch: Batch,
    /// Publishes in order.
    pub changes: Vec<Planned>,
    /// What the act will answer.
    pub answer: Y,
}

/// One publish on one space's volume.
pub struct Planned {
    /// Whose volume.
    pub space: Arc<Space>,
    /// What to do.
    pub change: Change,
    /// Small bodies ride in the intent.
    pub body: Option<Bytes>,
}

/// What an act may look at while planning.
pub struct Sight<'a> {
    /// The hub, for the catalog's reads.
    pub hub: &'a Hub,
    /// Accounts and spaces.
    pub view: &'a View,
    /// Who asks.
    pub caller: &'a Caller,
}

/// One thing a caller may ask for.
#[async_trait]
pub trait Act: Send + Sync {
    /// What it answers.
    type Yield: Send;

    /// Verb and path.
    fn claim(&self) -> Claim<'_>;

    /// Holds a whole space still (folder removal, folder rename) instead of single paths.
    fn wide(&self) -> bool {
        false
    }

    /// Reads what it must and writes down what does it. No side effects; may run again.
    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<Self::Yield>>;
}
