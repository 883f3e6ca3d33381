//! What Stoa itself put in place or adopted a moment ago: the watcher tells of that too, and it needs no second look.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use parking_lot::Mutex;

/// Publishes remembered in each of two generations; older ones are simply looked up in the records.
const REMEMBERED: usize = 16_384;

/// Stands for "nothing is there".
const GONE: u64 = 0;

/// The tags of files as Stoa left and recorded them.
#[derive(Default)]
pub(crate) struct Own {
    generations: Mutex<[HashMap<u64, u64>; 2]>,
}

impl Own {
    /// Stoa left this at a path; `None` for nothing.
    pub(crate) fn left(&self, space: &str, path: &str, tag: Option<u64>) {
        let mut generations = self.generations.lock();
        let [young, old] = &mut *generations;
        if young.len() >= REMEMBERED {
            *old = std::mem::take(young);
        }
        young.insert(place(space, path), tag.unwrap_or(GONE));
    }

    /// Folders moved or went: what is remembered of files below them no longer holds.
    pub(crate) fn forget(&self) {
        *self.generations.lock() = Default::default();
    }

    /// Is it still as Stoa left it?
    pub(super) fn is(&self, space: &str, path: &str, tag: Option<u64>) -> bool {
        let place = place(space, path);
        let generations = self.generations.lock();
        generations.iter().find_map(|generation| generation.get(&place)) == Some(&tag.unwrap_or(GONE))
    }
}

fn place(space: &str, path: &str) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    (space, path).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_on_a_path_counts_and_old_ones_are_forgotten() {
        let own = Own::default();
        own.left("/a", "x", Some(7));
        assert!(own.is("/a", "x", Some(7)) && !own.is("/b", "x", Some(7)) && !own.is("/a", "x", Some(8)));
        for number in 0..REMEMBERED {
            own.left("/a", &number.to_string(), None);
        }
        assert!(own.is("/a", "x", Some(7)));
        own.left("/a", "x", None);
        assert!(own.is("/a", "x", None) && !own.is("/a", "x", Some(7)));
        for number in 0..2 * REMEMBERED {
            own.left("/a", &number.to_string(), None);
        }
        assert!(!own.is("/a", "x", None));
    }
}
