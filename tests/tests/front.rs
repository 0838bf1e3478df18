//! The prefilter agrees with the tries, and both with a scan of the list: in the loaded program,
//! list after list in the same maps.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use fastrand::Rng;
use filter_common::{DropReason, PassReason, Verdict};
use ipnet::IpNet;
use tests::{
    cli::{Apifence, words},
    front::{Front, inside, list, near, set, syn},
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
    table::{self},
};

/// About this many addresses are queried for each list.
const ASKED: usize = 3_000;

/// The list sorted, and the end of the furthest range up to each one: the result of a scan in one
/// step.
struct Scan {
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl Scan {
    fn new(list: &[IpNet]) -> Self {
        let mut ranges: Vec<_> = list
            .iter()
            .map(|range| (range.network(), range.broadcast()))
            .collect();
        ranges.sort_unstable();
        for index in 1..ranges.len() {
            let (before, (first, last)) = (ranges[index - 1].1, ranges[index]);
            if before.is_ipv4() == last.is_ipv4() {
                ranges[index] = (first, last.max(before));
            }
        }
        Self { ranges }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let behind = self.ranges.partition_point(|range| range.0 <= address);
        behind > 0 && {
            let last = self.ranges[behind - 1].1;
            last.is_ipv4() == address.is_ipv4() && address <= last
        }
    }
}

/// The addresses next to the ends of a range, its ends, and some inside and near it.
fn around(range: IpNet, rng: &mut Rng) -> Vec<IpAddr> {
    let mut addresses = vec![range.network(), range.broadcast()];
    match (range.network(), range.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            addresses.push(u32::from(first).wrapping_sub(1).to_be_bytes().into());
            addresses.push(u32::from(last).wrapping_add(1).to_be_bytes().into());
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            addresses.push(u128::from(first).wrapping_sub(1).to_be_bytes().into());
            addresses.push(u128::from(last).wrapping_add(1).to_be_bytes().into());
        }
        _ => {}
    }
    addresses.extend([inside(range, rng), near(range, rng)]);
    addresses
}

#[test]
fn table_and_tries_and_a_scan_agree_list_after_list() -> Result<()> {
    let seed = table::seed();
    let mut rng = Rng::with_seed(seed);
    let namespace = Namespace::new("node")?;
    add_interface(&namespace)?;
    let apifence = Apifence::new(&namespace)?;
    apifence.ok(&words(&format!(
        "attach --interface {INTERFACE} --max-ranges 100000 --no-node-addresses \
         --authorized-ip-ranges 0.0.0.0/32"
    )))?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let mut front = Front::open(&apifence)?;
    let wide = |texts: &[&str]| -> Vec<IpNet> {
        let parse = |text: &&str| text.parse().expect("a range");
        texts.iter().map(parse).collect()
    };
    let mut lists = vec![
        wide(&["0.0.0.0/0"]),
        wide(&["::/0"]),
        wide(&[
            "128.0.0.0/2",
            "8000::/1",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
        ]),
        wide(&[
            "192.0.2.0/32",
            "192.0.2.2/32",
            "2001:db8::/128",
            "2001:db8::2/127",
        ]),
    ];
    // Sizes go up and down: a short list after a long one must leave none of its parts. The third
    // list, of some thousand ranges, is written over the first.
    for size in [1, 4, 5, 3_500, 3_500, 3_000, 10, 100_000, 100] {
        lists.push(list(size, &mut rng));
    }
    for list in lists {
        set(&apifence, &list)?;
        let scan = Scan::new(&list);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for _ in 0..ASKED / 10 {
            let range = *rng.choice(&list).expect("no list is empty");
            addresses.extend(around(range, &mut rng));
            addresses.push(rng.u32(..).to_be_bytes().into());
            addresses.push((0x2 << 124 | rng.u128(..) >> 4).to_be_bytes().into());
        }
        let mut ask = |addresses: &[IpAddr]| -> Result<Vec<Verdict>> {
            let ask = |address: &IpAddr| filter.judge(&syn(*address), None);
            addresses.iter().map(ask).collect()
        };
        let with_table = ask(&addresses)?;
        let off = front.switch_off()?;
        let without = ask(&addresses)?;
        front.switch_on(off)?;
        for ((address, table), trie) in addresses.iter().zip(with_table).zip(without) {
            let want = if scan.holds(*address) {
                Verdict::Pass(PassReason::Authorized)
            } else {
                Verdict::Drop(DropReason::Unauthorized)
            };
            ensure!(
                (table, trie) == (want, want),
                "{address} of a list of {}, seed {seed}: {table:?} by the table, {trie:?} by the trie, {want:?} wanted",
                list.len()
            );
        }
    }
    Ok(())
}
