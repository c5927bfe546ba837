//! The variables: what an expression can read of a request, and by which name.

use super::Sees;
use super::bounds::{SCOPE, SCOPES, STEP, TEXT};
use super::checker::Checker;
use super::reference::Reference;
use super::types::{Kind, Shape};
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use http::HeaderName;
use std::ops::Range;

/// Bytes of what names somebody or something.
const NAME: usize = 256;
/// Bytes of a claim that is kept.
const CLAIM: usize = 1024;

const ROOTS: [&str; 4] = ["request", "route", "caller", "claims"];
const REQUEST: [&str; 8] =
    ["method", "path", "host", "query", "headers", "address", "scheme", "size"];
const CALLER: [&str; 7] = ["consumer", "id", "plan", "custom_id", "scopes", "method", "key"];

/// Something with fields or keys.
#[derive(Clone, Copy)]
enum Base {
    Request,
    Route,
    Caller,
    Claims,
    Headers,
    Query,
}

impl Base {
    const fn spelled(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Route => "route",
            Self::Caller => "caller",
            Self::Claims => "claims",
            Self::Headers => "request.headers",
            Self::Query => "request.query",
        }
    }

    /// Whether its names are the client's, or an issuer's, to choose.
    const fn is_open(self) -> bool {
        matches!(self, Self::Claims | Self::Headers | Self::Query)
    }
}

impl Checker<'_> {
    /// If a part of the tree reads something of the request, makes a reference of it.
    pub(super) fn read(&mut self, expr: &mut IdedExpr) -> Option<Shape> {
        let at = self.sign(expr.id);
        match &expr.expr {
            Expr::Ident(_) => {
                let base = self.base(expr)?;
                let name = base.spelled();
                let help = match base {
                    Base::Headers | Base::Query | Base::Claims => format!("as `{name}['name']`"),
                    _ => format!("as `{name}.{}`", fields(base).first().unwrap_or(&"name")),
                };
                let message = format!("`{name}` is no value by itself");
                Some(self.refuse(at, message, "it has fields", format!("name one, {help}")))
            }
            Expr::Select(select) => {
                self.read_field(select, &at, expr.id).map(|found| self.put(expr, found))
            }
            Expr::Call(call) => self.read_key(call).map(|found| self.put(expr, found)),
            _ => None,
        }
    }

    /// Puts what was found into the tree.
    fn put(&mut self, expr: &mut IdedExpr, found: Option<(Reference, Shape)>) -> Shape {
        match found {
            Some((reference, shape)) => {
                self.refer(&mut expr.expr, reference);
                shape
            }
            None => Shape::unknown(),
        }
    }

    /// What has fields, as far as it is not hidden by the variable of a loop.
    fn base(&self, expr: &IdedExpr) -> Option<Base> {
        match &expr.expr {
            Expr::Ident(name) if self.locals.iter().any(|(local, _)| local == name) => None,
            Expr::Ident(name) => match name.as_str() {
                "request" => Some(Base::Request),
                "route" => Some(Base::Route),
                "caller" => Some(Base::Caller),
                "claims" => Some(Base::Claims),
                _ => None,
            },
            Expr::Select(select) if !select.test => {
                match (self.base(&select.operand)?, select.field.as_str()) {
                    (Base::Request, "headers") => Some(Base::Headers),
                    (Base::Request, "query") => Some(Base::Query),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// `request.path`, `claims.tenant`, `has(caller.custom_id)`.
    fn read_field(
        &mut self,
        select: &SelectExpr,
        at: &Range<usize>,
        id: u64,
    ) -> Option<Option<(Reference, Shape)>> {
        let base = self.base(&select.operand)?;
        let at = if select.test {
            self.text.word_before(&self.sign(id))
        } else {
            self.text.word_after(at)
        };
        if matches!((base, select.field.as_str()), (Base::Request, "headers" | "query")) {
            let name = format!("request.{}", select.field);
            let message = format!("`{name}` is no value by itself");
            let help = format!("name one of its entries, as `{name}['name']`");
            self.refuse(at, message, "it has entries", help);
            return Some(None);
        }
        let found = self.field(base, &select.field, at);
        Some(match found {
            Some((reference, _)) if select.test => Some(has(reference)),
            found => found,
        })
    }

    /// `request.headers['x-canary']`, `'tenant' in claims`.
    fn read_key(&mut self, call: &CallExpr) -> Option<Option<(Reference, Shape)>> {
        let [one, other] = call.args.as_slice() else { return None };
        let (map, key) = match call.func_name.as_str() {
            operators::INDEX => (one, other),
            operators::IN => (other, one),
            _ => return None,
        };
        let base = self.base(map)?;
        let at = self.place(key.id);
        let Expr::Literal(LiteralValue::String(name)) = &key.expr else {
            let message = format!("the name of an entry of `{}` must stand here", base.spelled());
            let label = "this is known only when a request comes";
            self.refuse(at, message, label, "write it in quotes, as `['name']`");
            return Some(None);
        };
        let found = self.field(base, name.inner(), at);
        Some(match found {
            Some((reference, _)) if call.func_name == operators::IN => Some(has(reference)),
            found => found,
        })
    }

    fn field(&mut self, base: Base, name: &str, at: Range<usize>) -> Option<(Reference, Shape)> {
        if self.sees == Sees::Request
            && !matches!(base, Base::Request | Base::Headers | Base::Query)
        {
            self.too_early(base.spelled(), at);
            return None;
        }
        let (name, claim) = (name, |shape| Some((Reference::Claim(name.into()), shape)));
        match (base, name) {
            (Base::Request, "method") => Some((Reference::Method, Shape::text(32))),
            (Base::Request, "path") => Some((Reference::Path, Shape::text(TEXT))),
            (Base::Request, "host") => Some((Reference::Host, Shape::text(NAME))),
            (Base::Request, "address") => Some((Reference::Address, Shape::text(48))),
            (Base::Request, "scheme") => Some((Reference::Scheme, Shape::text(5))),
            (Base::Request, "size") => Some((Reference::Size, Shape::of(Kind::Int))),
            (Base::Route, "name") => Some((Reference::Route, Shape::text(NAME))),
            (Base::Caller, "consumer") => Some((Reference::Consumer, Shape::text(NAME))),
            (Base::Caller, "id") => Some((Reference::Id, Shape::text(NAME))),
            (Base::Caller, "plan") => Some((Reference::Plan, Shape::text(NAME))),
            (Base::Caller, "custom_id") => Some((Reference::CustomId, Shape::text(NAME))),
            (Base::Caller, "method") => Some((Reference::Credential, Shape::text(8))),
            (Base::Caller, "key") => Some((Reference::Key, Shape::text(CLAIM))),
            (Base::Caller, "scopes") => {
                // A list is made of them each time.
                self.cost(SCOPES * STEP);
                let kind = Kind::List(Box::new(Kind::Text));
                Some((Reference::Scopes, Shape { kind, size: SCOPES, item: SCOPE }))
            }
            (Base::Claims, _) => claim(Shape::text(CLAIM)),
            (Base::Query, _) => Some((Reference::Query(name.into()), Shape::text(TEXT))),
            (Base::Headers, _) => self.header(name, at),
            (base, _) => {
                let known = fields(base);
                let message = format!("`{}` has no field `{name}`", base.spelled());
                let help = match nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                self.refuse(at, message, "not known", help);
                None
            }
        }
    }

    fn header(&mut self, name: &str, at: Range<usize>) -> Option<(Reference, Shape)> {
        match name.parse::<HeaderName>() {
            Ok(read) if self.is_credential(&read) => {
                let message = format!("`{name}` carries a credential");
                let label = "a credential is nothing that expressions read";
                self.refuse(at, message, label, "`caller.key` is the id of the key");
                None
            }
            Ok(read) if read.as_str() == name => Some((Reference::Header(read), Shape::text(TEXT))),
            Ok(read) => {
                let message = format!("`{name}` is never among the headers");
                self.refuse(at, message, "a capital letter", format!("write `{read}`"));
                None
            }
            Err(_) => {
                let message = format!("`{name}` is not the name of a header");
                self.refuse(at, message, "no header is called so", "as `'x-canary'`");
                None
            }
        }
    }

    fn too_early(&mut self, name: &str, at: Range<usize>) {
        self.refuse(
            at,
            format!("`{name}` is not known while a route is looked for"),
            "who calls is found out after it, as the route says",
            "look at `request` only, or put the condition into a policy of the route",
        );
    }

    /// A name that is nothing.
    pub(super) fn unknown(&mut self, name: &str, at: Range<usize>) -> Shape {
        let locals: Vec<&str> = self.locals.iter().map(|(local, _)| local.as_str()).collect();
        let known: Vec<&str> =
            ROOTS.into_iter().chain(locals).filter(|known| !known.starts_with('@')).collect();
        let help = if REQUEST.contains(&name) {
            format!("did you mean `request.{name}`?")
        } else {
            match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}; text stands in quotes", ROOTS.join(", ")),
            }
        };
        self.refuse(at, format!("`{name}` is unknown"), "no variable has this name", help)
    }

    /// The name of a loop's variable; it may hide nothing.
    pub(super) fn is_taken(name: &str) -> bool {
        ROOTS.contains(&name)
    }
}

fn has(reference: Reference) -> (Reference, Shape) {
    (Reference::Has(Box::new(reference)), Shape::of(Kind::Bool))
}

fn fields(base: Base) -> &'static [&'static str] {
    match base {
        Base::Request => &REQUEST,
        Base::Route => &["name"],
        Base::Caller => &CALLER,
        base => {
            debug_assert!(base.is_open());
            &[]
        }
    }
}

/// The known word that a mistyped one could have been.
pub(super) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let near = known.iter().map(|other| (strsim::damerau_levenshtein(word, other), *other));
    let most = 1 + word.chars().count() / 4;
    near.min().filter(|(distance, _)| *distance <= most).map(|(_, other)| other)
}
