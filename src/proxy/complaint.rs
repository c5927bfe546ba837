//! Trouble that comes by the thousand is told once in a while.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Between two complaints about one thing.
const PAUSE: Duration = Duration::from_secs(10);

/// One thing to complain of.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    /// What came since, and was not told.
    untold: u64,
}

impl Complaint {
    /// Whether the last complaint is long enough ago; this is one, then.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// The same, with how much came since the last complaint, this included.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.untold += 1;
        if state.last.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_many_is_told() {
        let complaint = Complaint::default();
        for _ in 0..2 {
            assert!(complaint.is_due());
            assert!(!complaint.is_due());
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!((complaint.due(), complaint.due()), (Some(2), None));
    }
}
