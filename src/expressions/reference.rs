//! What an expression reads from a request, resolved when it is compiled.
//!
//! The checker replaces `request.headers['x-canary']` by a name that is the number of a
//! [`Reference`]: an evaluation looks up a field by its ready name, and makes nothing else.
//! Patterns and networks are references too, so they are read once.
//!
//! Must stay true: no text above the bounds reaches the evaluation.

use super::bounds::{MATCHED, SCOPE, SCOPES, TEXT};
use super::facts::{Caller, Facts, Request};
use cel::ExecutionError;
use cel::common::traits::Container;
use cel::common::types::{CelBool, CelInt, CelList, CelString, LIST_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use http::header::{CONTENT_LENGTH, COOKIE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use regex::Regex;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Something that an expression reads.
#[derive(Clone, Debug)]
pub(super) enum Reference {
    Method,
    Path,
    Host,
    Address,
    Scheme,
    Size,
    Header(HeaderName),
    Query(Box<str>),
    Route,
    Consumer,
    Id,
    Plan,
    CustomId,
    Scopes,
    Credential,
    Key,
    Claim(Arc<str>),
    /// Whether the other one is there.
    Has(Box<Reference>),
    /// What `matches` looks for.
    Pattern(Regex),
    /// What `inNetwork` looks in.
    Network(IpNet),
}

/// The name by which the tree refers to the reference of this number; no text can spell it.
pub(super) fn name_of(number: usize) -> String {
    format!("@{number}")
}

/// The number behind such a name.
pub(super) fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix('@')?.parse().ok()
}

/// Reads references from the facts of one request.
pub(super) struct Reader<'a> {
    facts: &'a Facts<'a>,
    references: &'a [Reference],
    unclear: OnceLock<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, references: &'a [Reference]) -> Self {
        Self { facts, references, unclear: OnceLock::new() }
    }

    /// Why something that was there is not given to the expression, if something was.
    pub(super) fn unclear(&self) -> Option<&'static str> {
        self.unclear.get().copied()
    }

    /// Keeps the first reason.
    fn clear<T>(&self, read: Result<T, &'static str>) -> Option<T> {
        read.map_err(|reason| *self.unclear.get_or_init(|| reason)).ok()
    }

    fn read<'b>(&'b self, reference: &'b Reference) -> Option<CowVal<'b, 'b>> {
        match reference {
            Reference::Size => Some(CowVal::owned(CelInt::from(size(&self.facts.request)?))),
            Reference::Scopes => self.scopes(),
            Reference::Has(other) => Some(CowVal::owned(CelBool::from(self.has(other)))),
            Reference::Pattern(regex) => Some(CowVal::owned(Pattern(regex))),
            Reference::Network(network) => Some(CowVal::owned(Network(*network))),
            reference => {
                let text = self.text(reference)?;
                self.bounded(text.len(), TEXT)?;
                Some(CowVal::owned(CelString::from(text)))
            }
        }
    }

    fn bounded(&self, length: usize, most: usize) -> Option<()> {
        self.clear(if length > most { Err(TOO_MUCH) } else { Ok(()) })
    }

    fn text(&self, reference: &Reference) -> Option<Cow<'a, str>> {
        let Facts { request, route, caller, claims } = self.facts;
        let caller = |read: fn(&Caller<'a>) -> &'a str| Some(Cow::Borrowed(read(caller.as_ref()?)));
        match reference {
            Reference::Method => Some(request.method.into()),
            Reference::Path => Some(request.path.into()),
            Reference::Host => Some(request.host.into()),
            Reference::Address => Some(request.address.to_string().into()),
            Reference::Scheme => Some(if request.tls { "https" } else { "http" }.into()),
            Reference::Header(name) => self.clear(header(request, name))?,
            Reference::Query(name) => self.clear(parameter(request.query?, name))?,
            Reference::Route => Some((*route)?.into()),
            Reference::Consumer => caller(|caller| caller.consumer),
            Reference::Id => caller(|caller| caller.id),
            Reference::Plan => caller(|caller| caller.plan),
            Reference::Key => caller(|caller| caller.key),
            Reference::CustomId => Some(self.facts.caller?.custom_id?.into()),
            Reference::Credential => {
                Some(self.facts.caller.map_or("none", |caller| caller.method).into())
            }
            Reference::Claim(name) => (*claims)?.claim(name),
            _ => None,
        }
    }

    fn has(&self, reference: &Reference) -> bool {
        match reference {
            Reference::Header(name) => self.facts.request.headers.contains_key(name),
            Reference::Query(name) => {
                self.facts.request.query.is_some_and(|query| values(query, name).next().is_some())
            }
            Reference::Size => size(&self.facts.request).is_some(),
            Reference::Scopes => self.facts.caller.is_some(),
            reference => self.text(reference).is_some(),
        }
    }

    fn scopes(&self) -> Option<CowVal<'_, '_>> {
        let scopes = self.facts.caller?.scopes;
        self.bounded(scopes.len(), SCOPES)?;
        let longest = scopes.iter().map(|scope| scope.len()).max().unwrap_or(0);
        self.bounded(longest, SCOPE)?;
        let list: Vec<Box<dyn Val + '_>> =
            scopes.iter().map(|scope| Box::new(CelString::from(&**scope)) as Box<_>).collect();
        Some(CowVal::owned(CelList::from(list)))
    }
}

impl VariableResolver for Reader<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        self.read(self.references.get(number_of(name)?)?)
    }
}

/// The length of the body, as the head says it; none, where there is a body and it does not.
fn size(request: &Request<'_>) -> Option<i64> {
    let Some(length) = request.headers.get(CONTENT_LENGTH) else {
        let has_body = request.goes_on || request.headers.contains_key(TRANSFER_ENCODING);
        return (!has_body).then_some(0);
    };
    length.to_str().ok()?.trim().parse().ok()
}

const TOO_MUCH: &str = "a text is too long, or a list";
const NO_TEXT: &str = "a header or parameter is no text";
const TWICE: &str = "a parameter stands twice";

/// A field's value; several are one list, as HTTP means it and as the upstream gets them.
fn header<'a>(
    request: &Request<'a>,
    name: &HeaderName,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let text = |value: &'a HeaderValue| std::str::from_utf8(value.as_bytes()).map_err(|_| NO_TEXT);
    let mut values = request.headers.get_all(name).iter();
    let Some(first) = values.next().map(text).transpose()? else { return Ok(None) };
    let Some(second) = values.next() else { return Ok(Some(Cow::Borrowed(first))) };
    let mut list = first.to_owned();
    for value in std::iter::once(second).chain(values) {
        list.push_str(if *name == COOKIE { "; " } else { ", " });
        list.push_str(text(value)?);
    }
    Ok(Some(Cow::Owned(list)))
}

/// The value of a parameter, percent-decoded; `+` is no space, as everywhere here. Of two values
/// servers take the first, the last or both, so none is known.
fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, &'static str> {
    let mut values = values(query, name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => decoded(value).ok_or(NO_TEXT).map(Some),
        (Some(_), Some(_)) => Err(TWICE),
    }
}

fn values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(key, _)| decoded(key).is_some_and(|key| key == name))
        .map(|(_, value)| value)
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| byte == b'%');
        let digits = escaped.and_then(|(digits, tail)| {
            let digits = std::str::from_utf8(digits).ok()?;
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some((u8::from_str_radix(digits, 16).ok().filter(|_| hex)?, tail))
        });
        let (byte, after) = digits.unwrap_or((byte, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// `text in @pattern`, which `matches` becomes.
#[derive(Debug)]
struct Pattern<'r>(&'r Regex);

impl Container for Pattern<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let text = text_of(value)?;
        if text.len() > MATCHED {
            return Err(ExecutionError::function_error("matches", "the text is too long"));
        }
        Ok(self.0.is_match(text))
    }
}

impl Val for Pattern<'_> {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &KIND
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self(self.0))
    }
}

/// `address in @network`, which `inNetwork` becomes.
#[derive(Debug)]
struct Network(IpNet);

impl Container for Network {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let address: Result<IpAddr, _> = text_of(value)?.parse();
        match address {
            Ok(address) => Ok(self.0.contains(&address)),
            Err(error) => Err(ExecutionError::function_error("inNetwork", error)),
        }
    }
}

impl Val for Network {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &KIND
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(self.0))
    }
}

/// What patterns and networks are to the interpreter; it only asks whether they contain something.
static KIND: Type = LIST_TYPE;

fn text_of(value: &dyn Val) -> Result<&str, ExecutionError> {
    let text = value.downcast_ref::<CelString<'_>>();
    text.map(CelString::inner).ok_or_else(|| ExecutionError::function_error("in", "no text"))
}
