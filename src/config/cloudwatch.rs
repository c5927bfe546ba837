//! Where metrics go in Amazon CloudWatch, and how their texts look. Plain data; `server` makes a
//! publisher of it.
//!
//! Must stay true: what is accepted here, CloudWatch takes; plain http stays on this machine, since
//! requests are signed and not encrypted.

use super::value::{Invalid, Written};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Metrics for CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchDef {
    /// The region; `None`: nothing is sent.
    pub region: Option<Arc<str>>,
    /// The namespace of all metrics.
    pub namespace: Arc<str>,
    /// The dimension `Service`.
    pub service: Arc<str>,
    /// The dimension `Environment`.
    pub environment: Arc<str>,
    /// Another URL than the region's.
    pub endpoint: Option<Arc<str>>,
    /// How often.
    pub interval: Duration,
    /// Upstreams with metrics of their own; none: the first six by name.
    pub upstreams: Vec<Arc<str>>,
}

/// A region, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// `"off"`
    Off,
    /// Its name.
    Named(Arc<str>),
}

impl Written for Region {
    const WHAT: &'static str = "an AWS region";
    const PATTERN: Option<&'static str> = Some("^(off|[a-z]{2,}(-[a-z0-9]+)+)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write its name, as `us-east-1`; `off` sends no metrics";
        if text == "off" {
            return Ok(Self::Off);
        }
        let mut parts = text.split('-');
        let first = parts.next().unwrap_or_default();
        let area = first.len() >= 2 && first.bytes().all(|byte| byte.is_ascii_lowercase());
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !part.is_empty() && part.bytes().all(known)
        };
        let rest: Vec<&str> = parts.collect();
        if text.len() > 32 || !area || rest.is_empty() || !rest.into_iter().all(plain) {
            return Err(Invalid::new("no region has such a name", HELP));
        }
        Ok(Self::Named(text.into()))
    }
}

/// A namespace of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace(pub(crate) Arc<str>);

impl Written for Namespace {
    const WHAT: &'static str = "a namespace";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Za-z.\\-_/#]{1,255}$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "use 1 to 255 letters, digits and `.-_/#`, as `DataHub/Gateway`";
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#".contains(&byte);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(plain) {
            return Err(Invalid::new("CloudWatch does not take it", HELP));
        }
        if text.starts_with("AWS/") {
            return Err(Invalid::new("`AWS/` is for metrics of AWS itself", HELP));
        }
        Ok(Self(text.into()))
    }
}

/// The value of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) Arc<str>);

impl Written for Word {
    const WHAT: &'static str = "the value of a dimension";
    const PATTERN: Option<&'static str> = Some("^[!-9;-~][ -~]{0,254}$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str =
            "use 1 to 255 printable ASCII characters, the first neither a space nor `:`";
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if text.is_empty() || text.len() > 255 || !printable || text.starts_with([' ', ':']) {
            return Err(Invalid::new("CloudWatch does not take it", HELP));
        }
        Ok(Self(text.into()))
    }
}

/// Where CloudWatch answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) Arc<str>);

impl Written for Endpoint {
    const WHAT: &'static str = "a URL of CloudWatch";
    const PATTERN: Option<&'static str> = Some("^https?://[^/?#@]+/?$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str =
            "write it as `https://monitoring.us-east-1.amazonaws.com`, with a port if any";
        let wrong = |label: &str| Err(Invalid::new(label, HELP));
        let Ok(url) = text.parse::<http::Uri>() else { return wrong("not a URL") };
        let Some(scheme) = url.scheme_str().filter(|_| url.host().is_some_and(|it| !it.is_empty()))
        else {
            return wrong("the scheme or the host is missing");
        };
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return wrong("credentials never stand in the configuration itself");
        }
        if url.path_and_query().is_some_and(|rest| rest.as_str() != "/") || text.contains('#') {
            return wrong("there is something behind the host");
        }
        match scheme {
            "https" | "http" if is_private(&url) => {}
            "http" => {
                return Err(Invalid::new(
                    "plain http beyond this machine",
                    "write `https://`; plain http is for an emulator on 127.0.0.1",
                ));
            }
            _ => return wrong("neither `https://` nor `http://`"),
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }
}

/// Whether what goes to this URL is encrypted, or stays on this machine.
#[must_use]
pub fn is_private(url: &http::Uri) -> bool {
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => url.host().is_some_and(is_loopback),
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_name_or_off() {
        assert_eq!(Region::parse("off"), Ok(Region::Off));
        for text in ["us-east-1", "us-gov-west-1", "eu-isoe-west-1", "ap-southeast-4"] {
            assert_eq!(Region::parse(text), Ok(Region::Named(text.into())));
        }
        for text in ["", "useast1", "us_east_1", "US-EAST-1", "us-east-1.evil.example", "us--1"] {
            assert!(Region::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for text in [
            "https://monitoring.us-east-1.amazonaws.com",
            "https://vpce-1.monitoring.us-east-1.vpce.amazonaws.com:443/",
            "http://127.0.0.1:4567",
            "http://[::1]:4567",
            "http://localhost:4567/",
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(&*endpoint.0, text.trim_end_matches('/'));
        }
        for text in [
            "",
            "127.0.0.1:4567",
            "http://10.0.0.1:4567",
            "http://localhost.evil.example",
            "ftp://127.0.0.1",
            "https://user:secret@host",
            "https://host/path",
            "https://host?query",
            "https://",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cloudwatch_refuses_is_refused_here() {
        assert!(Namespace::parse("DataHub/Gateway").is_ok());
        for text in ["", "AWS/ECS", "with space", &"x".repeat(256)] {
            assert!(Namespace::parse(text).is_err(), "{text}");
        }
        assert!(Word::parse("blue team").is_ok());
        for text in ["", " ", ":x", "na\u{ef}ve", "tab\t", &"x".repeat(256)] {
            assert!(Word::parse(text).is_err(), "{text}");
        }
    }
}
