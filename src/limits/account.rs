//! What one subject has used of one quota in one calendar period, as far as this task knows.
//!
//! In process the count here is the count. With Redis, the counter there is; here stand what Redis
//! said last, permits that were taken from it ahead of need, and what was let through here and has yet
//! to be handed to the log that lasts. What is taken ahead of need shrinks with what is left, down to
//! one at a time, and goes back after [`TERM`] unless it is in use: so a quota is neither exceeded nor
//! lost, except for what a task holds when it is killed.
//!
//! Until Redis or the log has said what is used, nothing is known to be left: only [`BLIND`] are let
//! through, and the counter is asked for those as soon as it can be.
//!
//! Must stay true: `pending` counts each admission once, whoever granted it; what only stands here is
//! never forgotten before its period is over.

use super::calendar::Span;
use super::lease::Pace;
use super::slots::Entry;
use super::usage::QuotaCount;
use crate::telemetry::Moment;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long permits that nobody uses are kept.
pub(super) const TERM: Duration = Duration::from_secs(1);
/// Permits are taken for this many milliseconds.
const AHEAD: f32 = 250.0;
/// Of what is left, all tasks together hold at most one part in so many.
const PARTS: u64 = 4;
/// So many are let through before anybody has said what is used.
const BLIND: u64 = 1;
/// After so many seconds without a request an account that others know of is forgotten. By then a
/// batch that it was drained into has been applied, or the log is away.
const FORGOTTEN: u64 = 15;

/// One quota's use.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) rule: Arc<str>,
    pub(super) subject: u128,
    pub(super) span: Span,
    /// What all tasks together have used or hold.
    used: u64,
    /// Let through here and not yet handed to the log.
    pending: u64,
    /// Taken from Redis and not yet used.
    held: u64,
    /// Redis or the log has said what is used.
    seen: bool,
    /// How often the log has answered.
    pub(super) answers: u32,
    /// Let through without the fleet's counter, and not yet paid for nor handed to the log.
    owed: u64,
    /// Let through before anything was known, ever.
    blind: u64,
    /// Redis or the log can say later what is in it.
    kept: bool,
    /// The last request, in seconds since 1970.
    pub(super) touched: u64,
    /// Whether the log is to hear of it.
    durable: bool,
    /// Told when the log has answered what it is being asked.
    pub(super) seeding: Option<Arc<Notify>>,
    /// A question for more is under way.
    pub(super) asking: bool,
    /// Somebody will see to it that what is held goes back.
    pub(super) tended: bool,
    /// What may still be let through while Redis is away.
    share: Option<u64>,
    pace: Pace,
}

impl Account {
    pub(super) fn new(
        rule: &Arc<str>,
        subject: u128,
        span: Span,
        durable: bool,
        kept: bool,
    ) -> Self {
        Self {
            rule: Arc::clone(rule),
            subject,
            span,
            used: 0,
            pending: 0,
            held: 0,
            seen: false,
            answers: 0,
            owed: 0,
            blind: 0,
            kept,
            touched: 0,
            durable,
            seeding: None,
            asking: false,
            tended: false,
            share: None,
            pace: Pace::default(),
        }
    }

    /// Whether what the log knows must be asked for first.
    pub(super) const fn is_new(&self) -> bool {
        self.durable && !self.seen
    }

    /// Takes in what the log knew.
    pub(super) fn seed(&mut self, total: u64) {
        self.raise(total);
        self.answers = self.answers.wrapping_add(1);
        self.share = None;
    }

    /// Takes `cost` where nobody else counts; what is left after it.
    pub(super) const fn take_here(&mut self, permits: u64, cost: u64) -> Option<u64> {
        let Some(left) = permits.saturating_sub(self.used).checked_sub(cost) else { return None };
        self.used += cost;
        self.pending += cost;
        Some(left)
    }

    /// Undoes [`Account::take_here`].
    pub(super) const fn give_back_here(&mut self, cost: u64) {
        self.used = self.used.saturating_sub(cost);
        self.pending = self.pending.saturating_sub(cost);
    }

    /// Takes `cost` of those that are held; what is left after it.
    pub(super) fn take_held(&mut self, permits: u64, cost: u64, now: Moment) -> Option<u64> {
        self.pace.count(u32::try_from(cost).unwrap_or(u32::MAX), now);
        self.held = self.held.checked_sub(cost)?;
        self.pending += cost;
        Some(permits.saturating_sub(self.used) + self.held)
    }

    /// Puts `cost` back among those that are held.
    pub(super) const fn give_back_held(&mut self, cost: u64) {
        self.held += cost;
        self.pending = self.pending.saturating_sub(cost);
    }

    /// Takes `cost` of this task's share of what was left when Redis was last seen: what as many
    /// requests take as are left for each task, rounded up. It owes it to the fleet's counter, unless
    /// that may have been charged already.
    pub(super) fn take_share(
        &mut self,
        permits: u64,
        cost: u64,
        tasks: u64,
        owes: bool,
    ) -> Option<u64> {
        if let Some(held) = self.held.checked_sub(cost) {
            self.held = held;
        } else {
            let requests = permits.saturating_sub(self.used) / cost.max(1);
            let share = self.share.get_or_insert(requests.div_ceil(tasks.max(1)) * cost);
            *share = share.checked_sub(cost)?;
            self.owed += if owes { cost } else { 0 };
        }
        self.pending += cost;
        Some(self.share.unwrap_or(self.held))
    }

    /// Takes `cost` although nobody has said yet what is used; whether that may be.
    pub(super) const fn take_blind(&mut self, cost: u64) -> bool {
        if self.blind >= BLIND {
            return false;
        }
        self.blind += 1;
        self.owed += cost;
        self.pending += cost;
        true
    }

    /// What the fleet's counter has yet to be charged for.
    pub(super) const fn owed(&self) -> u64 {
        self.owed
    }

    /// Counts what was let through although nobody could count it.
    pub(super) const fn take_uncounted(&mut self, cost: u64) {
        self.pending += cost;
    }

    /// How many to ask for: `cost` for the request itself, and what others will need soon.
    pub(super) fn size(&self, permits: u64, cost: u64, tasks: u64) -> u64 {
        let most = permits.saturating_sub(self.used) / (PARTS * tasks.max(1));
        let ahead = ((self.pace.rate * AHEAD) as u64).min(most);
        // A part of a request is of no use.
        if self.asking { cost } else { (ahead - ahead % cost.max(1)).max(cost) }
    }

    /// How many to ask for ahead of need, if it is time; whoever gets an answer here must ask.
    pub(super) fn wants(&mut self, permits: u64, cost: u64, tasks: u64) -> Option<u64> {
        let size = self.size(permits, cost, tasks);
        if self.asking || size < 2 * cost || self.held > size / 2 {
            return None;
        }
        self.asking = true;
        Some(size)
    }

    /// What Redis gave, `used` of them for a request.
    pub(super) const fn granted(&mut self, granted: u64, used: u64, remaining: u64, permits: u64) {
        self.held += granted.saturating_sub(used);
        let paid = if self.owed < self.held { self.owed } else { self.held };
        self.owed -= paid;
        self.held -= paid;
        self.pending += used;
        self.saw(remaining, permits);
    }

    /// What Redis said is left.
    pub(super) const fn saw(&mut self, remaining: u64, permits: u64) {
        self.used = permits.saturating_sub(remaining);
        self.share = None;
        self.seen = true;
    }

    /// What to give back, since it is not in use.
    pub(super) fn unused(&mut self, now: Moment, permits: u64, cost: u64, tasks: u64) -> u64 {
        let idle = now.since(self.pace.last()) >= TERM;
        let keep = if idle { 0 } else { self.size(permits, cost, tasks) };
        let unused = self.held.saturating_sub(keep);
        self.held -= unused;
        unused
    }

    /// Takes back what could not be given back.
    pub(super) const fn keep(&mut self, unused: u64) {
        self.held += unused;
    }

    /// What is held.
    pub(super) const fn held(&self) -> u64 {
        self.held
    }

    /// What is known to be used, without what is owed.
    pub(super) const fn used(&self) -> u64 {
        self.used.saturating_sub(self.owed)
    }

    /// Raises what is known to be used to a total that does not know of what is pending here.
    pub(super) fn raise(&mut self, total: u64) {
        self.used = self.used.max(total + self.pending);
        self.seen = true;
    }

    /// What has yet to be handed to the log, once.
    pub(super) fn drain(&mut self) -> Option<QuotaCount> {
        let used = std::mem::replace(&mut self.pending, 0);
        // From here on it reaches the counter by way of the log.
        self.owed = 0;
        (used > 0 && self.durable).then(|| QuotaCount {
            rule: Arc::clone(&self.rule),
            subject: self.subject,
            period: self.span.starts,
            ends: self.span.ends,
            used,
        })
    }
}

impl Entry for Account {
    /// Time since 1970.
    type Now = Duration;

    fn is_idle(&self, now: Duration) -> bool {
        let now = now.as_secs();
        let in_use = self.held > 0 || self.asking || self.tended || self.seeding.is_some();
        let elsewhere = self.kept && !in_use && self.touched.saturating_add(FORGOTTEN) < now;
        self.pending == 0 && (self.span.ends < now || elsewhere)
    }

    fn tick(now: Duration) -> u64 {
        now.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(43_200);

    fn account(kept: bool) -> Account {
        let span = Span { starts: 0, ends: 86_400 };
        let mut account = Account::new(&"r".into(), 1, span, true, kept);
        account.touched = NOON.as_secs();
        account
    }

    #[test]
    fn what_others_know_of_is_forgotten_soon_and_anything_else_with_its_period() {
        let (soon, day) = (Duration::from_secs(16), Duration::from_secs(86_400));
        for (kept, used, forgotten) in
            [(true, false, true), (true, true, false), (false, false, false)]
        {
            let mut account = account(kept);
            account.seed(3);
            assert!(!used || account.take_here(10, 1).is_some());
            assert!(!account.is_idle(NOON + Duration::from_secs(15)));
            assert_eq!(account.is_idle(NOON + soon), forgotten, "{kept} {used}");
            account.drain();
            assert_eq!(account.is_idle(NOON + soon), kept);
            assert!(account.is_idle(NOON + day));
        }
        let mut held = account(true);
        held.granted(2, 1, 7, 10);
        held.drain();
        assert!(!held.is_idle(NOON + soon), "what is held must go back first");
    }

    #[test]
    fn what_was_let_through_blind_is_paid_with_the_first_that_the_counter_gives() {
        let mut account = account(true);
        assert!(account.is_new() && account.take_blind(1));
        assert!(!account.take_blind(1), "only once");
        account.seed(200);
        assert_eq!((account.used(), account.owed()), (200, 1), "the counter does not know of it");
        account.granted(2, 1, 98, 300);
        assert_eq!((account.held(), account.owed()), (0, 0));
        assert_eq!(account.drain().unwrap().used, 2);
    }
}
