//! The compact form of a token, read strictly: three parts, canonical base64url, JSON without
//! repeated names.
//!
//! Two parties that read one token in two ways is how tokens are forged, so whatever leaves room is
//! refused: padding, white space, spare bits, a name that stands twice at any depth.

use super::denied::InvalidReason;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The longest token that is read.
pub(super) const MAX_TOKEN: usize = 8 * 1024;

/// A token's parts, decoded but not believed.
pub(super) struct Compact<'t> {
    pub(super) header: Map<String, Value>,
    payload: Vec<u8>,
    /// What was signed: both first parts and the dot between them.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
}

impl Compact<'_> {
    /// What was signed, as claims.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, InvalidReason> {
        object(&self.payload).ok_or(InvalidReason::Malformed)
    }
}

impl fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compact(..)")
    }
}

/// Splits and decodes a token.
pub(super) fn parse(token: &[u8]) -> Result<Compact<'_>, InvalidReason> {
    if token.len() > MAX_TOKEN {
        return Err(InvalidReason::TooLong);
    }
    split(token).ok_or(InvalidReason::Malformed)
}

fn split(token: &[u8]) -> Option<Compact<'_>> {
    let text = std::str::from_utf8(token).ok()?;
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    Some(Compact {
        header: object(&decode(header.as_bytes())?)?,
        // A dot is not in the alphabet, so a fourth part is refused here too.
        payload: decode(payload.as_bytes())?,
        signed: signed.as_bytes(),
        signature: decode(signature.as_bytes())?,
    })
}

/// An object in which no name stands twice, at any depth.
pub(super) fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Strict(Value::Object(map))) => Some(map),
        _ => None,
    }
}

/// Decodes base64url without padding; `None` if another text would decode to the same bytes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits: u32 = 0;
        for place in 0..4 {
            let value = group.get(place).map_or(Some(0), |&byte| sextet(byte))?;
            bits = (bits << 6) | u32::from(value);
        }
        let [_, first, second, third] = bits.to_be_bytes();
        match group.len() {
            4 => bytes.extend([first, second, third]),
            3 if third == 0 => bytes.extend([first, second]),
            2 if second == 0 && third == 0 => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

const fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// A JSON value in which no name stands twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_read_in_its_canonical_form_only() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes), "{text:?}");
        }
        for text in ["Z", "Zh", "Zm9", "Zg==", "Zm8=", "Zm 9v", "Zm9v\n", "+/+/", "Zm9vZ", "Zm9v="]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
