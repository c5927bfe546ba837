//! Trouble that comes by the thousand is told once in a while.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Between two complaints about one thing.
const PAUSE: Duration = Duration::from_secs(10);

/// One thing to complain of.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<Option<Instant>>);

impl Complaint {
    /// Whether the last complaint is long enough ago; this is one, then.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock();
        let due = last.is_none_or(|at| now.duration_since(at) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
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
    }
}
