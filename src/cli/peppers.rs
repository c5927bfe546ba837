//! `gateway keys peppers`: whether a previous pepper can be removed.

use super::keys::show_standing;
use super::ledger::Ledger;
use crate::auth::ApiKeys;
use crate::auth::api_key::KeyForm;
use serde_json::json;

/// Prints how many keys need each pepper; those of the configuration are named even if none does.
pub(super) async fn list(ledger: &mut Ledger<'_>, keys: &ApiKeys) -> anyhow::Result<()> {
    let form = KeyForm::new(keys);
    let mut counts = ledger.store.peppers().await?;
    for version in form.versions() {
        if !counts.iter().any(|(known, _)| *known == version) {
            counts.push((version, 0));
        }
    }
    counts.sort_unstable_by_key(|(version, _)| (form.standing(*version), version.as_u32()));
    let shown = |version| show_standing(form.standing(version));
    if ledger.json {
        let counts = counts.iter().map(|(version, keys)| {
            let name = format!("{:08x}", version.as_u32());
            json!({ "pepper": shown(*version), "version": name, "keys": keys })
        });
        return ledger.print_json(&counts.collect());
    }
    let rows: Vec<_> = counts
        .iter()
        .map(|(version, keys)| {
            [shown(*version).to_owned(), format!("{:08x}", version.as_u32()), keys.to_string()]
        })
        .collect();
    ledger.print_table(["PEPPER", "VERSION", "KEYS"], &rows)
}
