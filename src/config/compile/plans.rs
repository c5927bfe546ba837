//! `[plans.*]`.

use super::{Context, limits};
use crate::config::schema::{self, Entries};
use crate::limits::Plan;

pub(crate) fn compile(plans: &Entries<schema::Plan>, cx: &mut Context<'_>) -> Option<Vec<Plan>> {
    let mut compiled = Vec::new();
    for (name, plan) in &plans.0 {
        let rules = limits::compile(name, &plan.value.limits, cx);
        let name = cx.name(name);
        compiled.push(name.zip(rules).map(|(name, rules)| Plan { name, rules }));
    }
    let mut plans: Vec<Plan> = compiled.into_iter().collect::<Option<_>>()?;
    plans.sort_by(|one, other| one.name.cmp(&other.name));
    Some(plans)
}
