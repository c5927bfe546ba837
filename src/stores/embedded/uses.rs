//! The last use of keys, and other digests of the same keys, in the file.
//!
//! Must stay true: no revision and no line of the audit comes of it; a digest takes the place of the one
//! that it was made for, and of no other.

use super::Embedded;
use super::rows::stored;
use crate::auth::registry::RegistryError;
use crate::auth::uses::{KeyUse, UseLog};
use async_trait::async_trait;
use rusqlite::{TransactionBehavior, params};

#[async_trait]
impl UseLog for Embedded {
    async fn note_uses(&self, uses: &[KeyUse]) -> Result<usize, RegistryError> {
        let uses = uses.to_vec();
        self.run(TransactionBehavior::Immediate, move |tx| {
            let mut used = tx.prepare_cached(
                "UPDATE keys SET last_used_at = ?1 \
                 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)",
            )?;
            let mut redigest = tx.prepare_cached(
                "UPDATE keys SET digest = ?1, pepper = ?2 \
                 WHERE id = ?3 AND digest = ?4 AND revoked_at IS NULL",
            )?;
            let mut redigested = 0;
            for KeyUse { id, at, redigest: other } in &uses {
                used.execute(params![stored(*at), id.as_str()])?;
                if let Some(other) = other {
                    let (new, pepper) = (other.new.as_bytes(), other.pepper.as_u32());
                    redigested += redigest.execute(params![
                        new,
                        pepper,
                        id.as_str(),
                        other.old.as_bytes()
                    ])?;
                }
            }
            Ok(redigested)
        })
        .await
    }
}
