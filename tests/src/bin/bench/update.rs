//! How long a change of the list takes, from the start of the command to its end, when it is enforced: `apifence`, `nft -f` and
//! `ipset restore` with the same list.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use anyhow::{Result, ensure};
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tempfile::TempDir;
use tests::{
    cli::Apifence,
    netns::Namespace,
    table::loaded::{INTERFACE, add_interface},
};

use crate::median;

/// How many entries, and how often.
const SIZES: [(usize, usize); 3] = [(3_500, 7), (100_000, 5), (1_000_000, 3)];

/// The size at which one entry is added.
const ADDED_TO: usize = 100_000;

/// What a contender is asked to do.
#[derive(Clone, Copy)]
enum Task {
    /// Put the whole list in force.
    Set,
    /// Add an entry to it.
    Add(Ipv4Net),
}

/// Measures and prints the table.
pub(crate) fn run() -> Result<()> {
    let node = Node::new()?;
    println!(
        "changes: milliseconds from the start of the command to its end, half of the entries IPv6; median (least to most)"
    );
    println!();
    println!(
        "{:<24} {:>24} {:>24} {:>24}",
        "", "apifence", "nft -f", "ipset restore"
    );
    for (size, rounds) in SIZES {
        let mut rng = Rng::with_seed(size as u64);
        let lists = [list(size, &mut rng), list(size, &mut rng)];
        node.write(&lists)?;
        print(
            &format!("{size} entries"),
            measure(rounds, &format!("{size} entries"), |contender, round| {
                node.run(contender, Task::Set, round % 2)
            })?,
        );
        if size == ADDED_TO {
            print(
                &format!("1 more, to {size}"),
                measure(rounds, "1 more", |contender, round| {
                    let host = Ipv4Addr::new(223, 255, 0, 1 + round as u8);
                    node.run(contender, Task::Add(Ipv4Net::from(host)), 0)
                })?,
            );
        }
    }
    Ok(())
}

/// The times of each contender, sorted; in each round another one is first.
fn measure(
    rounds: usize,
    what: &str,
    mut run: impl FnMut(usize, usize) -> Result<f64>,
) -> Result<[Vec<f64>; 3]> {
    let mut times = [const { Vec::new() }; 3];
    for round in 0..rounds {
        eprint!("\r{what}: round {} of {rounds}  ", round + 1);
        for turn in 0..times.len() {
            let contender = (round + turn) % times.len();
            times[contender].push(run(contender, round)?);
        }
    }
    eprintln!();
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    Ok(times)
}

fn print(what: &str, times: [Vec<f64>; 3]) {
    print!("{what:<24}");
    for times in times {
        let all = format!(
            "{:.0} ({:.0} to {:.0})",
            median(&times),
            times[0],
            times[times.len() - 1]
        );
        print!(" {all:>24}");
    }
    println!();
}

/// Ranges that do not overlap, which nftables would not take: one in each of as many /24 and /48.
fn list(size: usize, rng: &mut Rng) -> Vec<IpNet> {
    let mut places = BTreeSet::new();
    while places.len() < size / 2 {
        places.insert(rng.u32(0x01_00_00..0x7f_00_00));
    }
    let mut list = Vec::with_capacity(size);
    for place in &places {
        let address = Ipv4Addr::from(place << 8 | rng.u32(0..256));
        let range = Ipv4Net::new_assert(address, rng.u8(24..=32)).trunc();
        list.push(range.into());
    }
    for place in &places {
        let bits = 0x2001_u128 << 112 | u128::from(*place) << 80 | u128::from(rng.u64(..)) << 16;
        let len = *rng.choice(&[48, 56, 64, 128]).expect("there are some");
        list.push(
            Ipv6Net::new_assert(Ipv6Addr::from(bits), len)
                .trunc()
                .into(),
        );
    }
    // Nobody writes a sorted list.
    rng.shuffle(&mut list);
    list
}

/// A node with all three of them.
struct Node {
    namespace: Namespace,
    scratch: TempDir,
}

impl Node {
    fn new() -> Result<Self> {
        let namespace = Namespace::new("bench")?;
        add_interface(&namespace)?;
        let node = Self {
            namespace,
            scratch: TempDir::with_prefix("apf-")?,
        };
        let interface = format!("--interface={INTERFACE}");
        Apifence::new(&node.namespace)?
            .with_ranges_file(node.file("ranges"))
            .ok(&[
                "attach",
                &interface,
                "--max-ranges",
                "1000000",
                "--authorized-ip-ranges",
                "0.0.0.0/32",
            ])?;
        node.output(Command::new("ipset").args(["create", "v4", "hash:net"]))?;
        node.output(Command::new("ipset").args(["create", "v6", "hash:net", "family", "inet6"]))?;
        Ok(node)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes each list in the three formats.
    fn write(&self, lists: &[Vec<IpNet>; 2]) -> Result<()> {
        for (number, list) in lists.iter().enumerate() {
            let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) =
                list.iter().partition(|range| matches!(range, IpNet::V4(_)));
            let mut plain = String::new();
            for range in list {
                writeln!(plain, "{range}")?;
            }
            fs::write(self.file(&format!("apifence-{number}")), plain)?;
            let elements = |ranges: &[&IpNet]| {
                let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                texts.join(",")
            };
            let table = format!(
                "add table inet bench\ndelete table inet bench\ntable inet bench {{\n\
                 set v4 {{ type ipv4_addr; flags interval; elements = {{ {} }} }}\n\
                 set v6 {{ type ipv6_addr; flags interval; elements = {{ {} }} }}\n\
                 chain input {{ type filter hook input priority 0; \
                 tcp dport {{ 443, 6443 }} ip saddr != @v4 drop; \
                 tcp dport {{ 443, 6443 }} ip6 saddr != @v6 drop; }}\n}}\n",
                elements(&v4),
                elements(&v6)
            );
            fs::write(self.file(&format!("nft-{number}")), table)?;
            let mut sets = String::new();
            for (set, family, ranges) in [("v4", "inet", &v4), ("v6", "inet6", &v6)] {
                let size = ranges.len().next_power_of_two();
                writeln!(
                    sets,
                    "create new hash:net family {family} hashsize {size} maxelem {}",
                    ranges.len() + 100
                )?;
                for range in ranges {
                    writeln!(sets, "add new {range}")?;
                }
                writeln!(sets, "swap new {set}\ndestroy new")?;
            }
            fs::write(self.file(&format!("ipset-{number}")), sets)?;
        }
        Ok(())
    }

    /// Has a contender do its task with a list; returns the milliseconds.
    fn run(&self, contender: usize, task: Task, list: usize) -> Result<f64> {
        let file = |name: &str| self.file(&format!("{name}-{list}"));
        // Its config file is there as long as it is.
        let apifence = Apifence::new(&self.namespace)?.with_ranges_file(self.file("ranges"));
        let mut command = match contender {
            0 => {
                let file = file("apifence").to_string_lossy().into_owned();
                match task {
                    Task::Set => apifence.command(&["ranges", "set", "--from-file", &file]),
                    Task::Add(range) => apifence.command(&["ranges", "add", &range.to_string()]),
                }
            }
            1 => {
                let mut nft = Command::new("nft");
                match task {
                    Task::Set => nft.arg("-f").arg(file("nft")),
                    Task::Add(range) => nft.arg(format!("add element inet bench v4 {{ {range} }}")),
                };
                nft
            }
            _ => {
                let mut ipset = Command::new("ipset");
                match task {
                    Task::Set => ipset.arg("restore").arg("-file").arg(file("ipset")),
                    Task::Add(range) => ipset.args(["add", "v4", &range.to_string()]),
                };
                ipset
            }
        };
        let started = Instant::now();
        self.output(&mut command)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }

    fn output(&self, command: &mut Command) -> Result<()> {
        let output = self.namespace.output(command)?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}
