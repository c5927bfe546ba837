//! What is called in an expression: functions, operators and loops, and which kinds they take.

use super::bounds::{PATTERN, PATTERN_SIZE};
use super::checker::Checker;
use super::names::nearest;
use super::reference::Reference;
use super::types::{Kind, Shape};
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use ipnet::IpNet;
use regex::RegexBuilder;
use std::ops::Range;

/// Functions that stand before their argument.
const FUNCTIONS: [&str; 6] = ["size", "int", "double", "string", "bool", "inNetwork"];
/// Functions that stand behind a dot.
const METHODS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "lowerAscii",
    "upperAscii",
    "trim",
    "split",
    "all",
    "exists",
    "map",
    "filter",
];
/// Parts of a text that `split` makes at most.
const PARTS: i64 = 64;
/// Characters of a number.
const NUMBER: usize = 32;

impl Checker<'_> {
    pub(super) fn call(&mut self, call: &mut CallExpr, at: Range<usize>) -> Shape {
        match &mut call.target {
            Some(_) => self.method(call, &at),
            None if call.func_name.bytes().any(|byte| byte.is_ascii_alphabetic())
                && !call.func_name.starts_with('@') =>
            {
                self.function(call, &at)
            }
            None => self.operator(call, at),
        }
    }

    /// Looks at every argument.
    fn arguments(&mut self, call: &mut CallExpr) -> Vec<Shape> {
        call.args.iter_mut().map(|argument| self.look(argument)).collect()
    }

    /// `size(x)` and its like.
    fn function(&mut self, call: &mut CallExpr, at: &Range<usize>) -> Shape {
        let at = self.text.word_before(at);
        let name = call.func_name.clone();
        let wanted: &[&[Kind]] = match name.as_str() {
            "size" => &[],
            "inNetwork" => return self.in_network(call, at),
            "int" => &[&[Kind::Text, Kind::Int, Kind::Double]],
            "double" => &[&[Kind::Text, Kind::Int, Kind::Double]],
            "string" => &[&[Kind::Text, Kind::Int, Kind::Double, Kind::Bool]],
            "bool" => &[&[Kind::Text, Kind::Bool]],
            _ => return self.no_function(call, at),
        };
        let shapes = self.arguments(call);
        let [shape] = shapes.as_slice() else {
            return self.wrong_count(&name, "one argument", shapes.len(), at);
        };
        self.cost(shape.bytes());
        if name == "size" {
            return self.size(shape, at);
        }
        let takes = wanted.first().copied().unwrap_or_default();
        if shape.kind != Kind::Any && !takes.contains(&shape.kind) {
            let place = call.args.first().map_or(at, |argument| self.place(argument.id));
            let message = format!("`{name}` does not take {}", shape.kind.one());
            let takes: Vec<String> = takes.iter().map(Kind::to_string).collect();
            let help = format!("it takes {}", takes.join(" or "));
            self.refuse(place, message, format!("this is {}", shape.kind.one()), help);
        }
        match name.as_str() {
            "int" => Shape::of(Kind::Int),
            "double" => Shape::of(Kind::Double),
            "bool" => Shape::of(Kind::Bool),
            _ => Shape::text(shape.size.max(NUMBER)),
        }
    }

    fn no_function(&mut self, call: &mut CallExpr, at: Range<usize>) -> Shape {
        self.arguments(call);
        let name = &call.func_name;
        let help = match nearest(name, &FUNCTIONS) {
            Some(near) => format!("did you mean `{near}`?"),
            None if METHODS.contains(&name.as_str()) => {
                format!("it stands behind a text or list, as `request.path.{name}(…)`")
            }
            None if name == "has" => "it takes a field, as `has(claims.tenant)`".to_owned(),
            None => format!("there are {}", FUNCTIONS.join(", ")),
        };
        self.refuse(at, format!("there is no function `{name}`"), "not known", help)
    }

    /// `text.startsWith(x)` and its like.
    fn method(&mut self, call: &mut CallExpr, at: &Range<usize>) -> Shape {
        let at = self.text.word_before(at);
        let name = call.func_name.clone();
        if name == "matches" {
            return self.matches(call, at);
        }
        let on = match &mut call.target {
            Some(target) => self.look(target),
            None => Shape::unknown(),
        };
        let (wanted, result): (&[Kind], Shape) = match name.as_str() {
            "size" => (&[], Shape::of(Kind::Int)),
            "contains" | "startsWith" | "endsWith" => (&[Kind::Text], Shape::of(Kind::Bool)),
            "lowerAscii" | "upperAscii" | "trim" => (&[], Shape::text(on.size)),
            "split" => {
                let kind = Kind::List(Box::new(Kind::Text));
                let parts = usize::try_from(PARTS).unwrap_or(usize::MAX);
                (&[Kind::Text, Kind::Int], Shape { kind, size: parts, item: on.size })
            }
            _ => return self.no_method(call, &on, at),
        };
        let shapes = self.arguments(call);
        self.cost(on.bytes());
        if shapes.len() != wanted.len() {
            let wanted = match wanted {
                [] => "nothing",
                [_] => "one text",
                _ => "a text, and into how many parts at most",
            };
            return self.wrong_count(&name, wanted, shapes.len(), at);
        }
        for ((argument, shape), wanted) in call.args.iter().zip(&shapes).zip(wanted) {
            if !shape.kind.fits(wanted) {
                let place = self.place(argument.id);
                let message = format!("`{name}` takes {}", wanted.one());
                let label = format!("this is {}", shape.kind.one());
                self.refuse(place, message, label, format!("give it {}", wanted.one()));
            }
        }
        if name == "size" {
            return self.size(&on, at);
        }
        if !on.kind.fits(&Kind::Text) {
            return self.no_text(call, &on, at);
        }
        match name.as_str() {
            "split" => self.few_parts(call),
            "startsWith" => self.never_begins(call.target.as_deref(), call.args.first()),
            _ => {}
        }
        result
    }

    fn no_text(&mut self, call: &CallExpr, on: &Shape, at: Range<usize>) -> Shape {
        let name = &call.func_name;
        let help = match (&on.kind, call.target.as_ref(), call.args.first()) {
            (Kind::List(_), Some(list), Some(item)) if name == "contains" => {
                let said = |id| self.text.source.get(self.place(id)).unwrap_or_default();
                format!("a list is asked by `in`: `{} in {}`", said(item.id), said(list.id))
            }
            _ => "make it one by `string(…)`".to_owned(),
        };
        let message = format!("`{name}` is asked of {}", on.kind.one());
        self.refuse(at, message, "only a string has it", help)
    }

    fn no_method(&mut self, call: &CallExpr, on: &Shape, at: Range<usize>) -> Shape {
        let name = &call.func_name;
        let message = format!("{} has no function `{name}`", on.kind.one());
        let is_loop = ["all", "exists", "exists_one", "map", "filter"].contains(&name.as_str());
        if on.kind == Kind::Any && !self.mistakes.is_empty() {
            return Shape::unknown();
        }
        let help = match nearest(name, &METHODS) {
            _ if is_loop => {
                format!("give it a name and an expression, as `caller.scopes.{name}(s, s == 'a')`")
            }
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", METHODS.join(", ")),
        };
        self.refuse(at, message, "not known", help)
    }

    fn wrong_count(&mut self, name: &str, wanted: &str, given: usize, at: Range<usize>) -> Shape {
        let message = format!("`{name}` takes {wanted}");
        let label = match given {
            0 => "it is given nothing".to_owned(),
            1 => "it is given one".to_owned(),
            given => format!("it is given {given}"),
        };
        self.refuse(at, message, label, "give it what it takes")
    }

    fn size(&mut self, of: &Shape, at: Range<usize>) -> Shape {
        match &of.kind {
            Kind::Text | Kind::List(_) | Kind::Map(_) | Kind::Any => Shape::of(Kind::Int),
            kind => {
                let label = format!("this is {}", kind.one());
                let help = "strings, lists and maps have one";
                self.refuse(at, format!("{} has no size", kind.one()), label, help)
            }
        }
    }

    fn few_parts(&mut self, call: &CallExpr) {
        let Some(limit) = call.args.get(1) else { return };
        let good = match &limit.expr {
            Expr::Literal(LiteralValue::Int(number)) => (1..=PARTS).contains(number.inner()),
            _ => false,
        };
        if !good {
            let at = self.place(limit.id);
            let message = "`split` must be told how many parts there can be";
            let help = "as `request.path.split('/', 8)`";
            self.refuse(at, message, format!("it must be 1 to {PARTS}, as a number"), help);
        }
    }

    /// `text.matches('pattern')` becomes `text in @pattern`.
    fn matches(&mut self, call: &mut CallExpr, at: Range<usize>) -> Shape {
        let Some(mut target) = call.target.take() else { return Shape::unknown() };
        let on = self.look(&mut target);
        self.cost(on.bytes().saturating_mul(8));
        if !on.kind.fits(&Kind::Text) {
            let message = format!("`matches` is asked of {}", on.kind.one());
            self.refuse(at.clone(), message, "only a string has it", "make it one by `string(…)`");
        }
        let Some((pattern, place)) = self.only_literal(&call.args, "matches", "^/v[0-9]+/", at)
        else {
            return Shape::of(Kind::Bool);
        };
        if pattern.len() > PATTERN {
            let label = format!("{} bytes; at most {PATTERN}", pattern.len());
            self.refuse(place, "the pattern is too long", label, "use several conditions");
            return Shape::of(Kind::Bool);
        }
        let built = RegexBuilder::new(&pattern)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(4 * PATTERN_SIZE)
            .nest_limit(16)
            .build();
        match built {
            Ok(regex) => self.becomes_in(call, *target, Reference::Pattern(regex)),
            Err(error) => {
                let reason = match error {
                    regex::Error::CompiledTooBig(_) => "it repeats too much".to_owned(),
                    error => last_line(&error.to_string()),
                };
                let help = "write a regular expression, as `'^/v[0-9]+/'`";
                self.refuse(place, "this is not a pattern", reason, help);
            }
        }
        Shape::of(Kind::Bool)
    }

    /// `inNetwork(address, '10.0.0.0/8')` becomes `address in @network`.
    fn in_network(&mut self, call: &mut CallExpr, at: Range<usize>) -> Shape {
        if call.args.len() != 2 {
            let given = call.args.len();
            self.arguments(call);
            return self.wrong_count("inNetwork", "an address and a network", given, at);
        }
        let mut address = call.args.remove(0);
        let on = self.look(&mut address);
        if !on.kind.fits(&Kind::Text) {
            let place = self.place(address.id);
            let label = format!("this is {}", on.kind.one());
            self.refuse(place, "`inNetwork` takes an address", label, "as `request.address`");
        }
        let Some((network, place)) = self.only_literal(&call.args, "inNetwork", "10.0.0.0/8", at)
        else {
            return Shape::of(Kind::Bool);
        };
        match network.parse::<IpNet>() {
            Ok(network) if network.trunc() == network => {
                self.becomes_in(call, address, Reference::Network(network));
            }
            Ok(network) => {
                let label = "it has bits behind its prefix";
                let help = format!("did you mean `{}`?", network.trunc());
                self.refuse(place, format!("`{network}` is not a network"), label, help);
            }
            Err(_) => {
                let label = "not an address with a prefix";
                let help = "as `'10.0.0.0/8'` or `'fd00::/8'`";
                self.refuse(place, "this is not a network", label, help);
            }
        }
        Shape::of(Kind::Bool)
    }

    /// The one argument, which must be a text that stands there.
    fn only_literal(
        &mut self,
        arguments: &[IdedExpr],
        name: &str,
        example: &str,
        at: Range<usize>,
    ) -> Option<(String, Range<usize>)> {
        let [argument] = arguments else {
            self.wrong_count(name, "one text", arguments.len(), at);
            return None;
        };
        let place = self.place(argument.id);
        if let Expr::Literal(LiteralValue::String(text)) = &argument.expr {
            return Some((text.inner().to_owned(), place));
        }
        let message = format!("what `{name}` looks for must stand here");
        let label = "this is known only when a request comes";
        self.refuse(place, message, label, format!("write it in quotes, as `'{example}'`"));
        None
    }

    fn becomes_in(&mut self, call: &mut CallExpr, value: IdedExpr, reference: Reference) {
        let mut container = IdedExpr { id: value.id, expr: Expr::Unspecified };
        self.refer(&mut container.expr, reference);
        operators::IN.clone_into(&mut call.func_name);
        call.args = vec![value, container];
    }

    /// What the macros make of `list.exists(x, …)` and its like.
    pub(super) fn comprehension(
        &mut self,
        comprehension: &mut ComprehensionExpr,
        at: Range<usize>,
    ) -> Shape {
        let at = self.text.word_before(&at);
        if self.in_loop {
            let label = "this one is inside of another";
            let help = "say it without the inner one, as by `in`";
            return self.refuse(at, "a loop cannot be inside of a loop", label, help);
        }
        if Self::is_taken(&comprehension.iter_var) || comprehension.iter_var2.is_some() {
            let message = format!("`{}` is taken", comprehension.iter_var);
            return self.refuse(at, message, "its variable has this name", "choose another name");
        }
        let over = self.look(&mut comprehension.iter_range);
        if !matches!(over.kind, Kind::List(_) | Kind::Any) {
            let label = format!("this is {}", over.kind.one());
            let help = "as `caller.scopes.exists(s, s.startsWith('orders:'))`";
            return self.refuse(at, "only a list can be gone through", label, help);
        }
        let accumulated = self.look(&mut comprehension.accu_init);
        let times = self.times;
        self.in_loop = true;
        self.times = times.saturating_mul(over.size);
        self.locals.push((comprehension.iter_var.clone(), over.of_item()));
        self.locals.push((comprehension.accu_var.clone(), accumulated.clone()));
        self.look(&mut comprehension.loop_cond);
        let step = self.look(&mut comprehension.loop_step);
        self.in_loop = false;
        self.times = times;
        self.locals.pop();
        let mut result = accumulated.or(step);
        if matches!(result.kind, Kind::List(_)) {
            result.size = over.size;
        }
        self.locals.push((comprehension.accu_var.clone(), result));
        let result = self.look(&mut comprehension.result);
        self.locals.clear();
        result
    }
}

/// What is wrong with a pattern, without the picture of it.
fn last_line(text: &str) -> String {
    let line = text.lines().next_back().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
