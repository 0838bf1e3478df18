//! The node: the real filter, its reports, and its verdicts.

use std::{
    fs,
    net::{IpAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use filter_common::{DropReason, PassReason, Verdict as Judged};
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;
use tests::{
    cli::{Apifence, Ran},
    loaded::Filter,
    net::{Echo, SILENCE, connect, open},
    packets::{V4, V6},
    site::{INTERFACE, NODE, Site, at, ip},
    table::{NODE4, NODE6},
};

use super::{
    list::List,
    model::{HELD, IMPLICIT, Life, Mode, Policy, Verdict, net},
    world::World,
};

const PORT: u16 = 6443;

/// Addresses to query at each step: inside some ranges, inside all of a family, outside.
const ASKED: [&str; 8] = [
    "203.0.113.9",
    "203.0.113.10",
    "203.0.113.2",
    "203.0.113.77",
    "203.0.113.200",
    "198.51.100.7",
    "2001:db8:bb::9",
    "2001:db8:bb:1::1",
];

/// Sources of real packets.
pub(crate) const REAL_SOURCES: [&str; 2] = ["203.0.113.9", "2001:db8:bb::9"];

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    Timestamp::now().as_nanosecond() as f64 / 1e9
}

/// A filter on a node, with connections through it that stay open.
pub(crate) struct Node<'a> {
    pub(crate) apifence: Apifence,
    site: &'a Site,
    filter: Option<Filter>,
    _server: Echo,
    _held: Vec<TcpStream>,
}

impl<'a> Node<'a> {
    /// With `world` in force, which authorizes the held connections.
    pub(crate) fn new(site: &'a Site, world: &World) -> Result<Self> {
        site.add_unlisted(HELD[1])?;
        let apifence = Apifence::new(&site.node)?;
        let server = Echo::new(&site.node, PORT)?;
        apifence.write_list(world.file.text())?;
        apifence.ok(&[
            "attach",
            "--interface",
            INTERFACE,
            "--cluster-cidrs",
            IMPLICIT[2].0,
        ])?;
        let held = HELD.map(|source| {
            let node = NODE[usize::from(source.contains(':'))];
            open(&site.unlisted, ip(source), at(node, PORT))
        });
        let mut node = Self {
            apifence,
            site,
            filter: None,
            _server: server,
            _held: held.into_iter().collect::<Result<_>>()?,
        };
        node.reopen()?;
        Ok(node)
    }

    /// Called after every attach.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        let ifindex = self.site.node.ifindex(INTERFACE)?;
        self.filter = Some(Filter::open(&self.apifence, ifindex)?);
        Ok(())
    }

    pub(crate) fn text(&self) -> Result<String> {
        self.apifence.list()
    }

    /// The lists of the history, the newest last, and whether each has a known author.
    pub(crate) fn history(&self) -> Result<Vec<(String, bool)>> {
        let folder = self.apifence.history_directory();
        let mut kept = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none() {
                let noted = path.with_extension("json").exists();
                kept.push((path.clone(), fs::read_to_string(path)?, noted));
            }
        }
        kept.sort();
        Ok(kept
            .into_iter()
            .map(|(_, text, noted)| (text, noted))
            .collect())
    }

    pub(crate) fn on_trial(&self) -> Result<bool> {
        Ok(self.status()?["provisional"].is_object())
    }

    fn status(&self) -> Result<Value> {
        self.apifence.json(&["status"])
    }

    /// Fails unless the node agrees with `world`; with `real`, sends packets over the wire, too.
    pub(crate) fn agrees(&mut self, world: &World, real: Option<&str>) -> Result<()> {
        ensure!(
            self.text()? == world.file.text(),
            "the file holds\n{}\nand should hold\n{}",
            self.text()?,
            world.file.text()
        );
        let kept = self.history()?;
        ensure!(
            kept == world.history,
            "the history is {kept:#?}\nand should be {:#?}",
            world.history
        );
        let started = now();
        let packets = self.packets(&world.policy)?;
        let status = self.status()?;
        let list = self.apifence.json(&["ranges", "list"])?;
        let checks = self.check()?;
        let real = real
            .map(|source| anyhow::Ok((source, self.send_syn(source)?)))
            .transpose()?;
        let (from, to) = (started - 1.0, now() + 1.0);
        let steady = !world
            .expiries()
            .iter()
            .any(|time| (from..to).contains(&(*time as f64)));
        self.status_agrees(world, &status)?;
        if !steady {
            return Ok(());
        }
        let now = started as i64;
        listed(world, &status, &list, now)?;
        ensure!(packets.is_none(), "{}", packets.unwrap_or_default());
        checked(world, &checks, now)?;
        if let Some((source, passed)) = real {
            let want = world.policy.verdict(ip(source), now) != Verdict::Drop;
            ensure!(
                passed == want,
                "a SYN from {source}: answered {passed}, and should be: {want}"
            );
        }
        Ok(())
    }

    /// Checks the parts of `status` that do not depend on the time.
    fn status_agrees(&self, world: &World, status: &Value) -> Result<()> {
        let state = world.policy.state();
        ensure!(
            status["state"] == state,
            "status says {}, and it is {state}",
            status["state"]
        );
        let on_trial = world.trial.is_some();
        ensure!(
            status["provisional"].is_object() == on_trial,
            "on trial: {on_trial}, and {status:#}"
        );
        let known = known(world);
        let agree = known.means(&world.policy.list);
        ensure!(
            (status["drift"] == serde_json::json!([])) == agree,
            "the file is in force: {agree}, and status says {:#}",
            status["drift"]
        );
        Ok(())
    }

    /// The packets whose verdict differs from `policy`.
    fn packets(&mut self, policy: &Policy) -> Result<Option<String>> {
        let now = now() as i64;
        for source in ASKED {
            let (want, have) = (policy.verdict(ip(source), now), self.judge(source)?);
            if want != have {
                return Ok(Some(format!(
                    "a packet from {source} meets {have:?}, and should meet {want:?}"
                )));
            }
        }
        Ok(None)
    }

    /// The program's verdict on a SYN.
    fn judge(&mut self, source: &str) -> Result<Verdict> {
        let frame = match ip(source) {
            IpAddr::V4(source) => V4::new(source, NODE4).syn(40_000, PORT).frame(),
            IpAddr::V6(source) => V6::new(source, NODE6).syn(40_000, PORT).frame(),
        };
        let filter = self.filter.as_mut().context("no filter is attached")?;
        Ok(match filter.judge(&frame, None)? {
            Judged::Pass(PassReason::Authorized | PassReason::EnforcementOff) => Verdict::Pass,
            Judged::WouldDrop(DropReason::Unauthorized) => Verdict::WouldDrop,
            Judged::Drop(DropReason::Unauthorized) => Verdict::Drop,
            other => bail!("{source}: {other:?}"),
        })
    }

    /// The verdicts on all queried addresses.
    pub(crate) fn verdicts(&mut self) -> Result<Vec<Verdict>> {
        ASKED.into_iter().map(|source| self.judge(source)).collect()
    }

    /// The verdicts of `policy` on them.
    pub(crate) fn wanted(policy: &Policy, now: i64) -> Vec<Verdict> {
        ASKED
            .into_iter()
            .map(|source| policy.verdict(ip(source), now))
            .collect()
    }

    fn check(&self) -> Result<(Ran, Value)> {
        let ran = self
            .apifence
            .run(&[&["-o", "json", "check"], &ASKED[..]].concat())?;
        let answer = serde_json::from_str(&ran.stdout).with_context(|| format!("{ran}"))?;
        Ok((ran, answer))
    }

    /// Whether a real SYN is answered. The connection is reset at once, so that no state is left.
    fn send_syn(&self, source: &str) -> Result<bool> {
        let node = NODE[usize::from(source.contains(':'))];
        let wait = |time: Duration| connect(&self.site.unlisted, ip(source), at(node, PORT), time);
        match wait(SILENCE) {
            Ok(stream) => {
                let socket = socket2::Socket::from(stream);
                socket.set_linger(Some(Duration::ZERO))?;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The list that belongs to the policy in force.
fn known(world: &World) -> &List {
    let on_trial = world.trial.as_ref().and_then(|trial| trial.list.as_ref());
    on_trial.unwrap_or(&world.file)
}

fn second(value: &Value) -> Result<Option<i64>> {
    let time = value.as_str().map(str::parse::<Timestamp>).transpose()?;
    Ok(time.map(Timestamp::as_second))
}

/// The output of `ranges list`, and the number of ranges by `status`.
fn listed(world: &World, status: &Value, list: &Value, now: i64) -> Result<()> {
    let Policy { list: want, .. } = &world.policy;
    ensure!(
        list["source"] == "kernel" && list["enforced"] == !want.is_off(),
        "off: {}, and {list:#}",
        want.is_off()
    );
    let known = known(world);
    let is_known = known.means(want);
    let rows = list["ranges"].as_array().context("no rows")?;
    let of = |origin: &str| {
        let found = rows.iter().filter(|row| {
            row["origins"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == origin))
        });
        let mut ranges: Vec<IpNet> = found
            .map(|row| net(row["range"].as_str().unwrap_or_default()))
            .collect();
        ranges.sort_unstable();
        ranges
    };
    ensure!(
        of("list") == want.ranges(),
        "listed are {:?}, and should be {:?}",
        of("list"),
        want.ranges()
    );
    for (range, origin) in IMPLICIT {
        ensure!(
            of(origin).contains(&net(range)),
            "{range} is not of {origin}: {list:#}"
        );
    }
    let mut alive = 0;
    for row in rows {
        let range: IpNet = row["range"].as_str().context("no range")?.parse()?;
        let Some(entry) = want.longest(range) else {
            continue;
        };
        let life = world.policy.life(range, now).context("it is listed")?;
        alive += usize::from(life > Life::Expired);
        let until = second(&row["in_force_until"])?;
        let agrees = match life {
            Life::Expired => until.is_some_and(|time| time <= now),
            Life::Until(time) => until == Some(time),
            Life::Forever => until.is_none(),
        };
        ensure!(agrees, "{range} lives: {life:?}, and {row:#}");
        if is_known {
            let entry = known.longest(range).unwrap_or(entry);
            ensure!(
                row["comment"].as_str() == entry.comment.as_deref()
                    && second(&row["expires"])? == entry.expires,
                "{entry:?}, and {row:#}"
            );
        }
    }
    let counted = status["origins"]["list"].as_u64().unwrap_or(0);
    ensure!(
        counted == alive as u64,
        "{alive} listed ranges live, and status counts {counted}"
    );
    Ok(())
}

/// The answer of `check`.
fn checked(world: &World, (ran, answer): &(Ran, Value), now: i64) -> Result<()> {
    let Policy { list, mode } = &world.policy;
    let mut all = true;
    for (index, source) in ASKED.into_iter().enumerate() {
        let answer = &answer["results"][index];
        let want = world.policy.verdict(ip(source), now);
        let word = match want {
            Verdict::Pass => "pass",
            Verdict::WouldDrop => "would_drop",
            Verdict::Drop => "drop",
        };
        let allowed = want != Verdict::Drop;
        all &= allowed;
        ensure!(
            answer["verdict"] == word
                && answer["allowed"] == allowed
                && answer["contradiction"] == false,
            "{source} in {mode:?} should be {word}: {answer:#}"
        );
        // The narrowest range that authorizes it, if there is one.
        let alive = |expires: Option<i64>| expires.is_none_or(|time| time > now);
        let listed = list
            .entries()
            .filter(|entry| alive(entry.expires))
            .map(|entry| entry.range);
        let implicit = IMPLICIT.iter().map(|(range, _)| net(range));
        let around = listed
            .chain(implicit)
            .filter(|range| range.contains(&ip(source)));
        let narrowest = around.max_by_key(IpNet::prefix_len);
        if known(world).means(list) {
            let range = answer["range"].as_str().map(net);
            ensure!(
                range == narrowest,
                "{source} is let in by {narrowest:?}, and {answer:#}"
            );
            let entry = narrowest.and_then(|range| known(world).longest(range));
            let comment = entry.and_then(|entry| entry.comment);
            ensure!(
                answer["comment"].as_str() == comment.as_deref(),
                "{comment:?}, and {answer:#}"
            );
        }
    }
    ensure!(
        ran.code == Some(i32::from(!all)),
        "all allowed: {all}, and {ran}"
    );
    Ok(())
}

/// The words of a mode.
pub(crate) fn verb(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}
