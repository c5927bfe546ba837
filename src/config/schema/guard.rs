//! `[address_guard]`.

use super::{At, Mode, Text};
use crate::config::value::{Invalid, Written};
use crate::limits::{Period, Rate};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

/// What one client address may do before anybody looks at its credentials; 429 above.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AddressGuard {
    /// Requests per s or min; "off" does not count them.
    pub(crate) rate: At<Text<AddressRate>>,
    /// Requests that are under way at once, WebSockets too; without it they are not counted.
    #[schemars(range(min = 10, max = 1_000_000))]
    pub(crate) in_flight: Option<At<u32>>,
    /// Refused credentials per s or min: what is above is let in only with a credential that is
    /// known to be good; "off" does not count them.
    pub(crate) failed_tries: At<Text<AddressRate>>,
    /// Whether it refuses.
    pub(crate) mode: At<Mode>,
    /// Networks that are not counted.
    pub(crate) exempt: Vec<At<Text<IpNet>>>,
}

impl Default for AddressGuard {
    fn default() -> Self {
        Self {
            rate: Text::default_is("off"),
            in_flight: None,
            failed_tries: Text::default_is("600/min"),
            mode: At::default_is(Mode::Enforce),
            exempt: Vec::new(),
        }
    }
}

/// So many of one address in a second or a minute; `off`: not counted.
pub(crate) struct AddressRate(pub(crate) Option<Rate>);

impl Written for AddressRate {
    const WHAT: &'static str = "a rate of one address";
    const PATTERN: Option<&'static str> = Some("^([1-9][0-9]*/(s|min)|off)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write how many per second or minute, as `200/s` or `600/min`; or `off`";
        if text == "off" {
            return Ok(Self(None));
        }
        let rate = Rate::parse(text).map_err(|invalid| Invalid { help: HELP.into(), ..invalid })?;
        match rate.per {
            Period::Second | Period::Minute => Ok(Self(Some(rate))),
            Period::Day | Period::Hour => {
                Err(Invalid::new("addresses are not remembered for so long", HELP))
            }
        }
    }
}
