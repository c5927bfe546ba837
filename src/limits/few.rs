//! A list that lives on the stack while it is short.
//!
//! A request seldom meets more than three rules; up to [`INLINE`] of them are reserved without
//! allocating, and any number works.

/// How many items are kept without allocating.
const INLINE: usize = 8;

pub(super) struct Few<T> {
    inline: [Option<T>; INLINE],
    rest: Vec<T>,
}

impl<T> Few<T> {
    pub(super) const fn new() -> Self {
        Self { inline: [const { None }; INLINE], rest: Vec::new() }
    }

    pub(super) fn push(&mut self, item: T) {
        match self.inline.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(item),
            None => self.rest.push(item),
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.inline.iter().flatten().chain(&self.rest)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.inline.iter_mut().flatten().chain(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_beyond_the_stack() {
        let mut few = Few::new();
        (0..INLINE * 2).for_each(|n| few.push(n));
        few.iter_mut().for_each(|n| *n += 1);
        assert!(few.iter().copied().eq(1..=INLINE * 2));
        assert!(few.iter().rev().copied().eq((1..=INLINE * 2).rev()));
    }
}
