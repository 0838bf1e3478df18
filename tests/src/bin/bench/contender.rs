//! The filters under comparison, each on a link of its own.

use std::{collections::BTreeSet, fmt::Write as _, fs, net::IpAddr, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues},
    programs::links::FdLink,
};
use fastrand::Rng;
use filter_common::layout::{
    INTERFACES, InterfaceRows, LAYOUT_VERSION, MAX_INTERFACES, REPORT_BUDGET, REPORT_HEADS,
    REPORT_WINDOW_SHIFT, ReportHead,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tests::{
    cli::{Apifence, Background},
    flood::{CLIENT, VethPair},
    foreign::{DROP, Foreign},
    mounts::BPFFS,
};

use crate::{numbers::thousands, textbook};

/// The kind of filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Drops every frame.
    Bare,
    /// An XDP program that parses frames and has no list.
    Parse,
    /// An XDP program that authorizes the client's address only.
    OneAddress,
    Apifence,
    /// `apifence` with its report budget spent before each measurement.
    ApifenceSilent,
    /// `apifence` while `apifence run` is running.
    ApifenceWatched,
    Textbook,
    XdpFilter,
    NftIngress,
    IptablesRaw,
    NftInput,
    None,
}

/// The contenders of `wanted` whose programs are installed, and notes about the others.
pub(crate) fn available<T: Copy>(wanted: &[T], kind: impl Fn(&T) -> Kind) -> (Vec<T>, Vec<String>) {
    let mut notes = Vec::new();
    let mut found = wanted.to_vec();
    found.retain(|one| {
        let note = lacks(kind(one).programs());
        let is_there = note.is_none();
        notes.extend(note);
        is_there
    });
    (found, notes)
}

/// A note about the first of these programs that is not installed.
pub(crate) fn lacks(programs: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absent = |program: &&&str| {
        !std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let program = programs.iter().find(absent)?;
    Some(format!(
        "there is no `{program}` here, so what takes it is left out (`cargo xtask setup --bench` installs it)"
    ))
}

/// A contender, set up.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) pair: &'a VethPair,
    /// `apifence run`.
    pub(crate) run: Option<Background>,
    heads: Option<PerCpuArray<MapData, [u8; size_of::<ReportHead>()]>>,
    /// What has to stay alive for the filter to work.
    program: Option<(Foreign, FdLink)>,
    apifence: Option<Apifence>,
}

impl<'a> Contender<'a> {
    /// Sets it up with that many ranges. Half of them are IPv6, and the client is listed.
    pub(crate) fn new(kind: Kind, ranges: usize, pair: &'a VethPair) -> Result<Self> {
        let mut contender = Self {
            name: kind.name().to_owned(),
            kind,
            pair,
            run: None,
            heads: None,
            program: None,
            apifence: None,
        };
        contender
            .set_up(&list(ranges))
            .with_context(|| format!("set up `{}`", kind.name()))?;
        if kind == Kind::Apifence {
            contender.name = format!("apifence, {}", thousands(ranges));
        }
        Ok(contender)
    }

    fn set_up(&mut self, list: &[IpNet]) -> Result<()> {
        let [client, client6] = CLIENT;
        match self.kind {
            Kind::None => Ok(()),
            Kind::Bare => self.hold(Foreign::with_action(DROP)?),
            Kind::Parse => self.hold(textbook::parse()?),
            Kind::OneAddress => {
                self.hold(textbook::one_address(client.parse()?, client6.parse()?)?)
            }
            Kind::Textbook => self.hold(textbook::tries(list)?),
            Kind::Apifence | Kind::ApifenceSilent | Kind::ApifenceWatched => self.apifence(list),
            Kind::XdpFilter => self.xdp_filter(list),
            Kind::NftIngress => {
                let hook = format!("ingress device \"{}\"", self.pair.interface());
                self.nft("netdev", &hook, list)
            }
            Kind::NftInput => self.nft("inet", "input", list),
            Kind::IptablesRaw => self.iptables(list),
        }
    }

    /// Attaches a program and keeps it.
    fn hold(&mut self, mut program: Foreign) -> Result<()> {
        let interface = self.pair.interface();
        let link = self.pair.node().run(|| program.attach(interface))?;
        self.program = Some((program, link));
        Ok(())
    }

    fn apifence(&mut self, list: &[IpNet]) -> Result<()> {
        let apifence = Apifence::new(self.pair.node())?;
        let pins = apifence.bpffs().with_file_name(self.pair.interface());
        let apifence = apifence.with_bpffs(&pins);
        let mut text = String::new();
        for range in list {
            writeln!(text, "{range}")?;
        }
        let scratch = TempDir::with_prefix("apf-")?;
        let file = scratch.path().join("list").to_string_lossy().into_owned();
        fs::write(&file, text)?;
        let interface = format!("--interface={}", self.pair.interface());
        let most = ["--max-ranges", "1000000"];
        let nobody = ["--authorized-ip-ranges", "0.0.0.0/32"];
        apifence.ok(&[&["attach", &interface], &most[..], &nobody[..]].concat())?;
        apifence.ok(&["ranges", "set", "--from-file", &file])?;
        let maps = pins.join(format!("layout-{LAYOUT_VERSION}/maps"));
        count_loopback(&maps)?;
        if self.kind == Kind::ApifenceSilent {
            let data = MapData::from_pin(maps.join(REPORT_HEADS))?;
            self.heads = Some(Map::PerCpuArray(data).try_into()?);
        }
        if self.kind == Kind::ApifenceWatched {
            let mut run = apifence.start(&[&["run", &interface], &most[..]].concat())?;
            run.line(|line| line.starts_with("guarding"))?;
            self.run = Some(run);
        }
        self.apifence = Some(apifence);
        Ok(())
    }

    /// xdp-filter hashes addresses and has no ranges. The nearest equivalent denies every source
    /// except the first address of each range.
    fn xdp_filter(&mut self, list: &[IpNet]) -> Result<()> {
        // Its pins are at their usual path, in the thread's own bpffs.
        tests::mounts::enter_private()?;
        let interface = self.pair.interface();
        self.command(
            "xdp-filter",
            &["load", "-m", "native", "-p", "deny", interface],
        )?;
        let open = |name| MapData::from_pin(format!("{BPFFS}/xdp-filter/{name}"));
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        // `MAP_FLAG_SRC`: the source address.
        let flags = || PerCpuValues::try_from(vec![1_u64; cpus]);
        let mut v4: PerCpuHashMap<_, [u8; 4], u64> =
            Map::PerCpuHashMap(open("filter_ipv4")?).try_into()?;
        let mut v6: PerCpuHashMap<_, [u8; 16], u64> =
            Map::PerCpuHashMap(open("filter_ipv6")?).try_into()?;
        for range in list {
            match range.network() {
                IpAddr::V4(address) => v4.insert(address.octets(), flags()?, 0)?,
                IpAddr::V6(address) => v6.insert(address.octets(), flags()?, 0)?,
            }
        }
        Ok(())
    }

    fn nft(&self, family: &str, hook: &str, list: &[IpNet]) -> Result<()> {
        let (v4, v6) = texts(list);
        let script = format!(
            "table {family} bench {{\n\
             set v4 {{ type ipv4_addr; flags interval; elements = {{ {} }} }}\n\
             set v6 {{ type ipv6_addr; flags interval; elements = {{ {} }} }}\n\
             chain guard {{ type filter hook {hook} priority 0;\n\
             tcp dport {{ 443, 6443 }} ip saddr != @v4 drop\n\
             tcp dport {{ 443, 6443 }} ip6 saddr != @v6 drop\n}}\n}}\n",
            v4.join(","),
            v6.join(",")
        );
        self.with_file("nft", &["-f"], &script)
    }

    fn iptables(&self, list: &[IpNet]) -> Result<()> {
        let (v4, v6) = texts(list);
        let mut sets = String::new();
        for (set, family, ranges) in [("v4", "inet", &v4), ("v6", "inet6", &v6)] {
            let size = ranges.len().next_power_of_two();
            writeln!(
                sets,
                "create {set} hash:net family {family} hashsize {size}"
            )?;
            for range in ranges {
                writeln!(sets, "add {set} {range}")?;
            }
        }
        self.with_file("ipset", &["restore", "-file"], &sets)?;
        for (program, set) in [("iptables", "v4"), ("ip6tables", "v6")] {
            let rule = format!(
                "-t raw -A PREROUTING -p tcp -m multiport --dports 443,6443 \
                 -m set ! --match-set {set} src -j DROP"
            );
            self.command(program, &rule.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn with_file(&self, program: &str, words: &[&str], text: &str) -> Result<()> {
        let scratch = TempDir::with_prefix("apf-")?;
        let file = scratch.path().join("input").to_string_lossy().into_owned();
        fs::write(&file, text)?;
        self.command(program, &[words, &[&file]].concat())
    }

    fn command(&self, program: &str, words: &[&str]) -> Result<()> {
        let output = self.pair.node().output(Command::new(program).args(words))?;
        ensure!(
            output.status.success(),
            "`{program} {}`: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Called at the start of a report window, before each measurement. Spends the report budget of
    /// a contender that must stay silent.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        let Some(heads) = &mut self.heads else {
            return Ok(());
        };
        let window = now()? >> REPORT_WINDOW_SHIFT;
        let mut values = Vec::new();
        for head in heads.get(&0, 0)?.iter() {
            let mut head: ReportHead = bytemuck::pod_read_unaligned(head);
            head.spent = REPORT_BUDGET;
            head.window = window;
            let mut bytes = [0; size_of::<ReportHead>()];
            bytes.copy_from_slice(bytemuck::bytes_of(&head));
            values.push(bytes);
        }
        Ok(heads.set(0, PerCpuValues::try_from(values)?, 0)?)
    }

    /// Reports that the silent contender has written so far.
    pub(crate) fn reported(&self) -> Result<Option<u64>> {
        let Some(heads) = &self.heads else {
            return Ok(None);
        };
        let written = |bytes: &[u8; size_of::<ReportHead>()]| {
            bytemuck::pod_read_unaligned::<ReportHead>(bytes).written
        };
        Ok(Some(heads.get(&0, 0)?.iter().map(written).sum()))
    }
}

impl Kind {
    /// The programs that set-up starts, besides `apifence`.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::XdpFilter => &["xdp-filter"],
            Self::NftIngress | Self::NftInput => &["nft"],
            Self::IptablesRaw => &["ipset", "iptables", "ip6tables"],
            Self::Bare
            | Self::Parse
            | Self::OneAddress
            | Self::Apifence
            | Self::ApifenceSilent
            | Self::ApifenceWatched
            | Self::Textbook
            | Self::None => &[],
        }
    }

    /// Name in the tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare XDP_DROP",
            Self::Parse => "XDP, parse and drop",
            Self::OneAddress => "XDP, one address",
            Self::Apifence => "apifence",
            Self::ApifenceSilent => "apifence, 3,500, reports off",
            Self::ApifenceWatched => "apifence, 3,500, with `run`",
            Self::Textbook => "XDP, plain LPM",
            Self::XdpFilter => "xdp-filter",
            Self::NftIngress => "nftables, netdev ingress",
            Self::IptablesRaw => "iptables raw + ipset",
            Self::NftInput => "nftables, input",
            Self::None => "no filter",
        }
    }
}

/// Current time on the clock of the reports, in nanoseconds.
pub(crate) fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// `count` ranges of each family in the flood's part of the address space, and the client's own
/// address. None holds a source of the flood, but any may be adjacent to one: their third byte or
/// group is even.
fn list(size: usize) -> Vec<IpNet> {
    let mut rng = Rng::with_seed(size as u64);
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    let each = (size / 2).saturating_sub(1);
    while v4.len() < each {
        let first = rng.u32(64..192);
        if first != 127 {
            v4.insert(first << 24 | rng.u32(0..1 << 24) & !(1 << 8 | 0xff));
        }
    }
    while v6.len() < each {
        v6.insert(0x2000 << 32 | rng.u64(0..1 << 45) & !1);
    }
    let mut list: Vec<IpNet> = Vec::new();
    for place in v4 {
        let range = Ipv4Net::new_assert((place | rng.u32(0..256)).into(), rng.u8(24..=32));
        list.push(range.trunc().into());
    }
    for place in v6 {
        let bits = u128::from(place) << 80 | u128::from(rng.u64(..)) << 16;
        let len = *rng.choice(&[48, 56, 64, 128]).expect("there are some");
        list.push(Ipv6Net::new_assert(bits.into(), len).trunc().into());
    }
    list.extend(CLIENT.map(|address| {
        let address: IpAddr = address.parse().expect("the address is written right");
        IpNet::from(address)
    }));
    list
}

/// The ranges of each family as text.
fn texts(list: &[IpNet]) -> (Vec<String>, Vec<String>) {
    let of = |wanted: bool| {
        let ranges = list
            .iter()
            .filter(move |range| range.addr().is_ipv4() == wanted);
        ranges.map(ToString::to_string).collect()
    };
    (of(true), of(false))
}

/// Test runs come in on the loopback interface, which has no counter row by default. Packets on a
/// real interface find theirs.
pub(crate) fn count_loopback(maps: &Path) -> Result<()> {
    const LOOPBACK: u32 = 1;
    let data = MapData::from_pin(maps.join(INTERFACES))?;
    let mut map: Array<_, [[u32; 2]; MAX_INTERFACES as usize]> = Map::Array(data).try_into()?;
    let mut entries = map.get(&0, 0)?;
    entries[InterfaceRows::home(LOOPBACK) as usize] = [LOOPBACK, 0];
    Ok(map.set(0, entries, 0)?)
}
