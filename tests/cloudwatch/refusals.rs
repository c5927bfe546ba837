//! The sink refuses what CloudWatch refuses; without this the other tests would prove little.

use crate::judge::{PATH, Taken, judge};
use ciborium::{Value, cbor};
use http::HeaderMap;
use std::io::Write as _;

const NOW: f64 = 1_800_000_000.0;

fn headers() -> HeaderMap {
    [
        ("content-type", "application/cbor"),
        ("smithy-protocol", "rpc-v2-cbor"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse::<http::HeaderValue>().unwrap()))
    .collect()
}

fn bytes(call: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(call, &mut bytes).unwrap();
    bytes
}

fn at(seconds: f64) -> Value {
    Value::Tag(1, Box::new(Value::Float(seconds)))
}

fn datum(values: usize, counts: usize) -> Value {
    let ones = |number| Value::Array(vec![Value::Float(1.0); number]);
    cbor!({
        "MetricName" => "RequestLatency", "Unit" => "Milliseconds", "Timestamp" => at(NOW),
        "Dimensions" => [{ "Name" => "Service", "Value" => "gateway" }],
        "Values" => ones(values), "Counts" => ones(counts),
    })
    .unwrap()
}

fn call(namespace: &str, data: Vec<Value>) -> Value {
    cbor!({ "Namespace" => namespace, "MetricData" => Value::Array(data) }).unwrap()
}

fn verdict(call: &Value) -> Result<Vec<Taken>, String> {
    judge(PATH, &headers(), &bytes(call), NOW)
}

/// A good datum with one field replaced, or taken away.
fn with(name: &str, value: Option<Value>) -> Value {
    let Value::Map(mut entries) = datum(1, 1) else { panic!("a datum is a map") };
    entries.retain(|(key, _)| key.as_text() != Some(name));
    entries.extend(value.map(|value| (Value::Text(name.to_owned()), value)));
    Value::Map(entries)
}

#[test]
fn what_cloudwatch_takes_is_taken_compressed_or_not() {
    let good = call("DataHub/Gateway", vec![datum(150, 150); 1_000]);
    let Err(refused) = verdict(&good) else { panic!("3 MB are too much") };
    assert_eq!(refused, "more than 1 MB");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes(&good)).unwrap();
    let mut packed = headers();
    packed.insert("content-encoding", "gzip".parse().unwrap());
    let taken = judge(PATH, &packed, &gzip.finish().unwrap(), NOW).unwrap();
    assert_eq!((taken.len(), taken[0].values.len(), taken[0].sum()), (1_000, 150, 150.0));
}

#[test]
fn what_cloudwatch_refuses_is_refused() {
    let dimensions = |number: usize| {
        let one = |n| cbor!({ "Name" => format!("d{n}"), "Value" => "v" }).unwrap();
        Some(Value::Array((0..number).map(one).collect()))
    };
    let twice = vec![cbor!({ "Name" => "d", "Value" => "v" }).unwrap(); 2];
    let value = |number: f64| vec![with("Values", Some(Value::Array(vec![Value::Float(number)])))];
    for (what, namespace, data) in [
        ("151 values", "N", vec![datum(151, 151)]),
        ("0 values", "N", vec![datum(0, 0)]),
        ("counts of another length", "N", vec![datum(3, 2)]),
        ("1001 datums", "N", vec![datum(1, 1); 1_001]),
        ("0 datums", "N", vec![]),
        ("31 dimensions", "N", vec![with("Dimensions", dimensions(31))]),
        ("a dimension twice", "N", vec![with("Dimensions", Some(Value::Array(twice)))]),
        ("NaN x 1", "N", value(f64::NAN)),
        ("inf x 1", "N", value(f64::INFINITY)),
        ("older than two weeks", "N", vec![with("Timestamp", Some(at(NOW - 1_300_000.0)))]),
        ("two hours ahead", "N", vec![with("Timestamp", Some(at(NOW + 7_300.0)))]),
        ("no timestamp", "N", vec![with("Timestamp", None)]),
        ("not one of Value and Values", "N", vec![with("Value", Some(Value::Float(1.0)))]),
        ("a namespace of AWS", "AWS/ECS", vec![datum(1, 1)]),
        ("the namespace", "", vec![datum(1, 1)]),
        ("Furlongs", "N", vec![with("Unit", Some(Value::Text("Furlongs".to_owned())))]),
    ] {
        assert_eq!(verdict(&call(namespace, data)).unwrap_err(), what);
    }
    let huge = value(2_f64.powi(361));
    assert!(verdict(&call("N", huge)).is_err());
}

#[test]
fn what_is_not_a_call_of_cloudwatch_is_refused() {
    let body = bytes(&call("N", vec![datum(1, 1)]));
    for (header, value, what) in [
        ("content-type", "application/json", "the content type"),
        ("smithy-protocol", "rpc-v2-json", "the protocol"),
        ("authorization", "Bearer x", "no signature"),
        ("content-encoding", "br", "the encoding br"),
    ] {
        let mut headers = headers();
        headers.insert(header, value.parse().unwrap());
        assert_eq!(judge(PATH, &headers, &body, NOW).unwrap_err(), what);
    }
    assert_eq!(judge("/", &headers(), &body, NOW).unwrap_err(), "no operation at /");
    assert!(judge(PATH, &headers(), b"\xff", NOW).unwrap_err().starts_with("cbor"));
}
