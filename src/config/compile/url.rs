//! URLs of PostgreSQL and Redis: secrets, read by those who will connect, so that what is accepted here
//! is not refused at the start.
//!
//! Must stay true: no message shows a URL, or a part of one that could be a secret.

use super::Context;
use crate::config::diagnostic::Diagnostic;
use crate::config::fleet::SecretText;
use crate::config::schema::{At, Text};
use crate::config::secret::{Pointer, Secret};
use crate::config::source::Span;
use crate::config::value::Invalid;
use crate::stores::postgres::{self, Bounds};
use crate::stores::redis::{self, InvalidSettings};

/// Which URL it is, and where it is when the file does not say.
pub(super) struct Url<'a> {
    pub(super) what: &'a str,
    pub(super) variable: &'a str,
    pub(super) schemes: [&'a str; 2],
}

/// A URL, and where the file points to it.
pub(super) struct Found {
    pub(super) text: SecretText,
    place: Span,
}

impl Url<'_> {
    /// The URL, if there is one; `None` if it is wrong.
    pub(super) fn read(
        &self,
        pointer: Option<&At<Text<Pointer>>>,
        cx: &mut Context<'_>,
    ) -> Option<Option<Found>> {
        let (pointer, place) = match pointer {
            Some(text) => (cx.read(text)?, text.span),
            None if !cx.vault.has(self.variable) => return Some(None),
            None => (Pointer::Env(self.variable.to_owned()), Span::NOWHERE),
        };
        match cx.vault.read(&pointer).and_then(|secret| self.check(secret)) {
            Ok(text) => Some(Some(Found { text, place })),
            Err(invalid) => {
                refuse(self.what, self.variable, place, invalid, cx);
                None
            }
        }
    }

    fn check(&self, secret: Secret) -> Result<SecretText, Invalid> {
        let [first, second] = self.schemes;
        let help = format!("write it as `{first}://USER:PASSWORD@HOST`");
        let text = SecretText::of(secret);
        let text = text.ok_or_else(|| Invalid::new("it is not text", help.clone()))?;
        let (scheme, rest) = text.expose().split_once("://").unwrap_or_default();
        if scheme != first && scheme != second {
            let label = format!("it starts neither with `{first}://` nor with `{second}://`");
            return Err(Invalid::new(label, help));
        }
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        if host.rsplit('@').next().is_none_or(str::is_empty)
            || rest.chars().any(|symbol| symbol.is_whitespace() || symbol.is_control())
        {
            return Err(Invalid::new("it names no host, or has a space or a line break", help));
        }
        Ok(text)
    }

    /// The text of a URL, if `reading` it is what a start would succeed in.
    pub(super) fn accept(
        &self,
        found: Found,
        reading: impl FnOnce(&str) -> Result<(), Invalid>,
        cx: &mut Context<'_>,
    ) -> Option<SecretText> {
        match reading(found.text.expose()) {
            Ok(()) => Some(found.text),
            Err(invalid) => {
                refuse(self.what, self.variable, found.place, invalid, cx);
                None
            }
        }
    }
}

/// What the store makes of a URL of PostgreSQL.
pub(super) fn read_as_postgres(url: &str, ca: Option<&[u8]>) -> Result<(), Invalid> {
    match postgres::Settings::parse(url, None, ca, Bounds::default()) {
        Ok(_) => Ok(()),
        Err(refused) => Err(Invalid::new(format!("it {}", refused.problem), refused.help)),
    }
}

/// What the store makes of a URL of Redis.
pub(super) fn read_as_redis(url: &str, ca: Option<&[u8]>) -> Result<(), Invalid> {
    use InvalidSettings::{Ca, CaWithoutTls, Encoding, NoRoots, Node, Rest, Scheme, Tls};
    let Err(refused) = redis::Settings::parse(url, ca) else { return Ok(()) };
    let help = match refused {
        Scheme | Node | Rest => "write it as `rediss://USER:PASSWORD@HOST:PORT`",
        Encoding => "write `%` and two hex digits for signs that have a meaning in a URL",
        CaWithoutTls | Ca | NoRoots | Tls(_) => "name the authority that signs for it with `ca`",
    };
    Err(Invalid::new(refused.to_string(), help))
}

/// What is wrong with a secret, without the secret.
pub(super) fn refuse(
    what: &str,
    variable: &str,
    place: Span,
    invalid: Invalid,
    cx: &mut Context<'_>,
) {
    let broken = Diagnostic::error(format!("{what} cannot be used"));
    cx.report(match place.is_somewhere() {
        true => broken.at(place, invalid.label).help(invalid.help),
        false => broken
            .at_file(&cx.sources.dir.clone())
            .help(format!("`{variable}`: {}", invalid.label))
            .help(invalid.help),
    });
}
