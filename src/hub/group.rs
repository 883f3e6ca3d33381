//! The group: acts that are ready at the same time become durable by one sync and are put in place by one visit to the
//! volume.
//!
//! Who finds nobody leading starts a leader, which commits what waits, hands it on to be published and looks who
//! has come meanwhile: the longer the disk takes, the larger the next group. A group is no larger than half of it and the last
//! together: else all come to wait for the same sync, during which nobody has anything to do, and ask together again after it. So one half
//! is served while the other half's sync is under way. Each worker thread has a queue of its own,
//! so that its tasks are woken by itself and not by a thread far away, once for each of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::commit::{Held, Promised};
use crate::hub::view::Space;
use crate::store::{After, Batch, Change, Node, On, Synced};

/// Queues; more threads than these share.
const QUEUES: usize = 64;

/// So few changes are put in place by whoever committed them; for more the volume is asked, while the next group is committed.
const HERE: usize = 4;

/// Acts committed together by one leader.
const TOGETHER: usize = 512;

/// Acts on their way to a commit.
pub(crate) struct Groups {
    queues: Vec<Mutex<Queue>>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { queues: (0..QUEUES).map(|_| Mutex::default()).collect() }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Acts in the last group.
    last: usize,
    /// A leader is at work and will look here again.
    led: bool,
}

/// One act that waits for its commit.
struct Waiting {
    batch: Batch,
    settling: Settling,
}

/// One act between its commit and its answer.
struct Settling {
    promised: Vec<Promised>,
    /// Kept until everything is in place.
    held: Held,
    reply: oneshot::Sender<Result<Vec<Option<Node>>>>,
    span: Span,
}

/// The number of this thread's queue.
fn queue_here() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HERE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    HERE.with(|here| {
        let number = here.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        here.set(Some(number));
        number % QUEUES
    })
}

impl Hub {
    /// Makes a batch durable and puts what it promised in place; the node each change left, in order. Whatever becomes
    /// of the caller, this runs to its end: a commit without its publish would be replayed over what came later.
    pub(crate) async fn settle_together(
        &self,
        (batch, synced): (Batch, Synced),
        promised: Vec<Promised>,
        held: Held,
    ) -> Result<Vec<Option<Node>>> {
        let (reply, answer) = oneshot::channel();
        let settling = Settling { promised, held, reply, span: Span::current() };
        match synced {
            Synced::First => self.join_queue(Waiting { batch, settling }),
            // There is no sync to share.
            Synced::Soon => {
                let then = self.finisher(vec![settling]);
                self.catalog().commit_then(vec![(batch, synced)], then).await;
            }
        }
        answer.await.unwrap_or_else(|lost| Err(Error::internal(lost)))
    }

    /// What follows the commit of a group.
    fn finisher(&self, settling: Vec<Settling>) -> After {
        let (hub, runtime) = (self.clone(), Handle::current());
        Box::new(move |outcomes, on| {
            let _entered = runtime.enter();
            hub.finish_group(settling.into_iter().zip(outcomes).collect(), on);
        })
    }

    fn join_queue(&self, waiting: Waiting) {
        let here = queue_here();
        let Some(queue) = self.inner.groups.queues.get(here) else { return };
        let mut queue = queue.lock();
        queue.waiting.push(waiting);
        if !std::mem::replace(&mut queue.led, true) {
            tokio::spawn(Leader { hub: self.clone(), queue: here, over: false }.lead());
        }
    }

    /// Puts a committed group in place and answers everybody in it: a few small changes at once where that may be, the others by the
    /// volume's own threads.
    fn finish_group(self, group: Vec<(Settling, Result<()>)>, on: On) {
        let mut quick = Vec::with_capacity(group.len());
        for (settling, outcome) in group {
            match outcome {
                Ok(()) if settling.promised.iter().all(is_quick) => quick.push(settling),
                outcome => self.finish_alone(settling, outcome),
            }
        }
        let few = quick.iter().map(|act| act.promised.len()).sum::<usize>() <= HERE;
        if on == On::OwnThread && few && quick.iter().flat_map(|act| &act.promised).all(is_near) {
            let outcomes = quick.iter().map(publish_here).collect();
            if quick.len() < 2 {
                return self.answer_group(quick, outcomes);
            }
            // One task, woken from here, wakes the others on their own thread.
            tokio::spawn(async move { self.answer_group(quick, outcomes) });
            return;
        }
        tokio::spawn(async move {
            let outcomes = publish_each(&quick).await;
            self.answer_group(quick, outcomes);
        });
    }

    /// `None` for an act that the volume refused something: it is tried again, alone.
    fn answer_group(&self, quick: Vec<Settling>, outcomes: Vec<Option<Vec<Option<Node>>>>) {
        let mut done = Vec::with_capacity(quick.len());
        for (settling, nodes) in quick.into_iter().zip(outcomes) {
            let Some(nodes) = nodes else {
                self.finish_alone(settling, Ok(()));
                continue;
            };
            for (one, node) in settling.promised.iter().zip(&nodes) {
                self.remember(&one.planned, node.as_ref());
            }
            done.push((settling, nodes));
        }
        for (settling, nodes) in done {
            self.inner.pending.add_done(settling.promised);
            drop(settling.held);
            // Whoever went away finds what was done for them.
            let _ = settling.reply.send(Ok(nodes));
        }
    }

    /// One act whose commit or publish was not plain sailing; nobody else waits for it.
    fn finish_alone(&self, settling: Settling, outcome: Result<()>) {
        let hub = self.clone();
        let Settling { promised, held, reply, span } = settling;
        let work = async move {
            let promised = match outcome {
                Ok(()) => Ok(promised),
                Err(error) => hub.ascertain(promised, error).await,
            };
            let outcome = match promised {
                Ok(promised) => Ok(hub.publish_all(promised).await),
                Err(error) => Err(error),
            };
            drop(held);
            let _ = reply.send(outcome);
        };
        tokio::spawn(work.instrument(span));
    }
}

/// How many of those who wait are committed next.
fn size_of_group(waiting: usize, last: usize) -> usize {
    waiting.min((waiting + last).div_ceil(2)).min(TOGETHER)
}

/// Commits what waits in one queue until nothing does.
struct Leader {
    hub: Hub,
    queue: usize,
    /// The queue was empty and may have another leader by now.
    over: bool,
}

impl Leader {
    async fn lead(mut self) {
        loop {
            let group = self.next_group();
            self.over = group.is_empty();
            if self.over {
                return;
            }
            let (batches, settling): (Vec<_>, Vec<_>) =
                group.into_iter().map(|waiting| ((waiting.batch, Synced::First), waiting.settling)).unzip();
            let then = self.hub.finisher(settling);
            self.hub.catalog().commit_then(batches, then).await;
        }
    }

    /// What waits now; with nothing left the next to come needs a new leader.
    fn next_group(&self) -> Vec<Waiting> {
        let Some(queue) = self.hub.inner.groups.queues.get(self.queue) else { return Vec::new() };
        let mut queue = queue.lock();
        let count = size_of_group(queue.waiting.len(), queue.last);
        queue.last = count;
        let rest = queue.waiting.split_off(count);
        let group = std::mem::replace(&mut queue.waiting, rest);
        queue.led = !group.is_empty();
        group
    }
}

impl Drop for Leader {
    /// A leader that was stopped with its runtime, or by a fault, must not leave others waiting for ever.
    fn drop(&mut self) {
        if let Some(queue) = self.hub.inner.groups.queues.get(self.queue).filter(|_| !self.over) {
            *queue.lock() = Queue::default();
        }
    }
}

/// Moves whole folders: others need not wait for that.
fn is_quick(one: &Promised) -> bool {
    !matches!(one.planned.change, Change::RemoveFolder { .. } | Change::Rename { .. })
}

/// On a disk of this machine: a share that hangs must not hang every commit.
fn is_near(one: &Promised) -> bool {
    one.planned.space.volume.is_near()
}

/// Publishes for one act on this thread.
fn publish_here(act: &Settling) -> Option<Vec<Option<Node>>> {
    let publish = |one: &Promised| one.planned.space.volume.publish_here(&one.planned.change, one.planned.body.clone());
    act.promised.iter().map(|one| publish(one)?.ok()).collect()
}

/// Publishes for several acts, each volume visited once. `None` for an act the volume refused something.
async fn publish_each(acts: &[Settling]) -> Vec<Option<Vec<Option<Node>>>> {
    let mut outcomes: Vec<Option<Vec<Option<Node>>>> =
        acts.iter().map(|act| Some(vec![None; act.promised.len()])).collect();
    for visit in visits(acts) {
        let Ok(nodes) = visit.work.await else {
            visit.places.iter().for_each(|(act, _)| outcomes.get_mut(*act).into_iter().for_each(|one| *one = None));
            continue;
        };
        for ((act, number), node) in visit.places.into_iter().zip(nodes) {
            let Some(outcome) = outcomes.get_mut(act) else { continue };
            match (node, outcome.as_mut().and_then(|nodes| nodes.get_mut(number))) {
                (Ok(node), Some(place)) => *place = node,
                (Err(_), _) => *outcome = None,
                (Ok(_), None) => {}
            }
        }
    }
    outcomes
}

/// One volume's part of a group, under way.
struct Visit {
    /// Act and change of each publish.
    places: Vec<(usize, usize)>,
    work: tokio::task::JoinHandle<Vec<Result<Option<Node>>>>,
}

fn visits(acts: &[Settling]) -> Vec<Visit> {
    type Parts<'a> = (&'a Arc<Space>, Vec<(usize, usize)>, Vec<(Change, Option<bytes::Bytes>)>);
    let mut parts: HashMap<&str, Parts<'_>> = HashMap::new();
    for (number, act) in acts.iter().enumerate() {
        for (place, one) in act.promised.iter().enumerate() {
            let planned = &one.planned;
            let new = || (&planned.space, Vec::new(), Vec::new());
            let (_, places, changes) = parts.entry(planned.space.key.as_str()).or_insert_with(new);
            places.push((number, place));
            changes.push((planned.change.clone(), planned.body.clone()));
        }
    }
    parts
        .into_values()
        .map(|(space, places, changes)| {
            let volume = space.volume.clone();
            Visit { places, work: tokio::spawn(async move { volume.publish_each(changes).await }) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_take_turns() {
        // Ten that ask again as soon as they are answered; all came at once, or one before the others.
        for first in [10, 1] {
            let (mut waiting, mut under_way) = (first, 10 - first);
            let mut last = 0;
            for round in 0..10 {
                let group = size_of_group(waiting, last);
                assert!(group > 0 && (round < 2 || group == 5), "{first}: {group} in round {round}");
                // While these are committed, those of the last group come back.
                (waiting, under_way) = (waiting - group + under_way, group);
                last = group;
            }
        }
    }

    #[test]
    fn nobody_waits_for_others_that_do_not_come() {
        assert_eq!(
            [(1, 0), (1, 1), (3, 200), (0, 5)].map(|(waiting, last)| size_of_group(waiting, last)),
            [1, 1, 3, 0]
        );
        assert_eq!(size_of_group(5000, 5000), TOGETHER);
    }
}
