//! Values that are text in a file: durations, sizes, rates, addresses, names.
//!
//! One trait, [`Written`], says for each how it is parsed, what it is called in a message, and
//! which pattern editors check it by; `schema` uses it as the type of a key.

use crate::limits::{Period, Quota, QuotaPeriod, Rate};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Why a text is not what it should be, and how it should look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Beside the text: what is wrong with it.
    pub(crate) label: String,
    /// The way out.
    pub(crate) help: String,
}

impl Invalid {
    /// A reason and a way out.
    pub(crate) fn new(label: impl Into<String>, help: impl Into<String>) -> Self {
        Self { label: label.into(), help: help.into() }
    }
}

/// A value with a written form.
pub(crate) trait Written: Sized {
    /// What it is, with an article: `a duration`.
    const WHAT: &'static str;
    /// What editors check, as a regular expression.
    const PATTERN: Option<&'static str> = None;

    /// Text to value.
    fn parse(text: &str) -> Result<Self, Invalid>;
}

/// A value that has a place in an order, and a bound that can be said.
pub(crate) trait Bounded: Written + PartialOrd {
    /// As one would write it.
    fn show(&self) -> String;
}

impl Written for Duration {
    const WHAT: &'static str = "a duration";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(ms|s|m|h)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a whole number with a unit: `500ms`, `10s`, `5m` or `1h`";
        let (number, unit) = split_number(text);
        let number: u64 = number.parse().map_err(|_| Invalid::new(no_number(text), HELP))?;
        let millis = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let millis = millis.ok_or_else(|| Invalid::new(no_unit(unit), HELP))?;
        let total = number.checked_mul(millis).ok_or_else(|| Invalid::new("too long", HELP))?;
        Ok(Self::from_millis(total))
    }
}

impl Bounded for Duration {
    fn show(&self) -> String {
        let millis = self.as_millis();
        for (size, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis >= size && millis.is_multiple_of(size) {
                return format!("{}{unit}", millis / size);
            }
        }
        if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

impl Written for ByteSize {
    const WHAT: &'static str = "a size";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(B|KiB|MiB|GiB)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a whole number with a unit: `512B`, `32KiB`, `10MiB` or `1GiB`";
        let (number, unit) = split_number(text);
        let number: u64 = number.parse().map_err(|_| Invalid::new(no_number(text), HELP))?;
        let bytes = match unit {
            "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes: u64 = bytes.ok_or_else(|| Invalid::new(no_unit(unit), HELP))?;
        let total = number.checked_mul(bytes).ok_or_else(|| Invalid::new("too large", HELP))?;
        Ok(Self(total))
    }
}

impl Bounded for ByteSize {
    fn show(&self) -> String {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return format!("{}{unit}", self.0 >> shift);
            }
        }
        format!("{}B", self.0)
    }
}

impl Written for Rate {
    const WHAT: &'static str = "a rate";
    const PATTERN: Option<&'static str> = Some("^[1-9][0-9]*/(s|min|h|d)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write permits per period: `10/s`, `100/min`, `5000/h` or `20000/d`";
        let (permits, per) = permits(text, HELP)?;
        let per = match per {
            "s" => Period::Second,
            "min" => Period::Minute,
            "h" => Period::Hour,
            "d" => Period::Day,
            other => return Err(Invalid::new(format!("`{other}` is not a period"), HELP)),
        };
        Ok(Self { permits, per })
    }
}

impl Written for Quota {
    const WHAT: &'static str = "a quota";
    const PATTERN: Option<&'static str> = Some("^[1-9][0-9]*/(minute|hour|day|month)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write permits per period of the calendar: `100/minute`, `5000/hour`, \
                            `10000/day` or `200000/month`";
        let (permits, per) = permits(text, HELP)?;
        let per = match per {
            "minute" => QuotaPeriod::Minute,
            "hour" => QuotaPeriod::Hour,
            "day" => QuotaPeriod::Day,
            "month" => QuotaPeriod::Month,
            other => return Err(Invalid::new(format!("`{other}` is not a period"), HELP)),
        };
        Ok(Self { permits, per })
    }
}

/// The number before the `/`, and the period behind it.
fn permits<'t>(text: &'t str, help: &str) -> Result<(NonZeroU32, &'t str), Invalid> {
    let Some((permits, per)) = text.split_once('/') else {
        return Err(Invalid::new("a period is missing", help));
    };
    let number: u32 = permits.parse().map_err(|_| Invalid::new(no_number(text), help))?;
    let permits = NonZeroU32::new(number).ok_or_else(|| {
        Invalid::new(
            "this would refuse every request",
            "at least 1 permit; to close a route, give it a fixed `reply`",
        )
    })?;
    Ok((permits, per))
}

impl Written for SocketAddr {
    const WHAT: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write an IP address and a port, as `10.0.0.1:8080` or `[::1]:8080`";
        text.parse().map_err(|_| {
            let label = match text.rsplit_once(':') {
                _ if text.parse::<IpAddr>().is_ok() => "the port is missing",
                Some((host, port)) if port.parse::<u16>().is_ok() && is_host_name(host) => {
                    return Invalid::new(
                        "a host name, not an IP address",
                        "host names are not supported here yet: write `ip:port`",
                    );
                }
                Some((_, port)) if port.parse::<u16>().is_err() => "the port is not a port number",
                None => "the port is missing",
                Some(_) => "not an IP address",
            };
            Invalid::new(label, HELP)
        })
    }
}

/// Where the operator's listener listens, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// `"off"`
    Off,
    /// An address.
    On(SocketAddr),
}

impl Written for AdminAddress {
    const WHAT: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text == "off" {
            return Ok(Self::Off);
        }
        SocketAddr::parse(text).map(Self::On).map_err(|invalid| {
            Invalid::new(invalid.label, format!("{}; `off` closes the listener", invalid.help))
        })
    }
}

impl Written for IpNet {
    const WHAT: &'static str = "a network";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a network as `10.0.0.0/8` or `2001:db8::/32`, or one address";
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::from(address));
        }
        let net: Self = text.parse().map_err(|_| Invalid::new("not a network", HELP))?;
        if net.trunc() != net {
            let help = format!("did you mean `{}`?", net.trunc());
            return Err(Invalid::new("there are bits behind the prefix", help));
        }
        Ok(net)
    }
}

/// A name that the operator chose; it becomes a metric label and a part of response headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Arc<str>);

impl Written for Name {
    const WHAT: &'static str = "a name";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "use 1 to 64 letters, digits, `-` and `_`";
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.is_empty() || text.len() > 64 {
            return Err(Invalid::new("too short or too long", HELP));
        }
        if !text.bytes().all(plain) {
            return Err(Invalid::new("this character cannot stand in a name", HELP));
        }
        Ok(Self(text.into()))
    }
}

/// The `<env>` part of API keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyEnvironment(pub(crate) Arc<str>);

impl Written for KeyEnvironment {
    const WHAT: &'static str = "an environment of keys";
    const PATTERN: Option<&'static str> = Some("^[a-z0-9]{1,16}$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(plain) {
            let help = "use 1 to 16 lower-case letters and digits, as in `dh_live_…`";
            return Err(Invalid::new("cannot be a part of a key", help));
        }
        Ok(Self(text.into()))
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(digits).unwrap_or((text, ""))
}

fn no_number(text: &str) -> &'static str {
    match text.bytes().next() {
        None => "this is empty",
        Some(b'-') => "this is negative",
        Some(byte) if byte.is_ascii_digit() => "not a whole number, or too large",
        Some(_) => "does not start with a number",
    }
}

fn no_unit(unit: &str) -> String {
    if unit.is_empty() { "the unit is missing".to_owned() } else { format!("`{unit}` is no unit") }
}

/// Whether it could be the name of a machine rather than a mistyped address.
fn is_host_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    text.bytes().all(plain) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [("500ms", 500), ("0s", 0), ("10s", 10_000), ("5m", 300_000)] {
            let parsed = Duration::parse(text).unwrap();
            assert_eq!(parsed, Duration::from_millis(millis));
            assert_eq!(parsed.show(), text);
        }
        for text in ["", "10", "s", "-1s", "1.5s", "10 s", "5min", "99999999999999999999s", "１s"]
        {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        assert!(Duration::parse("18446744073709551615h").is_err());
    }

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [("1B", 1), ("32KiB", 32_768), ("10MiB", 10 << 20), ("1GiB", 1 << 30)]
        {
            let parsed = ByteSize::parse(text).unwrap();
            assert_eq!(parsed, ByteSize(bytes));
            assert_eq!(parsed.show(), text);
        }
        for text in ["", "10", "10KB", "10kib", "KiB", "-1B", "18446744073709551615GiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_a_period_and_let_something_through() {
        let rate = Rate::parse("12/min").unwrap();
        assert_eq!((rate.permits.get(), rate.per), (12, Period::Minute));
        for text in ["", "12", "/s", "0/s", "12/sec", "-1/s", "12/", "4294967296/s", "1/s/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quotas_have_a_period_of_the_calendar() {
        let quota = Quota::parse("10000/day").unwrap();
        assert_eq!((quota.permits.get(), quota.per), (10_000, QuotaPeriod::Day));
        for text in ["", "12", "/day", "0/day", "12/d", "12/week", "-1/day", "4294967296/month"] {
            assert!(Quota::parse(text).is_err(), "{text}");
        }
        assert!(Quota::parse("5/min").unwrap_err().help.contains("minute"));
    }

    #[test]
    fn an_address_says_what_it_lacks() {
        for (text, label) in [
            ("127.0.0.1", "the port is missing"),
            ("localhost", "the port is missing"),
            ("::1", "the port is missing"),
            ("orders.internal:8080", "a host name, not an IP address"),
            ("127.0.0.1:http", "the port is not a port number"),
            ("127.0.0.1:70000", "the port is not a port number"),
            ("300.0.0.1:80", "not an IP address"),
        ] {
            assert_eq!(SocketAddr::parse(text).unwrap_err().label, label, "{text}");
        }
    }

    #[test]
    fn a_network_has_no_bits_behind_its_prefix() {
        assert!(IpNet::parse("10.0.0.0/8").is_ok() && IpNet::parse("10.1.2.3").is_ok());
        let error = IpNet::parse("10.1.0.0/8").unwrap_err();
        assert_eq!(error.help, "did you mean `10.0.0.0/8`?");
    }
}
