//! Networks as operators write them, for the addresses that a key works from.
//!
//! Must stay true: what is read is what [`std::fmt::Display`] of it reads back as.

use ipnet::IpNet;
use std::net::IpAddr;

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// There are bits behind the prefix.
    #[error("a network has no bits behind its prefix; did you mean `{0}`?")]
    Bits(IpNet),
    /// An IPv4 address in the clothes of IPv6: clients never have one, so it would match nobody.
    #[error("addresses of IPv4 are written as such, like `10.0.0.0/8`")]
    Mapped,
    /// Neither a network nor an address.
    #[error("a network is written like `10.0.0.0/8` or `2001:db8::/32`, or is one address")]
    Other,
}

/// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// # Errors
/// What is wrong with it.
pub fn parse_network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| InvalidNetwork::Other)?,
    };
    if net.trunc() != net {
        return Err(InvalidNetwork::Bits(net.trunc()));
    }
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(InvalidNetwork::Mapped)
        }
        net => Ok(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_reads_back_as_it_is_shown() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let net = parse_network(text).unwrap();
            assert_eq!(net.to_string(), shown);
            assert_eq!(parse_network(shown).unwrap(), net);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_way_out() {
        let table = [
            ("", InvalidNetwork::Other),
            ("10.0.0.0/33", InvalidNetwork::Other),
            ("10.0.0/8", InvalidNetwork::Other),
            (" 10.0.0.0/8", InvalidNetwork::Other),
            ("localhost", InvalidNetwork::Other),
            ("10.1.0.0/8", InvalidNetwork::Bits("10.0.0.0/8".parse().unwrap())),
            ("::ffff:10.0.0.1", InvalidNetwork::Mapped),
            ("::ffff:10.0.0.0/104", InvalidNetwork::Mapped),
        ];
        for (text, problem) in table {
            assert_eq!(parse_network(text), Err(problem), "{text}");
        }
    }
}
