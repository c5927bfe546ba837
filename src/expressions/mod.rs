//! Expressions of operators in CEL, the Common Expression Language: conditions, numbers and texts
//! that are computed from a request.
//!
//! ```text
//! text ─ bounds ─▶ cel's parser ─▶ checker: names, kinds, worst cost ─▶ Expression
//!                                  request.headers['x'] becomes a numbered reference
//! Facts ─ Reader ─▶ cel's interpreter ─▶ bool, int or string; absent; failed
//! ```
//!
//! `cel` parses and evaluates; it is dynamic, so everything that can be known beforehand is checked
//! here. What an expression cannot read ([`Outcome::Absent`]: a header that was not sent) is not a
//! failure: a condition on it is not met. A failure is counted and logged, and never opens anything.
//!
//! Must stay true: no text of an operator or a client makes compiling or evaluating panic, overflow
//! the stack, or take longer than the bounds in `bounds.rs` allow; nothing here knows who asks.

mod bounds;
mod checker;
mod facts;
mod functions;
mod mistake;
#[cfg(test)]
mod mistake_tests;
mod names;
mod never;
mod operators;
mod reference;
mod syntax;
#[cfg(test)]
mod tests;
mod types;

pub use facts::{Caller, Claims, Facts, Request};
pub use mistake::Mistake;

use crate::telemetry::metrics::ExpressionMetrics;
use cel::common::types::{CelBool, CelInt, CelString};
use cel::common::value::Val;
use cel::parser::Expression as Tree;
use cel::{Context, Env, ExecutionError, Program, Value};
use checker::Checker;
use http::HeaderName;
use reference::{Reader, Reference};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use types::{Kind, Shape};

/// What an expression can look at, where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// The request only: nobody is identified yet.
    Request,
    /// The request, its route, who calls, and the claims of the token.
    Caller,
}

/// What must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// True or false.
    Condition,
    /// A whole number.
    Number,
    /// A text.
    Text,
}

impl Wanted {
    const fn kind(self) -> Kind {
        match self {
            Self::Condition => Kind::Bool,
            Self::Number => Kind::Int,
            Self::Text => Kind::Text,
        }
    }
}

/// Why nothing came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something that it reads is not there.
    Absent,
    /// It could not be evaluated.
    Failed(String),
}

/// The language: what all expressions of one configuration share.
#[derive(Clone)]
pub struct Language {
    env: Arc<Env>,
    /// The header that carries API keys.
    key_header: Option<HeaderName>,
}

impl Default for Language {
    fn default() -> Self {
        let mut env = Env::stdlib().with_optional_support(false);
        if let Err(error) = cel::extensions::strings(&mut env) {
            // Its names do not collide with those of the standard library; a test calls each.
            log::error!(error:% = error; "functions of text are not known in expressions");
        }
        Self { env: Arc::new(env), key_header: None }
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Language")
    }
}

/// An expression that was checked.
#[derive(Clone)]
pub struct Expression {
    checked: Arc<Checked>,
    metrics: Option<ExpressionMetrics>,
}

struct Checked {
    place: Arc<str>,
    source: Box<str>,
    language: Language,
    tree: Tree,
    references: Vec<Reference>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({}: {})", self.checked.place, self.checked.source)
    }
}

/// Two are equal when the same stands at the same place.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.checked.place == other.checked.place && self.checked.source == other.checked.source
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.checked.place.hash(state);
        self.checked.source.hash(state);
    }
}

impl Language {
    /// The same, in which nothing reads the header that carries API keys. `Authorization` is never
    /// read: a credential is plain only between the socket and its digest.
    #[must_use]
    pub fn hiding(self, key_header: Option<HeaderName>) -> Self {
        Self { key_header, ..self }
    }

    /// Compiles the text that stands at `place`, as `route/orders/when`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(
        &self,
        source: &str,
        place: &str,
        sees: Sees,
        wanted: Wanted,
    ) -> Result<Expression, Vec<Mistake>> {
        bounds::check(source).map_err(|mistake| vec![mistake])?;
        let program = self.parse(source)?;
        let mut tree = program.expression().clone();
        let mut checker =
            Checker::new(source, program.source_info(), sees, self.key_header.as_ref());
        let shape = checker.look(&mut tree);
        checker.finish();
        if checker.mistakes.is_empty() && !shape.kind.fits(&wanted.kind()) {
            checker.mistakes.push(unwanted(source, &shape, wanted));
        }
        if !checker.mistakes.is_empty() {
            checker.mistakes.sort_by_key(|mistake| mistake.at.start);
            checker.mistakes.dedup();
            return Err(checker.mistakes);
        }
        let checked = Checked {
            place: place.into(),
            source: source.into(),
            language: self.clone(),
            references: checker.references,
            tree,
        };
        Ok(Expression { checked: Arc::new(checked), metrics: None })
    }

    fn parse(&self, source: &str) -> Result<Program, Vec<Mistake>> {
        // A panic of the parser would end a reload, and with it everything that a task does; it
        // has `expect`s that depend on how it recovers from an error.
        match catch_unwind(AssertUnwindSafe(|| self.env.compile(source))) {
            Ok(Ok(program)) => Ok(program),
            Ok(Err(errors)) => Err(vec![syntax::mistake(source, &errors)]),
            Err(_) => Err(vec![syntax::unreadable(source)]),
        }
    }
}

impl Expression {
    /// Where it stands, as metrics name it.
    #[must_use]
    pub fn place(&self) -> &Arc<str> {
        &self.checked.place
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.checked.source
    }

    /// The claims that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &Arc<str>> {
        self.checked.references.iter().filter_map(|reference| match reference {
            Reference::Claim(name) => Some(name),
            Reference::Has(other) => match &**other {
                Reference::Claim(name) => Some(name),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether it reads anything of who calls.
    #[must_use]
    pub fn asks_for_a_caller(&self) -> bool {
        fn asks(reference: &Reference) -> bool {
            match reference {
                Reference::Has(other) => asks(other),
                Reference::Consumer
                | Reference::Id
                | Reference::Plan
                | Reference::CustomId
                | Reference::Scopes
                | Reference::Key
                | Reference::Claim(_) => true,
                _ => false,
            }
        }
        self.checked.references.iter().any(asks)
    }

    /// The same, with failures counted here.
    #[must_use]
    pub fn counted(mut self, metrics: ExpressionMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Whether the condition is met; not, when that cannot be told.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.is_met(facts).unwrap_or(false)
    }

    /// The same, where a failure must not pass for a condition that is not met: there, none.
    #[must_use]
    pub fn is_met(&self, facts: &Facts<'_>) -> Option<bool> {
        let is = |value: &dyn Val| value.downcast_ref::<CelBool>().map(|it| *it.inner());
        match self.evaluate(facts, is) {
            Ok(met) => Some(met),
            Err(Outcome::Absent) => Some(false),
            Err(Outcome::Failed(reason)) => {
                self.failed(&reason);
                None
            }
        }
    }

    /// The number, if there is one.
    #[must_use]
    pub fn number(&self, facts: &Facts<'_>) -> Option<i64> {
        self.value(facts, |value| value.downcast_ref::<CelInt>().map(|it| *it.inner()))
    }

    /// The text, if there is one.
    #[must_use]
    pub fn text(&self, facts: &Facts<'_>) -> Option<String> {
        self.value(facts, |value| {
            value.downcast_ref::<CelString<'_>>().map(|it| it.inner().to_owned())
        })
    }

    /// Counts that what came out is of no use.
    pub fn failed(&self, reason: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.failed(&self.checked.place, reason);
        }
    }

    fn value<T>(&self, facts: &Facts<'_>, take: impl Fn(&dyn Val) -> Option<T>) -> Option<T> {
        match self.evaluate(facts, take) {
            Ok(value) => Some(value),
            Err(Outcome::Absent) => None,
            Err(Outcome::Failed(reason)) => {
                self.failed(&reason);
                None
            }
        }
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// Why nothing came out.
    pub fn evaluate<T>(
        &self,
        facts: &Facts<'_>,
        take: impl Fn(&dyn Val) -> Option<T>,
    ) -> Result<T, Outcome> {
        let Checked { tree, references, language, .. } = &*self.checked;
        let reader = Reader::new(facts, references);
        // The checker lets nothing pass on which the interpreter is known to panic; should there be
        // more, it costs one evaluation and not the request's connection.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(Arc::clone(&language.env));
            context.set_variable_resolver(&reader);
            let value = Value::resolve_val(tree, &context)?;
            Ok(take(value.as_ref()))
        }));
        match result {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Ok(None)) => Err(Outcome::Failed("it is of another kind".to_owned())),
            Ok(Err(ExecutionError::UndeclaredReference(_))) => Err(match reader.unclear() {
                Some(reason) => Outcome::Failed(reason.to_owned()),
                None => Outcome::Absent,
            }),
            Ok(Err(ExecutionError::NoSuchKey(_))) => Err(Outcome::Absent),
            Ok(Err(error)) => Err(Outcome::Failed(why(&error).to_owned())),
            Err(_) => Err(Outcome::Failed("the interpreter gave up".to_owned())),
        }
    }
}

/// Why an evaluation failed, without what a client sent.
const fn why(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::Overflow(..) => "a number is too large",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero"
        }
        ExecutionError::IndexOutOfBounds(_) => "a list has no such item",
        ExecutionError::FunctionError { .. } => "a function cannot take what it is given",
        _ => "a value of another kind",
    }
}

fn unwanted(source: &str, shape: &Shape, wanted: Wanted) -> Mistake {
    let (message, help) = match wanted {
        Wanted::Condition => {
            ("a condition is true or false", "compare it with something, as `… == 'GET'`")
        }
        Wanted::Number => ("a whole number must come out", "make it one by `int(…)`"),
        Wanted::Text => ("a text must come out", "make it one by `string(…)`"),
    };
    Mistake::new(0..source.len(), message, format!("this is {}", shape.kind.one()), help)
}
