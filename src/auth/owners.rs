//! Which cached rows belong to which consumer, told to them and not looked for.
//!
//! A consumer can have any number of cached keys, and a cache can hold a million. When a consumer
//! changes, its rows must be void at once; looking through all rows for them would hold up everybody.
//! So the rows of a consumer share a mark, and the change sets it.
//!
//! Must stay true: a row that is put on a shelf after a change of its consumer has another mark than
//! the rows before it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// The least number of consumers at which those without rows are looked for.
const SMALLEST: usize = 1024;

/// Whether rows of a consumer still hold.
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicBool);

impl Mark {
    /// The consumer has changed since the row was read.
    pub(super) fn is_void(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Marks by the consumer's id.
#[derive(Debug)]
pub(super) struct Owners {
    marks: HashMap<Arc<str>, Weak<Mark>>,
    sweep_at: usize,
}

impl Default for Owners {
    fn default() -> Self {
        Self { marks: HashMap::new(), sweep_at: SMALLEST }
    }
}

impl Owners {
    /// The mark of a consumer's rows.
    pub(super) fn mark(&mut self, consumer: &Arc<str>) -> Arc<Mark> {
        if let Some(mark) = self.marks.get(consumer).and_then(Weak::upgrade) {
            return mark;
        }
        if self.marks.len() >= self.sweep_at {
            self.marks.retain(|_, mark| mark.strong_count() > 0);
            self.sweep_at = SMALLEST.max(self.marks.len() * 2);
        }
        let mark = Arc::<Mark>::default();
        self.marks.insert(Arc::clone(consumer), Arc::downgrade(&mark));
        mark
    }

    /// Voids a consumer's rows.
    pub(super) fn void(&mut self, consumer: &str) {
        if let Some(mark) = self.marks.remove(consumer).and_then(|mark| mark.upgrade()) {
            mark.0.store(true, Ordering::Release);
        }
    }

    /// Forgets all; every row is gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_voids_the_rows_before_it_and_no_others() {
        let mut owners = Owners::default();
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let before = [owners.mark(&alice), owners.mark(&alice)];
        let other = owners.mark(&bob);
        owners.void("alice");
        owners.void("nobody");
        let after = owners.mark(&alice);
        assert!(before.iter().all(|mark| mark.is_void()));
        assert!(!other.is_void() && !after.is_void());
    }

    #[test]
    fn consumers_without_rows_are_forgotten() {
        let mut owners = Owners::default();
        let kept = owners.mark(&"kept".into());
        for n in 0..10 * SMALLEST {
            owners.mark(&format!("c{n}").into());
        }
        assert!(owners.marks.len() <= SMALLEST);
        owners.void("kept");
        assert!(kept.is_void());
    }
}
