//! Whether CloudWatch would take a call: the limits of `PutMetricData` as its reference states them.

use ciborium::Value;
use http::HeaderMap;
use std::collections::BTreeMap;
use std::io::Read as _;

pub(crate) const PATH: &str = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
const DAY: f64 = 86_400.0;

/// A datum that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) dimensions: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(crate) timestamp: f64,
    /// Each value, and how often it came.
    pub(crate) values: Vec<(f64, f64)>,
}

impl Taken {
    /// The sum, as CloudWatch has it.
    pub(crate) fn sum(&self) -> f64 {
        self.values.iter().map(|(value, count)| value * count).sum()
    }

    pub(crate) fn third(&self) -> Option<&str> {
        let known = ["Service", "Environment"];
        let mut others = self.dimensions.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        others.next().map(|(_, value)| value.as_str())
    }
}

/// Takes a call or says why not. `now` is in seconds since 1970.
pub(crate) fn judge(
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    now: f64,
) -> Result<Vec<Taken>, String> {
    let header = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    need(path == PATH, || format!("no operation at {path}"))?;
    need(header("content-type") == "application/cbor", || "the content type".to_owned())?;
    need(header("smithy-protocol") == "rpc-v2-cbor", || "the protocol".to_owned())?;
    need(header("authorization").starts_with("AWS4-HMAC-SHA256 "), || "no signature".to_owned())?;
    need(body.len() <= 1_000_000, || "more than 1 MB".to_owned())?;
    let plain = match header("content-encoding") {
        "" => body.to_vec(),
        "gzip" => {
            let mut plain = Vec::new();
            let read = flate2::read::GzDecoder::new(body).read_to_end(&mut plain);
            read.map_err(|error| format!("gzip: {error}"))?;
            plain
        }
        other => return Err(format!("the encoding {other}")),
    };
    let call: Value =
        ciborium::from_reader(plain.as_slice()).map_err(|it| format!("cbor: {it}"))?;
    let namespace = text(field(&call, "Namespace").ok_or("no namespace")?)?;
    need((1..=255).contains(&namespace.len()), || "the namespace".to_owned())?;
    need(!namespace.starts_with("AWS/"), || "a namespace of AWS".to_owned())?;
    let data = list(field(&call, "MetricData").ok_or("no data")?)?;
    need(!data.is_empty() && data.len() <= 1_000, || format!("{} datums", data.len()))?;
    data.iter().map(|datum| take(&namespace, datum, now)).collect()
}

fn take(namespace: &str, datum: &Value, now: f64) -> Result<Taken, String> {
    let name = text(field(datum, "MetricName").ok_or("no name")?)?;
    need((1..=255).contains(&name.len()) && name.is_ascii(), || "the name".to_owned())?;
    let dimensions = field(datum, "Dimensions").map(list).transpose()?.unwrap_or_default();
    need(dimensions.len() <= 30, || format!("{} dimensions", dimensions.len()))?;
    let dimensions = dimensions.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
    let known: BTreeMap<String, String> = dimensions.iter().cloned().collect();
    need(known.len() == dimensions.len(), || "a dimension twice".to_owned())?;
    let timestamp = number(field(datum, "Timestamp").ok_or("no timestamp")?)?;
    need(timestamp >= now - 14.0 * DAY, || "older than two weeks".to_owned())?;
    need(timestamp <= now + 7_200.0, || "two hours ahead".to_owned())?;
    let unit = field(datum, "Unit").map(text).transpose()?.unwrap_or_default();
    need(["Count", "Milliseconds", "Percent", "None"].contains(&unit.as_str()), || unit.clone())?;
    let values = values(datum)?;
    for (value, count) in &values {
        let fits = value.is_finite() && value.abs() <= 2_f64.powi(360);
        need(fits && count.is_finite() && *count > 0.0, || format!("{value} x {count}"))?;
    }
    Ok(Taken { namespace: namespace.to_owned(), name, unit, dimensions: known, timestamp, values })
}

fn values(datum: &Value) -> Result<Vec<(f64, f64)>, String> {
    match (field(datum, "Value"), field(datum, "Values")) {
        (Some(value), None) => Ok(vec![(number(value)?, 1.0)]),
        (None, Some(values)) => {
            let values: Vec<f64> = list(values)?.iter().map(number).collect::<Result<_, _>>()?;
            need(!values.is_empty() && values.len() <= 150, || format!("{} values", values.len()))?;
            let counts = match field(datum, "Counts") {
                Some(counts) => list(counts)?.iter().map(number).collect::<Result<_, _>>()?,
                None => vec![1.0; values.len()],
            };
            need(counts.len() == values.len(), || "counts of another length".to_owned())?;
            Ok(values.into_iter().zip(counts).collect())
        }
        _ => Err("not one of Value and Values".to_owned()),
    }
}

fn dimension(dimension: &Value) -> Result<(String, String), String> {
    let part = |name: &str| text(field(dimension, name).ok_or("half a dimension")?);
    let (name, value) = (part("Name")?, part("Value")?);
    let good = |text: &str| {
        (1..=255).contains(&text.len())
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
            && !text.trim().is_empty()
    };
    need(good(&name) && good(&value) && !name.starts_with(':'), || format!("{name}={value}"))?;
    Ok((name, value))
}

fn need(good: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(reason()) }
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let entries = value.as_map()?;
    entries.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}

fn text(value: &Value) -> Result<String, String> {
    value.as_text().map(str::to_owned).ok_or_else(|| format!("{value:?} is no text"))
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{value:?} is no list"))
}

#[expect(clippy::cast_precision_loss, reason = "counts and times of tests are small")]
fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        Value::Integer(number) => Ok(i128::from(*number) as f64),
        // A time.
        Value::Tag(1, inner) => number(inner),
        other => Err(format!("{other:?} is no number")),
    }
}
