//! Operators: which kinds they take, and what comes out.

use super::checker::Checker;
use super::types::{Kind, Shape};
use cel::common::ast::{CallExpr, Expr, operators};
use std::ops::Range;

impl Checker<'_> {
    pub(super) fn operator(&mut self, call: &mut CallExpr, at: Range<usize>) -> Shape {
        let shapes: Vec<Shape> = call.args.iter_mut().map(|argument| self.look(argument)).collect();
        match (call.func_name.as_str(), shapes.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.must_be(Kind::Bool, condition, call, 0);
                if !yes.kind.fits(&no.kind) {
                    let label = format!("one is {}, the other {}", yes.kind.one(), no.kind.one());
                    let message = "both sides of a choice must be of one kind";
                    return self.refuse(at, message, label, "make them alike, as by `string(…)`");
                }
                yes.clone().or(no.clone())
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [one, other]) => {
                self.must_be(Kind::Bool, one, call, 0);
                self.must_be(Kind::Bool, other, call, 1);
                Shape::of(Kind::Bool)
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [one]) => {
                self.must_be(Kind::Bool, one, call, 0);
                Shape::of(Kind::Bool)
            }
            (operators::NEGATE, [one]) => match one.kind {
                Kind::Int | Kind::Double | Kind::Any => one.clone(),
                _ => self.no_operator("-", std::slice::from_ref(one), at),
            },
            (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => {
                self.cost(one.bytes().min(other.bytes()));
                if !one.kind.fits(&other.kind) {
                    return self.never_equal(one, other, at);
                }
                if let [one, other] = call.args.as_slice() {
                    self.never_met(one, other);
                }
                Shape::of(Kind::Bool)
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [one, other],
            ) => {
                self.cost(one.bytes().min(other.bytes()));
                if !one.kind.fits(&other.kind) || !one.kind.is_ordered() {
                    return self.no_operator(sign(&call.func_name), &shapes, at);
                }
                Shape::of(Kind::Bool)
            }
            (operators::INDEX, [one, other]) => self.index(one, other, at),
            (operators::IN, [one, other]) => {
                if let [one, others] = call.args.as_slice() {
                    self.never_among(one, others);
                }
                self.is_in(one, other, at)
            }
            (_, [one, other]) => self.arithmetic(&call.func_name, one, other, at),
            _ => {
                let message = "this cannot stand in an expression";
                self.refuse(at, message, "not known", "leave it out")
            }
        }
    }

    fn arithmetic(&mut self, name: &str, one: &Shape, other: &Shape, at: Range<usize>) -> Shape {
        let sign = sign(name);
        let kinds = (&one.kind, &other.kind);
        match (sign, kinds) {
            ("[?" | ".?", _) => {
                let help = "ask first, as `has(claims.tenant) && …`";
                self.refuse(at, "`?` cannot stand before a field", "not known", help)
            }
            (_, (Kind::Any, _) | (_, Kind::Any)) => Shape::unknown(),
            ("+" | "-" | "*" | "/" | "%", (Kind::Int, Kind::Int)) => Shape::of(Kind::Int),
            ("+" | "-" | "*" | "/", (Kind::Double, Kind::Double)) => Shape::of(Kind::Double),
            ("+", (Kind::Text, Kind::Text)) => {
                let size = one.size.saturating_add(other.size);
                self.cost(size);
                Shape::text(size)
            }
            ("+", (Kind::List(_), Kind::List(_))) if one.kind.fits(&other.kind) => {
                let size = one.size.saturating_add(other.size);
                let both = Shape { size, ..one.clone().or(other.clone()) };
                self.cost(both.bytes());
                both
            }
            _ => self.no_operator(sign, &[one.clone(), other.clone()], at),
        }
    }

    fn index(&mut self, one: &Shape, other: &Shape, at: Range<usize>) -> Shape {
        match (&one.kind, &other.kind) {
            (Kind::Any, _) => Shape::unknown(),
            (Kind::List(_), Kind::Int | Kind::Any) | (Kind::Map(_), Kind::Text | Kind::Any) => {
                self.cost(other.bytes());
                one.of_item()
            }
            (Kind::List(_), kind) => {
                let label = format!("this is {}", kind.one());
                self.refuse(at, "an item of a list has a number", label, "the first one is `[0]`")
            }
            (Kind::Map(_), kind) => {
                let label = format!("this is {}", kind.one());
                self.refuse(at, "an entry of a map has a text", label, "as `['gold']`")
            }
            (kind, _) => {
                let label = format!("this is {}", kind.one());
                let help = "lists and maps have entries";
                self.refuse(at, format!("{} has no entries", kind.one()), label, help)
            }
        }
    }

    fn is_in(&mut self, one: &Shape, other: &Shape, at: Range<usize>) -> Shape {
        self.cost(other.bytes().min(other.size.saturating_mul(one.bytes())));
        self.cost(other.size.saturating_mul(super::bounds::STEP));
        match &other.kind {
            Kind::List(item) if !one.kind.fits(item) => self.never_equal(one, &other.of_item(), at),
            Kind::List(_) | Kind::Any => Shape::of(Kind::Bool),
            Kind::Map(_) if one.kind.fits(&Kind::Text) => Shape::of(Kind::Bool),
            kind => {
                let message = format!("`in` looks for {} in {}", one.kind.one(), kind.one());
                let help = "it looks into lists and maps; a string has `contains`";
                self.refuse(at, message, "there is none", help)
            }
        }
    }

    fn must_be(&mut self, wanted: Kind, shape: &Shape, call: &CallExpr, index: usize) {
        if shape.kind.fits(&wanted) {
            return;
        }
        let Some(argument) = call.args.get(index) else { return };
        let at = self.place(argument.id);
        let message = format!("`{}` takes true and false", sign(&call.func_name));
        let help = match (&shape.kind, &argument.expr) {
            (Kind::Text, Expr::Ident(_)) => "compare it, as `… == 'true'`",
            _ => "compare it with something",
        };
        self.refuse(at, message, format!("this is {}", shape.kind.one()), help);
    }

    fn never_equal(&mut self, one: &Shape, other: &Shape, at: Range<usize>) -> Shape {
        let message = format!("{} is never equal to {}", one.kind.one(), other.kind.one());
        let help = match (&one.kind, &other.kind) {
            (Kind::Text, Kind::Int) | (Kind::Int, Kind::Text) => {
                "make both texts, or numbers by `int(…)`"
            }
            (Kind::Text, Kind::Bool) | (Kind::Bool, Kind::Text) => "write the text, as `'true'`",
            _ => "compare what is alike",
        };
        self.refuse(at, message, "this is always the same", help);
        Shape::of(Kind::Bool)
    }

    fn no_operator(&mut self, sign: &str, shapes: &[Shape], at: Range<usize>) -> Shape {
        let kinds: Vec<String> = shapes.iter().map(|shape| shape.kind.one()).collect();
        let message = format!("`{sign}` does not take {}", kinds.join(" and "));
        let help = match (sign, shapes) {
            ("+", [one, other]) if one.kind == Kind::Text || other.kind == Kind::Text => {
                "make both texts, as by `string(…)`"
            }
            (_, [one, other]) if one.kind != other.kind => {
                "make both alike, as by `int(…)`, `double(…)` or `string(…)`"
            }
            _ => "numbers have it",
        };
        self.refuse(at, message, "here", help)
    }
}

/// An operator as it is written.
fn sign(name: &str) -> &str {
    match name {
        operators::CONDITIONAL => "?",
        operators::OPT_INDEX => "[?",
        operators::OPT_SELECT => ".?",
        operators::NOT_STRICTLY_FALSE => "all",
        operators::IN => "in",
        name => name.trim_matches('_'),
    }
}
