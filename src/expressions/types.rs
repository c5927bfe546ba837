//! The kinds of values in expressions, and how large one can become.

use std::fmt;

/// A kind of value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Double,
    Text,
    List(Box<Kind>),
    /// Its keys are text.
    Map(Box<Kind>),
    /// Not known, because of a mistake that was told, or of an empty list.
    Any,
}

impl Kind {
    /// Whether a value of one kind can stand where the other is.
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(one), Self::List(two)) | (Self::Map(one), Self::Map(two)) => one.fits(two),
            _ => self == other,
        }
    }

    /// The one of two that fit that says more.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, other) => other,
            (Self::List(one), Self::List(two)) => Self::List(Box::new(one.or(*two))),
            (Self::Map(one), Self::Map(two)) => Self::Map(Box::new(one.or(*two))),
            (one, _) => one,
        }
    }

    /// As messages speak of one value.
    pub(super) fn one(&self) -> String {
        match self {
            Self::Int => "an int".to_owned(),
            Self::Any => "something unknown".to_owned(),
            kind => format!("a {kind}"),
        }
    }

    /// Whether `<` and its like can tell which is less.
    pub(super) fn is_ordered(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Map(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("string"),
            Self::List(item) if **item == Self::Any => f.write_str("list"),
            Self::List(item) => write!(f, "list of {item}"),
            Self::Map(item) => write!(f, "map of {item}"),
            Self::Any => f.write_str("unknown"),
        }
    }
}

/// A kind, and how large its values can be.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// Bytes of a text, items of a list or map.
    pub(super) size: usize,
    /// Bytes of an item.
    pub(super) item: usize,
}

impl Shape {
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, size: 1, item: 1 }
    }

    pub(super) fn unknown() -> Self {
        Self::of(Kind::Any)
    }

    pub(super) fn text(size: usize) -> Self {
        Self { kind: Kind::Text, size, item: 1 }
    }

    /// What it has room for at worst.
    pub(super) fn bytes(&self) -> usize {
        self.size.saturating_mul(self.item.max(1))
    }

    /// One of two.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            size: self.size.max(other.size),
            item: self.item.max(other.item),
            kind: self.kind.or(other.kind),
        }
    }

    /// An item of a list or map.
    pub(super) fn of_item(&self) -> Self {
        let kind = match &self.kind {
            Kind::List(item) | Kind::Map(item) => (**item).clone(),
            _ => Kind::Any,
        };
        Self { kind, size: self.item, item: 1 }
    }
}
