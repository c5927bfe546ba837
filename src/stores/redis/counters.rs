//! The port for counters, by a script.

use super::Redis;
use super::ask::tag;
use crate::limits::fleet::{Account, Answer, FleetCounters, FleetError, Take, Taken, Work};
use async_trait::async_trait;
use redis::{Script, from_redis_value};
use std::time::Duration;

const TAKE: &str = include_str!("take.lua");

#[async_trait]
impl FleetCounters for Redis {
    fn ready(&self, subject: u128) -> bool {
        self.reaches(subject)
    }

    fn is_degraded(&self) -> bool {
        !self.is_up()
    }

    fn tasks(&self) -> u32 {
        self.roster.tasks()
    }

    async fn take(
        &self,
        subject: u128,
        takes: &[Take],
        within: Duration,
    ) -> Result<Answer, FleetError> {
        let tag = tag(subject);
        let keys: Vec<_> = takes.iter().map(|take| key(&tag, take)).collect();
        let args: Vec<_> = takes.iter().flat_map(args).collect();
        let value = self.run(&self.take, TAKE, &tag, &keys, &args, within).await?;
        let numbers: Vec<i64> = from_redis_value(value).map_err(|_| FleetError::Server)?;
        answer(&numbers, takes.len()).ok_or(FleetError::Server)
    }

    fn start(&self, work: Work) {
        self.reactor.start_work(work);
    }
}

pub(super) fn script() -> Script {
    Script::new(TAKE)
}

fn key(tag: &str, take: &Take) -> String {
    match take.account {
        Account::Flow(_) => format!("dh:{{{tag}}}:rl:{}", take.rule),
        Account::Quota { period, .. } => format!("dh:{{{tag}}}:rl:{}:{period}", take.rule),
    }
}

/// How long a quota's counter outlives its period, in milliseconds: clocks differ.
const OUTLIVES: u128 = 60_000;

fn args(take: &Take) -> [String; 8] {
    let shadow = u8::from(take.shadow).to_string();
    let (want, least) = (take.want.to_string(), take.least.to_string());
    match take.account {
        Account::Flow(flow) => [
            "flow".to_owned(),
            shadow,
            want,
            least,
            flow.cost.to_string(),
            flow.regain.to_string(),
            flow.full.to_string(),
            flow.unit.as_micros().to_string(),
        ],
        Account::Quota { permits, ends_in, known, .. } => [
            "quota".to_owned(),
            shadow,
            want,
            least,
            permits.to_string(),
            (ends_in.as_millis() + OUTLIVES).to_string(),
            known.map_or_else(|| "-1".to_owned(), |known| known.to_string()),
            "0".to_owned(),
        ],
    }
}

/// What the script's numbers mean; `None` if they are not what it answers with.
fn answer(numbers: &[i64], rules: usize) -> Option<Answer> {
    let (state, rest) = numbers.split_first()?;
    let taken: Vec<_> = rest
        .chunks_exact(3)
        .filter_map(|each| {
            let [granted, remaining, wait] = each else { return None };
            Some(Taken {
                granted: *granted,
                remaining: u64::try_from(*remaining).ok()?,
                wait: Duration::from_micros(u64::try_from(*wait).ok()?),
            })
        })
        .collect();
    match state {
        -1 => Some(Answer::Missing),
        1 if taken.len() == rules => Some(Answer::Charged(taken)),
        0 if taken.len() == rules => Some(Answer::Refused(taken)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_the_question_is_none() {
        let taken = |granted, remaining, micros| Taken {
            granted,
            remaining,
            wait: Duration::from_micros(micros),
        };
        let table: [(&[i64], usize, Option<Answer>); 6] = [
            (&[1, 1, 4, 20], 1, Some(Answer::Charged(vec![taken(1, 4, 20)]))),
            (
                &[0, 0, 0, 7, 1, 3, 9],
                2,
                Some(Answer::Refused(vec![taken(0, 0, 7), taken(1, 3, 9)])),
            ),
            (&[-1], 3, Some(Answer::Missing)),
            (&[1, 1, 4], 1, None),
            (&[1, 1, -4, 20], 1, None),
            (&[], 0, None),
        ];
        for (numbers, rules, expected) in table {
            assert_eq!(answer(numbers, rules), expected, "{numbers:?}");
        }
    }
}
