//! `[address_guard]`.

use super::{Context, limits};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, AddressRate, At, Text};
use crate::limits::guard::LEAST;
use crate::limits::{GuardDef, Mode, Rate};
use ipnet::IpNet;
use std::time::Duration;

/// Compiles the table.
pub(crate) fn compile(guard: &schema::AddressGuard, cx: &mut Context<'_>) -> Option<GuardDef> {
    let rate = rate(&guard.rate, cx);
    let failed_tries = self::rate(&guard.failed_tries, cx);
    let exempt = cx.read_set(&guard.exempt, "network");
    warn_of_everyone(&guard.exempt, cx);
    let definition = GuardDef {
        rate: rate?,
        in_flight: guard.in_flight.as_ref().map(|most| most.value),
        failed_tries: failed_tries?,
        mode: limits::mode(guard.mode.value),
        exempt: exempt?,
    };
    warn_of_idleness(guard, &definition, cx);
    Some(definition)
}

/// Addresses share what they are counted in, so a limit must be out of the reach of a few.
fn rate(text: &At<Text<AddressRate>>, cx: &mut Context<'_>) -> Option<Option<Rate>> {
    let Some(rate) = cx.read(text)?.0 else { return Some(None) };
    let shortest = Duration::from_micros(1).saturating_mul(rate.permits.get());
    if rate.permits.get() < LEAST || rate.per.span() < shortest {
        let message = format!("`{}` is out of range", text.value.text);
        cx.report(
            Diagnostic::error(message)
                .at(text.span, format!("at least {LEAST}, at most 1000000 per second"))
                .help("addresses are counted in a sketch, which cannot tell smaller numbers apart"),
        );
        return None;
    }
    Some(Some(rate))
}

fn warn_of_everyone(list: &[At<Text<IpNet>>], cx: &mut Context<'_>) {
    for network in list {
        if cx.read_quietly(network).is_some_and(|network| network.prefix_len() == 0) {
            cx.report(
                Diagnostic::warning("the address guard counts nobody of a family of addresses")
                    .at(network.span, "every address of its family is in this network")
                    .help("say `mode = \"off\"` if it is to count nobody"),
            );
        }
    }
}

/// Limits that are written down and do nothing.
fn warn_of_idleness(guard: &schema::AddressGuard, definition: &GuardDef, cx: &mut Context<'_>) {
    let given = [
        guard.rate.is_given().then_some(guard.rate.span),
        guard.in_flight.as_ref().map(|most| most.span),
        guard.failed_tries.is_given().then_some(guard.failed_tries.span),
    ];
    if let (Mode::Off, Some(span)) = (definition.mode, given.into_iter().flatten().next()) {
        cx.report(
            Diagnostic::warning("the address guard is off")
                .at(guard.mode.span, "nothing is counted")
                .at(span, "so this has no effect")
                .help("`mode = \"shadow\"` counts and refuses nobody"),
        );
    }
}
