//! The deny list in the file.
//!
//! Entries are numbered, so their order is that of time even where clocks disagree; a number is never
//! given twice. As text it has leading zeros, so that texts have the same order.

use super::Embedded;
use super::rows::{self, stored, unix_time};
use super::transaction::{Deed, Failure};
use crate::auth::audit;
use crate::auth::changes::ChangeKind;
use crate::auth::denials::{
    Denial, Denials, DeniedTokens, MAX_DENIALS, NewDenial, check_denial, ended_by,
};
use crate::auth::registry::{Actor, Page, RegistryError};
use crate::auth::{Outage, UnixTime};
use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

/// Columns of [`denial`].
const DENIAL: &str = "id, issuer, jti, subject, issued_before, until, reason, created_at";

#[async_trait]
impl Denials for Embedded {
    async fn load_denials(&self) -> Result<(Vec<Denial>, u64), Outage> {
        let ended = ended_by(UnixTime::now(&self.clock));
        self.load(move |tx| {
            let sql = format!("SELECT {DENIAL} FROM denials WHERE until > ?1 ORDER BY id");
            tx.prepare(&sql)?.query_map([stored(ended)], denial)?.collect()
        })
        .await
    }

    async fn denials(&self, page: Page<'_>) -> Result<Vec<Denial>, RegistryError> {
        let ended = ended_by(UnixTime::now(&self.clock));
        let after = page.after.map_or(0, |id| number(id).unwrap_or(i64::MAX));
        let limit = rows::count(page.limit);
        self.read(move |tx| {
            let sql = format!(
                "SELECT {DENIAL} FROM denials WHERE id > ?1 AND until > ?2 ORDER BY id LIMIT ?3"
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, stored(ended), limit], denial)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn deny(&self, by: &Actor, new: NewDenial) -> Result<Denial, RegistryError> {
        self.write(by, move |tx, now| {
            let new = check_denial(new, now)?;
            forget_ended(tx, now)?;
            refuse_too_many(tx, now)?;
            let (jti, subject, issued_before) = match &new.tokens {
                DeniedTokens::Id(id) => (Some(&**id), None, None),
                DeniedTokens::Subject { subject, issued_before } => {
                    (None, Some(&**subject), Some(stored(*issued_before)))
                }
            };
            let (until, now) = (stored(new.until), stored(now));
            tx.execute(
                "INSERT INTO denials (issuer, jti, subject, issued_before, until, reason, \
                 created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![new.issuer, jti, subject, issued_before, until, new.reason, now],
            )?;
            let sql = format!("SELECT {DENIAL} FROM denials WHERE id = ?1");
            let made = tx.query_row(&sql, [tx.last_insert_rowid()], denial)?;
            let deed = deed("token.deny", &made);
            Ok((made, Some(deed)))
        })
        .await
    }

    async fn allow(&self, by: &Actor, id: &str) -> Result<Denial, RegistryError> {
        let id = id.to_owned();
        self.write(by, move |tx, now| {
            let sql =
                format!("DELETE FROM denials WHERE id = ?1 AND until > ?2 RETURNING {DENIAL}");
            let parameters = params![number(&id).unwrap_or_default(), stored(ended_by(now))];
            let removed = tx.query_row(&sql, parameters, denial).optional()?;
            let removed = removed.ok_or(RegistryError::UnknownDenial(id))?;
            let deed = deed("token.allow", &removed);
            Ok((removed, Some(deed)))
        })
        .await
    }
}

fn deed(action: &'static str, denial: &Denial) -> Deed {
    let id = denial.id.to_string();
    let touched = vec![(ChangeKind::Token, id.clone())];
    Deed { touched, action, subject: id, detail: audit::of_denial(denial) }
}

/// Removes what has no effect any more, a few at a time.
fn forget_ended(tx: &Transaction<'_>, now: UnixTime) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "DELETE FROM denials WHERE id IN \
         (SELECT id FROM denials WHERE until <= ?1 ORDER BY until LIMIT 16)",
    )?
    .execute([stored(ended_by(now))])?;
    Ok(())
}

fn refuse_too_many(tx: &Transaction<'_>, now: UnixTime) -> Result<(), Failure> {
    let sql = "SELECT count(*) FROM denials WHERE until > ?1";
    let there: i64 =
        tx.prepare_cached(sql)?.query_row([stored(ended_by(now))], |row| row.get(0))?;
    if there < rows::count(MAX_DENIALS) {
        return Ok(());
    }
    Err(RegistryError::TooMany { what: "entries of the deny list", most: MAX_DENIALS }.into())
}

/// The number of an entry, with leading zeros or without.
fn number(id: &str) -> Option<i64> {
    // `parse` would take a sign too.
    id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten()
}

fn denial(row: &Row<'_>) -> rusqlite::Result<Denial> {
    let tokens = match row.get(2)? {
        Some(jti) => DeniedTokens::Id(jti),
        None => {
            DeniedTokens::Subject { subject: row.get(3)?, issued_before: unix_time(row.get(4)?) }
        }
    };
    Ok(Denial {
        id: format!("{:010}", row.get::<_, i64>(0)?).into(),
        issuer: row.get(1)?,
        tokens,
        until: unix_time(row.get(5)?),
        reason: row.get(6)?,
        created_at: unix_time(row.get(7)?),
    })
}
