//! Looks at the whole tree of an expression before it may run: names, kinds of values, and what it
//! costs at worst.
//!
//! CEL finds such mistakes when it evaluates; an operator should find them when the file is
//! loaded. Every mistake is told, not only the first: what is behind one has the kind
//! [`Kind::Any`], about which nothing more is said.
//!
//! Must stay true: the tree that is left has no variable but numbered references and those of its
//! own loops, no function that is not in `functions.rs`, and at most one loop inside which is none.

use super::Sees;
use super::bounds::{LEVELS, NODES, STEP, STEPS};
use super::mistake::{Mistake, Text};
use super::reference::{Reference, name_of};
use super::types::{Kind, Shape};
use cel::common::ast::{
    EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue, MapExpr, SelectExpr,
    SourceInfo,
};
use http::HeaderName;
use http::header::AUTHORIZATION;
use std::ops::Range;

/// What was found out.
pub(super) struct Checker<'s> {
    pub(super) text: Text<'s>,
    info: &'s SourceInfo,
    pub(super) sees: Sees,
    key_header: Option<&'s HeaderName>,
    pub(super) references: Vec<Reference>,
    pub(super) mistakes: Vec<Mistake>,
    /// Variables of the loop around.
    pub(super) locals: Vec<(String, Shape)>,
    /// How often what is looked at runs.
    pub(super) times: usize,
    pub(super) in_loop: bool,
    level: usize,
    nodes: usize,
    steps: usize,
}

impl<'s> Checker<'s> {
    pub(super) fn new(
        source: &'s str,
        info: &'s SourceInfo,
        sees: Sees,
        key_header: Option<&'s HeaderName>,
    ) -> Self {
        Self {
            text: Text { source },
            info,
            sees,
            key_header,
            references: Vec::new(),
            mistakes: Vec::new(),
            locals: Vec::new(),
            times: 1,
            in_loop: false,
            level: 0,
            nodes: 0,
            steps: 0,
        }
    }

    /// Looks at a part of the tree, and makes references of what it reads.
    pub(super) fn look(&mut self, expr: &mut IdedExpr) -> Shape {
        self.nodes += 1;
        self.cost(0);
        if self.level == LEVELS {
            return self.too_deep(expr.id);
        }
        self.level += 1;
        let shape = self.look_inside(expr);
        self.level -= 1;
        shape
    }

    fn too_deep(&mut self, id: u64) -> Shape {
        let message = "the expression nests too deeply";
        if self.mistakes.iter().any(|mistake| mistake.message == message) {
            return Shape::unknown();
        }
        let label = format!("this is level {}; at most {LEVELS}", LEVELS + 1);
        let help = "in a chain as `a + b + c` each sign is a level; split the expression";
        self.refuse(self.place(id), message, label, help)
    }

    fn look_inside(&mut self, expr: &mut IdedExpr) -> Shape {
        let at = self.sign(expr.id);
        if let Some(shape) = self.read(expr) {
            return shape;
        }
        match &mut expr.expr {
            Expr::Literal(literal) => self.literal(literal, at),
            Expr::Ident(name) => self.name(name, at),
            Expr::Select(select) => self.select(select, at),
            Expr::Call(call) => self.call(call, at),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map, at),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, at),
            Expr::Struct(_) => {
                let help = "expressions have texts, numbers, lists and maps";
                self.refuse(at, "a message cannot stand in an expression", "not known", help)
            }
            Expr::Unspecified => self.refuse(
                at,
                "this is not an expression",
                "nothing stands here",
                "say what it is",
            ),
        }
    }

    /// Whether a server could take `name` for a header that carries a credential.
    pub(super) fn is_credential(&self, name: &HeaderName) -> bool {
        let names = self.key_header.into_iter().chain([&AUTHORIZATION]);
        let dashed = |name: &HeaderName| name.as_str().replace('_', "-");
        names.into_iter().any(|other| dashed(name) == dashed(other))
    }

    /// A mistake about what has no kind then.
    pub(super) fn refuse(
        &mut self,
        at: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Shape {
        self.mistakes.push(Mistake::new(at, message, label, help));
        Shape::unknown()
    }

    /// The sign of a part of the tree: its operator, dot, bracket or word.
    pub(super) fn sign(&self, id: u64) -> Range<usize> {
        match self.info.offset_for(id) {
            Some((first, last)) => self.text.characters(first, last),
            None => 0..self.text.source.len(),
        }
    }

    /// Where a part of the tree stands.
    pub(super) fn place(&self, id: u64) -> Range<usize> {
        self.text.around(self.sign(id))
    }

    /// One step, and one for each [`STEP`] of these bytes, as often as it runs.
    pub(super) fn cost(&mut self, bytes: usize) {
        let once = (bytes / STEP).saturating_add(1);
        self.steps = self.steps.saturating_add(once.saturating_mul(self.times));
    }

    /// Whether it is small enough.
    pub(super) fn finish(&mut self) {
        let all = 0..self.text.source.len();
        if self.nodes > NODES {
            self.refuse(
                all,
                "the expression is too large",
                format!("{} parts; at most {NODES}", self.nodes),
                "say it with fewer words, or with policies of their own",
            );
        } else if self.steps > STEPS {
            self.refuse(
                all,
                "the expression can take too long",
                format!("{} steps at worst; at most {STEPS}", self.steps),
                "look at fewer or smaller texts, above all for each item of a list",
            );
        }
    }

    /// Puts a reference in the place of a part of the tree.
    pub(super) fn refer(&mut self, expr: &mut Expr, reference: Reference) {
        *expr = Expr::Ident(name_of(self.references.len()));
        self.references.push(reference);
    }

    fn literal(&mut self, literal: &LiteralValue, at: Range<usize>) -> Shape {
        let (what, help) = match literal {
            LiteralValue::Boolean(_) => return Shape::of(Kind::Bool),
            LiteralValue::Int(_) => return Shape::of(Kind::Int),
            LiteralValue::Double(_) => return Shape::of(Kind::Double),
            LiteralValue::String(text) => return Shape::text(text.inner().len()),
            LiteralValue::UInt(_) => ("a number with `u`", "leave the `u` out"),
            LiteralValue::Bytes(_) => ("a text of bytes", "leave the `b` out"),
            LiteralValue::Null => {
                ("`null`", "what is missing is told by `has(…)` or `'name' in request.headers`")
            }
        };
        self.refuse(at, format!("{what} cannot stand in an expression"), "not known here", help)
    }

    fn name(&mut self, name: &str, at: Range<usize>) -> Shape {
        match self.locals.iter().rev().find(|(local, _)| local == name) {
            Some((_, shape)) => shape.clone(),
            None => self.unknown(name, at),
        }
    }

    /// A field of a map that the expression itself has, or a mistake.
    fn select(&mut self, select: &mut SelectExpr, at: Range<usize>) -> Shape {
        let operand = self.look(&mut select.operand);
        match operand.kind {
            Kind::Any => Shape::unknown(),
            Kind::Map(_) if select.test => Shape::of(Kind::Bool),
            Kind::Map(_) => operand.of_item(),
            kind => {
                let at = self.text.word_after(&at);
                let message = format!("{} has no fields", kind.one());
                let help = "fields are those of `request`, `route`, `caller` and `claims`";
                self.refuse(at, message, format!("this is asked of {}", kind.one()), help)
            }
        }
    }

    fn list(&mut self, list: &mut ListExpr) -> Shape {
        let mut items = Shape { kind: Kind::Any, size: 0, item: 0 };
        if !list.optional_indices.is_empty() {
            list.optional_indices.clear();
            let all = 0..self.text.source.len();
            self.refuse(all, "an item cannot be optional", "`?` in a list", "leave the `?` out");
        }
        for item in &mut list.elements {
            let shape = self.look(item);
            items = self.alike(items, shape, item.id, "item");
        }
        let Shape { kind, size, .. } = items;
        Shape { kind: Kind::List(Box::new(kind)), size: list.elements.len(), item: size }
    }

    /// What is alike to those before it.
    fn alike(&mut self, before: Shape, next: Shape, id: u64, what: &str) -> Shape {
        if before.kind.fits(&next.kind) {
            return before.or(next);
        }
        let message = format!("every {what} must be of one kind");
        let label = format!("{}, but before it {}", next.kind.one(), before.kind.one());
        let at = self.place(id);
        self.refuse(at, message, label, "make them alike, as by `string(…)`");
        before
    }

    fn map(&mut self, map: &mut MapExpr, at: Range<usize>) -> Shape {
        let mut values = Shape { kind: Kind::Any, size: 0, item: 0 };
        let mut keys: Vec<String> = Vec::new();
        for IdedEntryExpr { expr, .. } in &mut map.entries {
            let EntryExpr::MapEntry(entry) = expr else { continue };
            if entry.optional {
                let label = "`?` in a map";
                self.refuse(at.clone(), "an entry cannot be optional", label, "leave the `?` out");
            }
            let place = self.place(entry.key.id);
            match &entry.key.expr {
                Expr::Literal(LiteralValue::String(key))
                    if !keys.iter().any(|it| it == key.inner()) =>
                {
                    keys.push(key.inner().to_owned());
                }
                Expr::Literal(LiteralValue::String(_)) => {
                    self.refuse(place, "a key stands twice in a map", "again here", "remove one");
                }
                _ => {
                    let help = "write it in quotes, as `{'gold': 10}`";
                    self.refuse(place, "the key of a map must be a text", "not a text", help);
                }
            }
            let shape = self.look(&mut entry.value);
            values = self.alike(values, shape, entry.value.id, "value of a map");
        }
        let Shape { kind, size, .. } = values;
        Shape { kind: Kind::Map(Box::new(kind)), size: map.entries.len(), item: size }
    }
}
