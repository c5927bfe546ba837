//! What the keys of the files are made of: a value with its place, text that means something,
//! one or many, a table of names.

use crate::config::source::Span;
use crate::config::value::Written;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A value and where it stands; a default stands nowhere.
#[derive(Clone)]
pub(crate) struct At<T> {
    /// Where.
    pub(crate) span: Span,
    /// What.
    pub(crate) value: T,
}

impl<T> At<T> {
    /// What the gateway itself brings.
    pub(crate) fn default_is(value: T) -> Self {
        Self { span: Span::NOWHERE, value }
    }

    /// Whether a file says it.
    pub(crate) fn is_given(&self) -> bool {
        self.span.is_somewhere()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let range = spanned.span();
        let span = Span { start: range.start, end: range.end };
        Ok(Self { span, value: spanned.into_inner() })
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// Text that is parsed to a `T` when the file is compiled, so that its errors come all at once.
pub(crate) struct Text<T> {
    /// As it is written.
    pub(crate) text: String,
    means: PhantomData<fn() -> T>,
}

impl<T> Text<T> {
    /// A default, written as an operator would.
    pub(crate) fn default_is(text: &str) -> At<Self> {
        At::default_is(Self { text: text.to_owned(), means: PhantomData })
    }
}

impl<'de, T> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: String::deserialize(deserializer)?, means: PhantomData })
    }
}

impl<T> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<T: Written> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::WHAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        match T::PATTERN {
            Some(pattern) => json_schema!({ "type": "string", "pattern": pattern }),
            None => json_schema!({ "type": "string" }),
        }
    }
}

/// `"one"` or `["several", "of", "them"]`.
pub(crate) enum OneOrMany<T> {
    /// Without brackets.
    One(T),
    /// A list.
    Many(Vec<At<T>>),
}

impl<T> At<OneOrMany<T>> {
    /// All of them, each with its place.
    pub(crate) fn items(&self) -> Vec<(Span, &T)> {
        match &self.value {
            OneOrMany::One(item) => vec![(self.span, item)],
            OneOrMany::Many(list) => list.iter().map(|item| (item.span, &item.value)).collect(),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany::Many(items))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("one or many of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [item, { "type": "array", "items": item }] })
    }
}

/// A table whose keys the operator chooses, sorted by them.
pub(crate) struct Entries<T>(pub(crate) Vec<(At<String>, At<T>)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Entries<T> {
    /// What is under this name.
    pub(crate) fn find(&self, name: &str) -> Option<&T> {
        let index = self.0.binary_search_by(|(known, _)| (*known.value).cmp(name)).ok()?;
        self.0.get(index).map(|(_, entry)| &entry.value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<At<String>, At<T>>()? {
                    entries.push(entry);
                }
                entries.sort_by(|(one, _), (other, _)| one.value.cmp(&other.value));
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Table(PhantomData))
    }
}

impl<T> Serialize for Entries<T> {
    /// Only defaults are written, and the default is no entry.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(std::iter::empty::<(&str, &str)>())
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("table of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": item })
    }
}

/// `"auto"`, or how many.
#[derive(Clone, Copy)]
pub(crate) enum Workers {
    /// As the cgroup grants.
    Auto,
    /// As the operator says.
    Count(u32),
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Workers, E> {
                Ok(Workers::Auto)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Workers, E> {
                u32::try_from(number).map(Workers::Count).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(number) => serializer.serialize_u32(*number),
        }
    }
}

impl JsonSchema for Workers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": ["auto"] },
            { "type": "integer", "minimum": 1, "maximum": 256 }
        ] })
    }
}

/// `"10.0.0.1:8080"`, or a table with more to say.
pub(crate) enum TextOrTable<T, U> {
    /// Only the text.
    Text(Text<T>),
    /// The table.
    Table(U),
}

impl<'de, T, U: Deserialize<'de>> Deserialize<'de> for TextOrTable<T, U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T, U>(PhantomData<(Text<T>, U)>);

        impl<'de, T, U: Deserialize<'de>> Visitor<'de> for Either<T, U> {
            type Value = TextOrTable<T, U>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrTable::Text(Text { text: text.to_owned(), means: PhantomData }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                U::deserialize(MapAccessDeserializer::new(map)).map(TextOrTable::Table)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: Written, U: JsonSchema> JsonSchema for TextOrTable<T, U> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{} or {}", T::WHAT, U::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<Text<T>>();
        let table = generator.subschema_for::<U>();
        json_schema!({ "anyOf": [text, table] })
    }
}
