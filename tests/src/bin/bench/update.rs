//! Duration of a change of the list, and memory of the list, for `apifence`, `nft -f` and `ipset
//! restore` with the same list.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tempfile::TempDir;
use tests::{
    cli::Apifence,
    loaded::{INTERFACE, add_interface},
    netns::Namespace,
};

use crate::{
    contender::lacks,
    memory::{Group, memlock},
    numbers::thousands,
    progress::Progress,
    table::{Cell, Column, Table},
};

/// Numbers of entries, and of rounds.
type Sizes = [(usize, usize)];
const SIZES: &Sizes = &[(10, 7), (3_500, 7), (100_000, 5), (1_000_000, 3)];
const SHORT: &Sizes = &[(10, 2), (1_000, 2)];

/// Index of the size at which one entry is added.
const ADDED_TO: usize = 2;
const ADDED_TO_IN_SHORT: usize = 1;

/// The program that changes a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Apifence,
    Nft,
    Ipset,
}

impl Tool {
    const ALL: [Self; 3] = [Self::Apifence, Self::Nft, Self::Ipset];

    const fn name(self) -> &'static str {
        match self {
            Self::Apifence => "apifence",
            Self::Nft => "nft",
            Self::Ipset => "ipset",
        }
    }
}

/// The task of a contender.
#[derive(Clone, Copy)]
enum Task {
    /// Put the whole list in force.
    Set,
    /// Add an entry to it.
    Add(Ipv4Net),
}

/// Milliseconds of each contender's commands; the first is `apifence` until its list is in force.
type Times = [Vec<f64>; 4];

/// Measures times and memory.
pub(crate) fn run(short: bool) -> Result<Vec<Table>> {
    let progress = Progress::new("update");
    let (sizes, added_to) = if short {
        (SHORT, ADDED_TO_IN_SHORT)
    } else {
        (SIZES, ADDED_TO)
    };
    let node = Node::new()?;
    let mut times = Vec::new();
    let mut memory = vec![("nobody listed".to_owned(), node.memory()?)];
    for (place, (size, rounds)) in sizes.iter().enumerate() {
        let name = thousands(*size);
        let mut rng = Rng::with_seed(*size as u64);
        let lists = [list(*size, &mut rng), list(*size, &mut rng)];
        node.write(&lists)?;
        let measured = node.measure(*rounds, |round| {
            progress.show(format_args!("{name} entries: round {round} of {rounds}"));
            (Task::Set, round % 2)
        })?;
        times.push((format!("{name} entries"), cells(measured)));
        progress.show(format_args!("{name} entries: memory"));
        memory.push((format!("{name} entries"), node.memory()?));
        if place == added_to {
            let measured = node.measure(*rounds, |round| {
                progress.show(format_args!("1 more: round {round} of {rounds}"));
                (Task::Add(Ipv4Addr::new(223, 255, 0, round as u8).into()), 0)
            })?;
            times.push((format!("1 more, to {name}"), cells(measured)));
        }
    }
    let mut notes = node.lacking.clone();
    notes.push("half of the entries IPv6; another list each time, in no order".to_owned());
    let charged = match node.groups[0] {
        Some(_) => {
            "charged: kernel memory charged to a control group that the commands run in; apifence's with both generations of the list, the \
             program, and its per-CPU arrays, which the kernel charges to nobody"
        }
        None => {
            "charged: not measured, as this machine has no memory controller for control groups"
        }
    };
    let notes_of_memory = vec![
        charged.to_owned(),
        "its maps: `memlock` of them all in `bpftool map show`; by itself: `ipset list -t`, most of which the kernel charges to nobody".to_owned(),
    ];
    let column = |name| Column(name, 1);
    Ok(vec![
        Table {
            title: "Changes of the list: milliseconds from the start of the command; median (least to most)".to_owned(),
            columns: vec![
                column("apifence, in force"),
                column("apifence, end"),
                column("`nft -f`, end"),
                column("`ipset restore`, end"),
            ],
            rows: times,
            notes,
        },
        Table {
            title: "Memory of the list: MiB in the kernel".to_owned(),
            columns: [
                "apifence, charged",
                "its maps",
                "nftables, charged",
                "ipset, charged",
                "by itself",
            ]
            .map(|name| Column(name, 2))
            .to_vec(),
            rows: memory,
            notes: notes_of_memory,
        },
    ])
}

fn cells(times: Times) -> Vec<Option<Cell>> {
    let cell = |times: Vec<f64>| (!times.is_empty()).then(|| Cell::from_numbers(times));
    times.map(cell).to_vec()
}

/// Ranges that do not overlap, because nftables refuses overlaps: one in each of that many /24 and
/// /48.
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
    // Shuffled: an operator's list is not sorted.
    rng.shuffle(&mut list);
    list
}

/// A node with all three programs.
struct Node {
    namespace: Namespace,
    scratch: TempDir,
    contenders: Vec<Tool>,
    /// Notes about programs that are not installed.
    lacking: Vec<String>,
    /// A control group for each of the three, if there is a memory controller.
    groups: [Option<Group>; 3],
}

impl Node {
    /// The list is empty.
    fn new() -> Result<Self> {
        let namespace = Namespace::new("bench")?;
        add_interface(&namespace)?;
        let mut contenders = vec![Tool::Apifence];
        let mut lacking = Vec::new();
        for peer in [Tool::Nft, Tool::Ipset] {
            match lacks(&[peer.name()]) {
                None => contenders.push(peer),
                Some(note) => lacking.push(note),
            }
        }
        let group = |tool: Tool| Group::new(tool.name());
        let node = Self {
            namespace,
            scratch: TempDir::with_prefix("apf-")?,
            contenders,
            lacking,
            groups: [
                group(Tool::Apifence)?,
                group(Tool::Nft)?,
                group(Tool::Ipset)?,
            ],
        };
        let interface = format!("--interface={INTERFACE}");
        let words = [
            "attach",
            &interface,
            "--max-ranges=1000000",
            "--authorized-ip-ranges=0.0.0.0/32",
        ];
        let apifence = node.apifence()?;
        node.timed(Tool::Apifence, &mut apifence.command(&words))?;
        node.write(&[Vec::new(), Vec::new()])?;
        if node.contenders.contains(&Tool::Nft) {
            node.timed(
                Tool::Nft,
                Command::new("nft").arg("-f").arg(node.file("nft-0")),
            )?;
        }
        if node.contenders.contains(&Tool::Ipset) {
            for (set, family) in [("v4", "inet"), ("v6", "inet6")] {
                let words = ["create", set, "hash:net", "family", family];
                node.timed(Tool::Ipset, Command::new("ipset").args(words))?;
            }
        }
        Ok(node)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn apifence(&self) -> Result<Apifence> {
        Ok(Apifence::new(&self.namespace)?.with_ranges_file(self.file("ranges")))
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
                match &texts[..] {
                    [] => String::new(),
                    texts => format!("elements = {{ {} }}", texts.join(",")),
                }
            };
            let table = format!(
                "add table inet bench\ndelete table inet bench\ntable inet bench {{\n\
                 set v4 {{ type ipv4_addr; flags interval; {} }}\n\
                 set v6 {{ type ipv6_addr; flags interval; {} }}\n\
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

    /// Runs `task` for a round on each contender with this list; each round starts with another
    /// contender.
    fn measure(&self, rounds: usize, task: impl Fn(usize) -> (Task, usize)) -> Result<Times> {
        let mut times = Times::default();
        for round in 1..=rounds {
            let (task, list) = task(round);
            for turn in 0..self.contenders.len() {
                let tool = self.contenders[(round + turn) % self.contenders.len()];
                let (in_force, end) = self.run(tool, task, list)?;
                match tool {
                    Tool::Apifence => {
                        times[0].push(in_force.context("no line `in force`")?);
                        times[1].push(end);
                    }
                    Tool::Nft => times[2].push(end),
                    Tool::Ipset => times[3].push(end),
                }
            }
        }
        Ok(times)
    }

    /// Runs a contender's task with a list.
    fn run(&self, tool: Tool, task: Task, list: usize) -> Result<(Option<f64>, f64)> {
        let file = self.file(&format!("{}-{list}", tool.name()));
        // The config file exists as long as `apifence`.
        let apifence = self.apifence()?;
        let mut command = match (tool, task) {
            (Tool::Apifence, Task::Set) => {
                let file = file.to_string_lossy();
                apifence.command(&["ranges", "set", "--from-file", &*file])
            }
            (Tool::Apifence, Task::Add(range)) => {
                apifence.command(&["ranges", "add", &range.to_string()])
            }
            (Tool::Nft | Tool::Ipset, _) => Command::new(tool.name()),
        };
        match (tool, task) {
            (Tool::Apifence, _) => &mut command,
            (Tool::Nft, Task::Set) => command.arg("-f").arg(file),
            (Tool::Nft, Task::Add(range)) => {
                command.arg(format!("add element inet bench v4 {{ {range} }}"))
            }
            (Tool::Ipset, Task::Set) => command.arg("restore").arg("-file").arg(file),
            (Tool::Ipset, Task::Add(range)) => command.args(["add", "v4", &range.to_string()]),
        };
        self.timed(tool, &mut command)
    }

    /// Milliseconds from the start of the command until its line `in force`, and until its end,
    /// which must be a success.
    fn timed(&self, tool: Tool, command: &mut Command) -> Result<(Option<f64>, f64)> {
        let _inside = self.groups[tool as usize]
            .as_ref()
            .map(Group::enter)
            .transpose()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let milliseconds = || started.elapsed().as_secs_f64() * 1e3;
        let mut child = self.namespace.spawn(command)?;
        let mut in_force = None;
        let mut said = String::new();
        let stderr = child.stderr.take().context("no stderr")?;
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            if line.starts_with("in force") {
                in_force = Some(milliseconds());
            }
            writeln!(said, "{line}")?;
        }
        let status = child.wait()?;
        let end = milliseconds();
        ensure!(status.success(), "{command:?}: {}", said.trim());
        Ok((in_force, end))
    }

    /// Kernel memory of each program.
    fn memory(&self) -> Result<Vec<Option<Cell>>> {
        let cell = |bytes: u64| Cell::from_numbers(vec![bytes as f64 / f64::from(1 << 20)]);
        let charged = |tool: Tool| {
            let group = self.groups[tool as usize].as_ref();
            let group = group.filter(|_| self.contenders.contains(&tool));
            group.map(Group::charged).transpose()
        };
        let [apifence, nft, ipset] = Tool::ALL.map(charged);
        let by_itself = self.contenders.contains(&Tool::Ipset);
        let by_itself = by_itself.then(|| self.ipset_by_itself()).transpose()?;
        let maps = memlock(self.apifence()?.bpffs())?;
        let numbers = [
            apifence?.map(|bytes| bytes + maps.per_cpu_arrays),
            Some(maps.all),
            nft?,
            ipset?,
            by_itself,
        ];
        Ok(numbers.map(|bytes| bytes.map(cell)).to_vec())
    }

    /// Memory of its sets in bytes, as `ipset` reports it.
    fn ipset_by_itself(&self) -> Result<u64> {
        let output = self
            .namespace
            .output(Command::new("ipset").args(["list", "-t"]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sizes = text
            .lines()
            .filter_map(|line| line.strip_prefix("Size in memory: "));
        Ok(sizes.map(str::parse::<u64>).sum::<Result<_, _>>()?)
    }
}
