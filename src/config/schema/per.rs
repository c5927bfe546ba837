//! Whom a limit counts: a word, or a part of the request.

use super::{At, Computed, Text};
use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Whom a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Per {
    /// The consumer, over all of its keys and tokens.
    Consumer,
    /// The single credential.
    Key,
    /// The client address.
    Address,
    /// All requests that the limit applies to, together.
    Route,
}

/// A part of the request by whose value a limit counts; exactly one of them.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
#[schemars(extend("oneOf" = [
    { "required": ["claim"] }, { "required": ["header"] }, { "required": ["expr"] }
]))]
pub(crate) struct PartOfRequest {
    /// A claim of the token; without it the consumer is counted.
    pub(crate) claim: Option<At<String>>,
    /// A header, which the client chooses: it groups and does not protect. Without it the consumer is
    /// counted.
    pub(crate) header: Option<At<Text<HeaderName>>>,
    /// An expression in CEL; without what comes out the consumer is counted.
    pub(crate) expr: Option<At<String>>,
}

/// Whom a limit counts, by a word or by a part of the request.
pub(crate) enum PerForm {
    /// A word.
    Whom(Per),
    /// The value of a part.
    Part(PartOfRequest),
}

impl<'de> Deserialize<'de> for PerForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = PerForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PerForm, E> {
                Per::deserialize(StrDeserializer::new(text)).map(PerForm::Whom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PerForm, A::Error> {
                PartOfRequest::deserialize(MapAccessDeserializer::new(map)).map(PerForm::Part)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for PerForm {
    /// Only defaults are written, and those are words.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whom(per) => per.serialize(serializer),
            Self::Part(_) => serializer.serialize_none(),
        }
    }
}

impl JsonSchema for PerForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PerForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<Per>();
        let part = generator.subschema_for::<PartOfRequest>();
        json_schema!({ "anyOf": [word, part] })
    }
}

/// What a request takes: a number, or what an expression makes of it.
pub(crate) enum CostForm {
    /// Always so many.
    Permits(u32),
    /// Another number for each request.
    Computed(Computed),
}

impl<'de> Deserialize<'de> for CostForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = CostForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a table")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<CostForm, E> {
                u32::try_from(number).map(CostForm::Permits).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CostForm, A::Error> {
                Computed::deserialize(MapAccessDeserializer::new(map)).map(CostForm::Computed)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for CostForm {
    /// Only defaults are written, and those are numbers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Permits(permits) => permits.serialize(serializer),
            Self::Computed(_) => serializer.serialize_none(),
        }
    }
}

impl JsonSchema for CostForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CostForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Computed>();
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": u32::MAX }, table
        ] })
    }
}
