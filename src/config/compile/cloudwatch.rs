//! `[cloudwatch]`.

use super::{Context, Names, quoted};
use crate::config::cloudwatch::{CloudWatchDef, Region};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema;
use crate::config::source::Span;
use crate::config::value::Written;
use crate::config::words;
use std::sync::Arc;
use std::time::Duration;

/// Where the region is when the file does not say, in this order: as every AWS client.
const VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Upstreams with metrics of their own: each costs two series a month.
const MOST: usize = 6;

pub(super) fn compile(
    file: &schema::CloudWatch,
    known: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<CloudWatchDef> {
    let region = region(file, cx);
    let namespace = cx.read(&file.namespace);
    let service = cx.read(&file.service);
    let environment = cx.read(&file.environment);
    let endpoint = file.endpoint.as_ref().map(|endpoint| cx.read(endpoint));
    let interval = cx.bounded(&file.interval, SHORTEST, LONGEST);
    let upstreams = upstreams(file, known, cx);
    let endpoint = match endpoint {
        Some(endpoint) => Some(endpoint?.0),
        None => None,
    };
    Some(CloudWatchDef {
        region: match region? {
            Region::Off => None,
            Region::Named(name) => Some(name),
        },
        namespace: namespace?.0,
        service: service?.0,
        environment: environment?.0,
        endpoint,
        interval: interval?,
        upstreams: upstreams?,
    })
}

fn region(file: &schema::CloudWatch, cx: &mut Context<'_>) -> Option<Region> {
    if let Some(region) = &file.region {
        return cx.read(region);
    }
    if cx.lost.contains(&["cloudwatch", "region"]) {
        return None;
    }
    let found = VARIABLES.iter().find_map(|name| Some((name, cx.vault.text(name)?)));
    let Some((name, text)) = found else { return Some(Region::Off) };
    match Region::parse(&text) {
        Ok(region) => Some(region),
        Err(invalid) => {
            let shown = quoted(&text);
            let broken = Diagnostic::error(format!("{shown} is not {}", Region::WHAT));
            cx.report(
                broken
                    .at_file(&cx.sources.dir.clone())
                    .help(format!("`{name}`: {}", invalid.label))
                    .help(format!("{}, or set `region` in `[cloudwatch]`", invalid.help)),
            );
            None
        }
    }
}

fn upstreams(
    file: &schema::CloudWatch,
    known: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<Vec<Arc<str>>> {
    let names: Option<Vec<_>> =
        file.upstreams.iter().map(|name| Some((name.span, cx.name(name)?))).collect();
    let names = names?;
    for (span, name) in names.iter().filter(|(_, name)| !known.contains_key(&**name)) {
        warn_of_unknown(*span, name, known, cx);
    }
    cx.refuse_twice(&names, "upstream");
    if let Some((span, _)) = names.get(MOST) {
        cx.report(
            Diagnostic::error("too many upstreams have metrics of their own")
                .at(*span, format!("at most {MOST} are possible"))
                .help("name the most important ones; the rest are counted together, as `other`"),
        );
        return None;
    }
    Some(names.into_iter().map(|(_, name)| name).collect())
}

/// The list is read at the start only, so an upstream that it names must be free to leave by a reload.
fn warn_of_unknown(span: Span, name: &str, known: &Names<'_>, cx: &mut Context<'_>) {
    if !cx.complete || cx.lost.contains(&["upstreams", name]) {
        return;
    }
    let help = match words::nearest(name, known.keys().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "take it out of the list with the next restart".to_owned(),
    };
    cx.report(
        Diagnostic::warning("`cloudwatch.upstreams` names no upstream that there is")
            .at(span, "it has no metrics while there is none")
            .help(help),
    );
}
