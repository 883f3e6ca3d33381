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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::commit::{Committed, Held, Promised, is_failure};
use crate::hub::undo::unknown;
use crate::store::{After, Batch, Change, Node, On, Synced};
use crate::telemetry::metric;

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
    act: Committed,
    /// Kept until everything is in place.
    held: Held,
    reply: Reply,
    span: Span,
}

/// Tells the caller once.
struct Reply(Option<oneshot::Sender<Result<Vec<Option<Node>>>>>);

impl Reply {
    fn send(&mut self, outcome: Result<Vec<Option<Node>>>) {
        if let Some(reply) = self.0.take() {
            // Whoever went away finds what was done for them.
            let _ = reply.send(outcome);
        }
    }
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
        act: Committed,
        held: Held,
    ) -> Result<Vec<Option<Node>>> {
        let (reply, answer) = oneshot::channel();
        let settling = Settling { act, held, reply: Reply(Some(reply)), span: Span::current() };
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
        let (hub, runtime, begun) = (self.clone(), Handle::current(), Instant::now());
        Box::new(move |outcomes, on| {
            let took = begun.elapsed();
            for outcome in &outcomes {
                measure(took, outcome);
            }
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
                Ok(()) if is_quick(&settling.act.promised) => quick.push(settling),
                outcome => self.finish_alone(settling, outcome),
            }
        }
        let few = quick.iter().map(|one| one.act.promised.len()).sum::<usize>() <= HERE;
        if on == On::OwnThread && few && quick.iter().flat_map(|one| &one.act.promised).all(is_near) {
            let outcomes = quick.iter().map(publish_here).collect();
            if quick.len() < 2 {
                return self.answer_group(quick, outcomes);
            }
            // One task, woken from here, wakes the others on their own thread.
            tokio::spawn(async move { self.answer_group(quick, outcomes) });
            return;
        }
        for part in by_space(quick) {
            let hub = self.clone();
            tokio::spawn(async move { hub.publish_part(part).await });
        }
    }

    /// Publishes for acts of one space, in one visit to its volume. If it does not answer in time the callers are told so; what becomes
    /// of their acts is settled when it answers.
    async fn publish_part(self, mut part: Vec<Settling>) {
        let mut visit = tokio::spawn(publish_each(&part));
        let outcomes = if let Ok(outcomes) = self.patiently(&mut visit).await {
            outcomes
        } else {
            for one in &mut part {
                self.is_late(one);
            }
            visit.await
        };
        let outcomes = outcomes.unwrap_or_default();
        self.answer_group(part, outcomes);
    }

    /// Its caller waits no longer. The stages are kept until the volume has answered.
    fn is_late(&self, settling: &mut Settling) {
        self.inner.pending.is_late(&settling.act.stages());
        settling.reply.send(Err(unknown()));
    }

    /// `None` for an act that the volume refused something: it is tried again, alone, and undone if that fails too.
    fn answer_group(&self, quick: Vec<Settling>, outcomes: Vec<Option<Vec<Option<Node>>>>) {
        let mut done = Vec::with_capacity(quick.len());
        let mut outcomes = outcomes.into_iter();
        for settling in quick {
            let Some(nodes) = outcomes.next().flatten() else {
                self.finish_alone(settling, Ok(()));
                continue;
            };
            for (one, node) in settling.act.promised.iter().zip(&nodes) {
                self.remember(&one.planned, node.as_ref());
            }
            done.push((settling, nodes));
        }
        for (mut settling, nodes) in done {
            self.inner.pending.was_late(&settling.act.stages());
            self.inner.pending.add_done(settling.act.promised);
            drop(settling.held);
            settling.reply.send(Ok(nodes));
        }
    }

    /// One act whose commit or publish was not plain sailing; nobody else waits for it.
    fn finish_alone(&self, settling: Settling, outcome: Result<()>) {
        let hub = self.clone();
        let span = settling.span.clone();
        tokio::spawn(async move { hub.finish_one(settling, outcome).await }.instrument(span));
    }

    async fn finish_one(self, mut settling: Settling, outcome: Result<()>) {
        let (hub, act) = (self.clone(), settling.act.clone());
        let mut work = tokio::spawn(async move {
            let act = match outcome {
                Ok(()) => Ok(act),
                Err(error) => hub.ascertain(act, error).await,
            };

            match act {
                Ok(act) => hub.complete(act).await,
                Err(error) => Err(error),
            }
        });
        let outcome = if let Ok(outcome) = self.patiently(&mut work).await {
            outcome
        } else {
            self.is_late(&mut settling);
            work.await
        };
        let outcome = outcome.unwrap_or_else(|lost| Err(Error::internal(lost)));
        let stages = settling.act.stages();
        self.inner.pending.was_late(&stages);
        drop(settling.held);
        if settling.reply.0.is_none() && outcome.is_err() {
            // Nobody else removes them any more.
            let unneeded: Vec<_> = stages.into_iter().filter(|id| !self.inner.pending.needs_stage(id)).collect();
            self.discard_everywhere(&unneeded).await;
        }
        settling.reply.send(outcome);
    }
}

/// A batch that a guard refused is no failure of the catalog: it is planned again, or its caller is told why.
fn measure(took: Duration, outcome: &Result<()>) {
    match outcome {
        Ok(()) => metric::commit(took, true),
        Err(error) if is_failure(error) => metric::commit(took, false),
        Err(_) => {}
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

/// In one space, and no move of a whole folder: others need not wait for that.
fn is_quick(promised: &[Promised]) -> bool {
    let same = promised.windows(2).all(|two| matches!(two, [a, b] if a.planned.space.key == b.planned.space.key));
    let wide = |one: &Promised| matches!(one.planned.change, Change::RemoveFolder { .. } | Change::Rename { .. });
    same && !promised.iter().any(wide)
}

/// Acts apart by their space: one whose volume hangs holds up nobody else.
fn by_space(acts: Vec<Settling>) -> Vec<Vec<Settling>> {
    let mut parts: HashMap<String, Vec<Settling>> = HashMap::new();
    for one in acts {
        let key = one.act.promised.first().map_or_else(String::new, |first| first.planned.space.key.clone());
        parts.entry(key).or_default().push(one);
    }
    parts.into_values().collect()
}

/// On the disk that has the catalog: if that hangs, every commit hangs in any case.
fn is_near(one: &Promised) -> bool {
    one.planned.space.volume.is_near()
}

/// Publishes for one act on this thread.
fn publish_here(settling: &Settling) -> Option<Vec<Option<Node>>> {
    let publish = |one: &Promised| one.planned.space.volume.publish_here(&one.planned.change, one.planned.body.clone());
    settling.act.promised.iter().map(|one| publish(one)?.ok()).collect()
}

/// Publishes for several acts of one space in one visit to its volume. `None` for an act the volume refused something.
fn publish_each(acts: &[Settling]) -> impl Future<Output = Vec<Option<Vec<Option<Node>>>>> + Send + 'static {
    let counts: Vec<usize> = acts.iter().map(|one| one.act.promised.len()).collect();
    let promised = || acts.iter().flat_map(|one| &one.act.promised);
    let volume = promised().next().map(|first| first.planned.space.volume.clone());
    let changes: Vec<(Change, Option<bytes::Bytes>)> =
        promised().map(|one| (one.planned.change.clone(), one.planned.body.clone())).collect();
    async move {
        let Some(volume) = volume else { return counts.iter().map(|_| Some(Vec::new())).collect() };
        let mut nodes = volume.publish_each(changes).await.into_iter();
        let mut of_one = |count: usize| {
            let own: Vec<_> = nodes.by_ref().take(count).collect();
            let whole = own.len() == count;
            own.into_iter().collect::<Result<Vec<_>>>().ok().filter(|_| whole)
        };
        counts.into_iter().map(&mut of_one).collect()
    }
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
