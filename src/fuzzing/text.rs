//! Targets, hosts and configurations.

use crate::config;
use crate::routing::{Target, parse_host};
use std::net::Ipv6Addr;

/// A request target that is accepted has one path, which says what it says to any server.
pub fn target(data: &[u8]) -> bool {
    let Ok(raw) = std::str::from_utf8(data) else { return false };
    let Ok(target) = Target::parse(raw) else { return false };
    let path = target.path();
    if path == "*" {
        assert_eq!(raw, "*");
        return true;
    }
    assert!(path.starts_with('/') && !path.contains("//"), "{path:?}");
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
    let mut slash = false;
    for (at, byte) in path.bytes().enumerate() {
        assert!(byte.is_ascii_graphic() && !b"\\;#?".contains(&byte), "{path:?}");
        if byte == b'%' {
            let escape = path.get(at + 1..at + 3).unwrap_or_default();
            assert!(!escape.bytes().any(|digit| digit.is_ascii_lowercase()), "{path:?}");
            let Ok(escaped) = u8::from_str_radix(escape, 16) else { panic!("{path:?}") };
            let plain = escaped.is_ascii_alphanumeric() || b"-._~".contains(&escaped);
            assert!(!plain && escaped != b'\\' && !escaped.is_ascii_control(), "{path:?}");
            slash |= escaped == b'/';
        }
    }
    assert_eq!(slash, target.has_encoded_slash(), "{path:?}");
    assert_eq!(target.query(), raw.split_once('?').map(|(_, query)| query));
    if let Some(authority) = target.authority() {
        assert!(raw.contains(authority) && parse_host(authority).is_ok(), "{authority:?}");
    }
    // What goes to the upstream is read there as here.
    let query = target.query().map_or_else(String::new, |query| format!("?{query}"));
    let wire = format!("{path}{query}");
    let again = Target::parse(&wire);
    assert!(
        again.as_ref().is_ok_and(|again| again.path() == path && again.query() == target.query()),
        "{wire:?} is read as {again:?}"
    );
    true
}

/// A host that is accepted has one spelling, whatever port and case it came with.
pub fn host(data: &[u8]) -> bool {
    let Ok(raw) = std::str::from_utf8(data) else { return false };
    let Ok(host) = parse_host(raw) else { return false };
    assert!(!host.is_empty() && host.len() <= 255 && host.is_ascii(), "{host:?}");
    assert_eq!(host, host.to_ascii_lowercase());
    assert_eq!(parse_host(&host).as_ref(), Ok(&host), "one spelling");
    assert_eq!(parse_host(&format!("{host}:8080")).as_ref(), Ok(&host), "without port");
    assert_eq!(parse_host(&raw.to_ascii_uppercase()).as_ref(), Ok(&host), "in any case");
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => {
            assert_eq!(address.parse().map(|ip: Ipv6Addr| ip.to_string()).as_deref(), Ok(address));
        }
        None => {
            assert!(!host.split('.').any(str::is_empty), "{host:?}");
            let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(host.bytes().all(named), "{host:?}");
        }
    }
    true
}

/// A configuration is one thing or a list of mistakes, and the same each time.
pub fn config_text(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let environment = |name: &str| {
        let known = ["API_KEY_PEPPER", "JWT_SECRET", "ADMIN_TOKEN"].contains(&name);
        known.then(|| "0123456789abcdef0123456789abcdef".into())
    };
    let load = || config::load_text(text, &environment);
    match (load(), load()) {
        (Ok(one), Ok(other)) => {
            assert!(one.config == other.config, "read in two ways");
            true
        }
        (Err(one), Err(other)) => {
            let (one, other) = (one.to_string(), other.to_string());
            assert!(one.contains("error"), "refused without a word: {one}");
            assert_eq!(one, other);
            false
        }
        _ => panic!("read in two ways"),
    }
}
