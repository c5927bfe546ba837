//! Which node of a cluster has which key.

use super::node::Node;
use super::settings::Address;
use redis::Value;
use std::sync::Arc;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;
const NOBODY: u16 = u16::MAX;

/// The slot of a key, or of the part of it that stands in braces.
pub(super) fn slot(tag: &[u8]) -> usize {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    usize::from(crc) % SLOTS
}

/// A range of slots and the master that has them.
pub(super) type Range = (u16, u16, Address);

/// The masters, and which slots each has.
pub(super) struct Map {
    pub(super) nodes: Vec<Arc<Node>>,
    owners: Vec<u16>,
    /// Whether every slot has an owner.
    pub(super) whole: bool,
}

impl Map {
    /// A map in which nobody has anything.
    pub(super) const fn empty() -> Self {
        Self { nodes: Vec::new(), owners: Vec::new(), whole: false }
    }

    /// The map of these ranges. Nodes that `old` knows stay the same.
    pub(super) fn of(ranges: &[Range], old: &Self) -> Self {
        let mut map = Self { nodes: Vec::new(), owners: vec![NOBODY; SLOTS], whole: false };
        for (from, to, address) in ranges {
            let range = usize::from(*from)..=usize::from(*to);
            let known = map.nodes.iter().position(|node| node.address == *address);
            let index = known.unwrap_or_else(|| {
                let kept = old.nodes.iter().find(|node| node.address == *address);
                let new = || Arc::new(Node::new(address.clone(), range.clone()));
                map.nodes.push(kept.map_or_else(new, Arc::clone));
                map.nodes.len() - 1
            });
            let index = u16::try_from(index).unwrap_or(NOBODY);
            map.owners.get_mut(range).into_iter().for_each(|owners| owners.fill(index));
        }
        map.whole = map.owners.iter().all(|owner| *owner != NOBODY);
        map
    }

    /// Who has a slot.
    pub(super) fn owner(&self, slot: usize) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.owners.get(slot)?))
    }

    /// How many slots nobody answers for.
    pub(super) fn away(&self) -> usize {
        let lost: Vec<bool> = self.nodes.iter().map(|node| node.is_lost()).collect();
        let served = |owner: &&u16| lost.get(usize::from(**owner)) == Some(&false);
        SLOTS - self.owners.iter().filter(served).count()
    }

    /// The node at an address.
    pub(super) fn at(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.address == *address)
    }
}

/// The ranges in an answer to `CLUSTER SLOTS`, and the addresses of replicas; a node without an address
/// of its own is the one that was asked. With TLS a node goes by the name that it gives beside its
/// address, if it does: that is the one in its certificate.
pub(super) fn read(answer: &Value, asked: &Address, tls: bool) -> (Vec<Range>, Vec<Address>) {
    let (mut ranges, mut replicas) = (Vec::new(), Vec::new());
    for entry in array(answer) {
        let [from, to, nodes @ ..] = array(entry) else { continue };
        let mut nodes = nodes.iter().filter_map(|node| node_address(node, asked, tls));
        if let (Some(from), Some(to), Some(master)) = (number(from), number(to), nodes.next())
            && from <= to
            && usize::from(to) < SLOTS
        {
            ranges.push((from, to, master));
            replicas.extend(nodes);
        }
    }
    (ranges, replicas)
}

fn node_address(node: &Value, asked: &Address, tls: bool) -> Option<Address> {
    let [host, port, rest @ ..] = array(node) else { return None };
    let named = match rest {
        [_, facts, ..] if tls => hostname(array(facts)),
        _ => None,
    };
    let host = match named.or_else(|| text(host)) {
        None | Some("" | "?") => Arc::clone(&asked.host),
        Some(host) => host.into(),
    };
    Some(Address { host, port: number(port)? })
}

/// The hostname among pairs of names and values.
fn hostname(facts: &[Value]) -> Option<&str> {
    let mut pairs = facts.chunks_exact(2).filter_map(|pair| match pair {
        [name, value] => Some((text(name)?, text(value)?)),
        _ => None,
    });
    let found = pairs.find(|(name, _)| *name == "hostname");
    found.map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_that_the_cluster_gives_them() {
        // The first is the check value of the CRC in the cluster's specification.
        for (tag, expected) in [("123456789", 0x31C3), ("foo", 12_182), ("", 0)] {
            assert_eq!(slot(tag.as_bytes()), expected, "{tag}");
        }
    }

    #[test]
    fn a_new_map_keeps_the_nodes_that_it_knows() {
        let address = |port| Address { host: "127.0.0.1".into(), port };
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |from, to, nodes: &[Value]| {
            Value::Array([&[Value::Int(from), Value::Int(to)], nodes].concat())
        };
        let answer = Value::Array(vec![
            range(0, 8_000, &[node(text("127.0.0.1"), 1), node(text("127.0.0.1"), 3)]),
            range(8_001, 16_383, &[node(Value::Nil, 2)]),
        ]);
        let (ranges, replicas) = read(&answer, &address(9), false);
        assert_eq!(replicas, [address(3)]);
        let first = Map::of(&ranges, &Map::empty());
        assert!(first.whole && !Map::empty().whole);
        let (ranges, _) =
            read(&Value::Array(vec![range(0, 10, &[node(Value::Nil, 2)])]), &address(9), false);
        let second = Map::of(&ranges, &first);
        assert!(!second.whole && second.owner(11).is_none());
        for (map, slot, port) in [(&first, 8_000, 1), (&first, 8_001, 2), (&second, 10, 2)] {
            assert_eq!(map.owner(slot).unwrap().address.port, port, "{slot}");
        }
        assert!(Arc::ptr_eq(first.owner(9_000).unwrap(), second.owner(0).unwrap()));
        assert_eq!(second.at(&address(2)).unwrap().address.port, 2);
    }

    #[test]
    fn with_tls_a_node_goes_by_its_name() {
        let text = |text: &str| Value::BulkString(text.into());
        let asked = Address { host: "asked".into(), port: 9 };
        let node = |facts: &[&str]| {
            let facts = Value::Array(facts.iter().map(|fact| text(fact)).collect());
            Value::Array(vec![text("192.0.2.1"), Value::Int(1), text("id"), facts])
        };
        for (facts, tls, host) in [
            (&["hostname", "node.test"][..], true, "node.test"),
            (&["hostname", "node.test"], false, "192.0.2.1"),
            (&["ip", "192.0.2.2", "hostname", "node.test"], true, "node.test"),
            (&["hostname", ""], true, "192.0.2.1"),
            (&[], true, "192.0.2.1"),
        ] {
            let found = node_address(&node(facts), &asked, tls).unwrap();
            assert_eq!(&*found.host, host, "{facts:?}");
        }
    }
}
