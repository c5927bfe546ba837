//! Whom a limit counts: a word, or a part of the request.

use super::{At, Text};
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
#[schemars(extend("oneOf" = [{ "required": ["claim"] }, { "required": ["header"] }]))]
pub(crate) struct PartOfRequest {
    /// A claim of the token; without it the consumer is counted.
    pub(crate) claim: Option<At<String>>,
    /// A header, which the client chooses: it groups and does not protect. Without it the consumer is
    /// counted.
    pub(crate) header: Option<At<Text<HeaderName>>>,
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
