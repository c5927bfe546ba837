//! The deny list in PostgreSQL.
//!
//! Entries are numbered, so their order is that of time even where clocks disagree; a number is never
//! given twice. As text it has leading zeros, so that texts have the same order.

use super::Postgres;
use super::error::PostgresError;
use super::pool::Work;
use super::rows::{Reader, count, stored, unsigned};
use super::write::{Deed, Failure, Job};
use crate::auth::audit;
use crate::auth::changes::ChangeKind;
use crate::auth::denials::{
    Denial, Denials, DeniedTokens, MAX_DENIALS, NewDenial, check_denial, ended_by,
};
use crate::auth::registry::{Actor, Page, RegistryError};
use crate::auth::{Outage, UnixTime};
use async_trait::async_trait;

/// Columns of [`denial`].
const DENIAL: &str =
    "d.id, d.issuer, d.jti, d.subject, d.issued_before, d.until, d.reason, d.created_at";

#[async_trait]
impl Denials for Postgres {
    async fn load_denials(&self) -> Result<(Vec<Denial>, u64), Outage> {
        let ended = stored(ended_by(UnixTime::now(&self.shared.clock)));
        let sql = format!(
            "SELECT r.n, d.id IS NOT NULL, {DENIAL} \
             FROM revision r LEFT JOIN denials d ON d.until > $1 ORDER BY d.id"
        );
        self.load(sql, vec![Box::new(ended)], |row| denial(row, 2)).await
    }

    async fn denials(&self, page: Page<'_>) -> Result<Vec<Denial>, RegistryError> {
        let ended = stored(ended_by(UnixTime::now(&self.shared.clock)));
        let after = page.after.map_or(0, |id| number(id).unwrap_or(i64::MAX));
        let sql = format!(
            "SELECT {DENIAL} FROM denials d WHERE d.id > $1 AND d.until > $2 ORDER BY d.id LIMIT $3"
        );
        let values =
            vec![Box::new(after) as _, Box::new(ended) as _, Box::new(count(page.limit)) as _];
        let rows = self.survey(sql, values).await?;
        Ok(self.each(&rows, |row| denial(row, 0))?)
    }

    async fn deny(&self, by: &Actor, new: NewDenial) -> Result<Denial, RegistryError> {
        self.write(by, Deny(new)).await
    }

    async fn allow(&self, by: &Actor, id: &str) -> Result<Denial, RegistryError> {
        self.write(by, Allow(id.to_owned())).await
    }
}

struct Deny(NewDenial);

#[async_trait]
impl Job for Deny {
    type Done = Denial;

    async fn run(&self, work: &Work<'_>, now: UnixTime) -> Result<(Denial, Option<Deed>), Failure> {
        let new = check_denial(self.0.clone(), now)?;
        forget_ended(work, now).await?;
        refuse_too_many(work, now).await?;
        let (jti, subject, issued_before) = match &new.tokens {
            DeniedTokens::Id(id) => (Some(&**id), None, None),
            DeniedTokens::Subject { subject, issued_before } => {
                (None, Some(&**subject), Some(stored(*issued_before)))
            }
        };
        let sql = format!(
            "INSERT INTO denials AS d \
             (issuer, jti, subject, issued_before, until, reason, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {DENIAL}"
        );
        let (until, now) = (stored(new.until), stored(now));
        let row = work
            .row(&sql, &[&new.issuer, &jti, &subject, &issued_before, &until, &new.reason, &now])
            .await?;
        let made = denial(Reader::new(work.at(), &row), 0)?;
        let deed = deed("token.deny", &made);
        Ok((made, Some(deed)))
    }
}

struct Allow(String);

#[async_trait]
impl Job for Allow {
    type Done = Denial;

    async fn run(&self, work: &Work<'_>, now: UnixTime) -> Result<(Denial, Option<Deed>), Failure> {
        let Self(id) = self;
        let sql =
            format!("DELETE FROM denials d WHERE d.id = $1 AND d.until > $2 RETURNING {DENIAL}");
        let rows =
            work.rows(&sql, &[&number(id).unwrap_or_default(), &stored(ended_by(now))]).await?;
        let row = rows.first().ok_or_else(|| RegistryError::UnknownDenial(id.clone()))?;
        let removed = denial(Reader::new(work.at(), row), 0)?;
        let deed = deed("token.allow", &removed);
        Ok((removed, Some(deed)))
    }
}

fn deed(action: &'static str, denial: &Denial) -> Deed {
    let id = denial.id.to_string();
    let touched = vec![(ChangeKind::Token, id.clone())];
    Deed { touched, action, subject: id, detail: audit::of_denial(denial) }
}

/// Removes what has no effect any more, a few at a time.
async fn forget_ended(work: &Work<'_>, now: UnixTime) -> Result<(), PostgresError> {
    let sql = "DELETE FROM denials WHERE id IN \
               (SELECT id FROM denials WHERE until <= $1 ORDER BY until LIMIT 16)";
    work.change(sql, &[&stored(ended_by(now))]).await.map(drop)
}

async fn refuse_too_many(work: &Work<'_>, now: UnixTime) -> Result<(), Failure> {
    let sql = "SELECT count(*) FROM denials WHERE until > $1";
    let row = work.row(sql, &[&stored(ended_by(now))]).await?;
    if unsigned(Reader::new(work.at(), &row).get(0)?) < unsigned(count(MAX_DENIALS)) {
        return Ok(());
    }
    Err(RegistryError::TooMany { what: "entries of the deny list", most: MAX_DENIALS }.into())
}

/// The number of an entry, with leading zeros or without.
fn number(id: &str) -> Option<i64> {
    // `parse` would take a sign too.
    id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten()
}

/// An entry whose columns begin at `first`.
fn denial(row: Reader<'_>, first: usize) -> Result<Denial, PostgresError> {
    let tokens = match row.text_or_none(first + 2)? {
        Some(jti) => DeniedTokens::Id(jti),
        None => DeniedTokens::Subject {
            subject: row.text(first + 3)?,
            issued_before: row.time(first + 4)?,
        },
    };
    Ok(Denial {
        id: format!("{:010}", row.number(first)?).into(),
        issuer: row.text(first + 1)?,
        tokens,
        until: row.time(first + 5)?,
        reason: row.text_or_none(first + 6)?,
        created_at: row.time(first + 7)?,
    })
}
