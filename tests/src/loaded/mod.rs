//! The filter as `apifence attach` loaded it, run on frames of the table by `BPF_PROG_TEST_RUN`.

mod reports;

use std::{io, iter, mem::offset_of, panic::resume_unwind, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{
        ProgramError, TestRun as _, TestRunOptions, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
    sys::SyscallError,
};
use aya_obj::programs::XdpAttachType;
use filter_common::{
    Bytes, COUNTERS_PER_INTERFACE, FlowInfo, LinkHeader, Verdict,
    layout::{
        COUNTERS, InterfaceRows, LAYOUT_VERSION, POLICY, POLICY_HEADERS, PROVISIONAL, PolicyHeader,
        PolicyRecord, SELECTOR, SLOTS,
    },
};

use reports::Reports;

use nix::time::{ClockId, clock_gettime};

use crate::{cli::Apifence, netns::Namespace, packets::end_of_packet, table::Rules};

/// One end of a pair that is down, so that no other frame gets into the counters.
pub const INTERFACE: &str = "quiet";
/// A device whose frames start with the IP header, without other traffic.
pub const HEADLESS: &str = "headless";

/// Packets and bytes.
type Count = [u64; 2];

/// An attached filter.
pub struct Filter {
    programs: Vec<(LinkHeader, Xdp)>,
    counters: PerCpuArray<MapData, Count>,
    reports: Reports,
    last: Vec<Count>,
}

/// Writes the lists of ports with lists of their own, and the config file that names them.
pub fn write_own_lists(apifence: &Apifence, rules: Rules) -> Result<()> {
    let mut config = String::new();
    for (number, (ports, ranges)) in rules.own_lists().iter().enumerate() {
        let name = format!("list-{number}");
        apifence.write_list_of(&name, ranges.join("\n") + "\n")?;
        config += &format!("[[guard]]\nports = {ports:?}\nlists = ['{name}']\n");
    }
    apifence.write_config(config)
}

impl Filter {
    /// Attaches it inside `namespace` under `rules`; it stays as long as the namespace.
    pub fn attach(namespace: &Namespace, rules: Rules) -> Result<Self> {
        add_interface(namespace)?;
        namespace.ip(&format!("tuntap add dev {HEADLESS} mode tun"))?;
        let apifence = Apifence::new(namespace)?;
        let apifence = {
            let directory = apifence.bpffs().with_file_name(format!("{rules:?}"));
            apifence.with_bpffs(directory)
        };
        let ranges = match rules.ranges() {
            none if none.is_empty() => "192.0.2.1".to_owned(),
            ranges => ranges.join(","),
        };
        let mut words = vec![
            "attach".to_owned(),
            format!("--interface={INTERFACE},{HEADLESS}"),
        ];
        words.push(format!("--authorized-ip-ranges={ranges}"));
        write_own_lists(&apifence, rules)?;
        words.extend(rules.options());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        apifence.ok(&words)?;
        if rules.ranges().is_empty() {
            apifence.ok(&["ranges", "clear"])?;
        }
        let filter = Self::open(&apifence, namespace.ifindex(INTERFACE)?)?;
        let filter = filter.and(Self::open(&apifence, namespace.ifindex(HEADLESS)?)?);
        match rules {
            Rules::Unfilled => select_the_other_slot(&apifence)?,
            Rules::Decapsulating => decapsulate(&apifence)?,
            _ => {}
        }
        Ok(filter)
    }

    /// Opens the filter that `apifence` attached to an interface.
    pub fn open(apifence: &Apifence, ifindex: u32) -> Result<Self> {
        let layout = apifence.bpffs().join(format!("layout-{LAYOUT_VERSION}"));
        let maps = layout.join("maps");
        let counters =
            MapData::from_pin(maps.join(COUNTERS)).context("open the pinned counters")?;
        let link = layout.join(format!("interfaces/{ifindex}/link"));
        let mut filter = Self {
            reports: Reports::open(&maps)?,
            programs: vec![program(&link)?],
            counters: Map::PerCpuArray(counters).try_into()?,
            last: Vec::new(),
        };
        filter.last = filter.counted()?;
        Ok(filter)
    }

    /// The programs of both.
    pub fn and(mut self, other: Self) -> Self {
        self.programs.extend(other.programs);
        self
    }

    /// The program's verdict on an Ethernet frame.
    pub fn judge(&mut self, frame: &[u8], linear: Option<usize>) -> Result<Verdict> {
        let frame = Bytes {
            link_header: LinkHeader::Ethernet,
            bytes: frame,
        };
        Ok(self.judge_and_report(frame, linear)?.0)
    }

    /// The program's verdict on `frame`, and its report. The frame must be counted once, without
    /// other counters, and must come back unchanged. A report must be there if and only if the
    /// verdict is a drop, or would be.
    ///
    /// The report budget is renewed first.
    ///
    /// With `linear`, only that many bytes of the frame are in its first buffer (Linux 6.18, see
    /// [`splits`](Self::splits)).
    pub fn judge_and_report(
        &mut self,
        frame: Bytes<'_>,
        linear: Option<usize>,
    ) -> Result<(Verdict, Option<FlowInfo>)> {
        self.reports.renew()?;
        let action = self.run(frame, linear)?;
        let now = self.counted()?;
        let before = std::mem::replace(&mut self.last, now);
        let changed: Vec<_> = iter::zip(&before, &self.last)
            .enumerate()
            .filter(|(_, (before, now))| before != now)
            .map(|(slot, (before, now))| (slot, [now[0] - before[0], now[1] - before[1]]))
            .collect();
        let [(slot, counted)] = changed[..] else {
            bail!("counters changed in {} places: {changed:?}", changed.len());
        };
        // A second buffer that holds only padding may be missing.
        let padding = |linear: &usize| end_of_packet(frame).is_some_and(|end| end <= *linear);
        let len = frame.bytes.len();
        let lens = [Some(len), linear.filter(padding)];
        ensure!(
            counted[0] == 1 && lens.contains(&Some(counted[1] as usize)),
            "counted {counted:?} packets and bytes instead of 1 and one of {lens:?}"
        );
        let verdict = Verdict::all()
            .find(|verdict| verdict.index() as usize == slot)
            .with_context(|| format!("slot {slot} has no verdict"))?;
        // `XDP_DROP` and `XDP_PASS`.
        let want = match verdict {
            Verdict::Drop(_) => 1,
            Verdict::Pass(_) | Verdict::WouldDrop(_) => 2,
        };
        ensure!(
            action == want,
            "{verdict:?} was counted, action {action} came back"
        );
        let report = self.reports.newest()?;
        ensure!(
            report.is_some() != matches!(verdict, Verdict::Pass(_)),
            "{verdict:?} was counted, and {report:?} reported"
        );
        if let Some(report) = report {
            ensure!(
                usize::from(report.verdict) == slot && report.frame_len as usize == len,
                "{verdict:?} on {len} bytes was counted, and {report:?} reported",
            );
        }
        Ok((verdict, report.map(|report| report.flow_info())))
    }

    /// Number of dropped packets of test runs.
    pub fn dropped(&self) -> Result<u64> {
        let counted = self.counted()?;
        let of = |verdict: &Verdict| counted[verdict.index() as usize][0];
        let drops = Verdict::all().filter(|verdict| matches!(verdict, Verdict::Drop(_)));
        Ok(drops.map(|verdict| of(&verdict)).sum())
    }

    /// The program on the interface that the filter was opened for.
    pub fn program(&self) -> &Xdp {
        &self.programs[0].1
    }

    /// Whether this kernel lets a test choose the linear part of a frame.
    pub fn splits(&mut self) -> Result<bool> {
        let ran = self.program().test_run(options(&[0; 100], &context(50)));
        self.last = self.counted()?;
        match ran {
            Ok(_) => Ok(true),
            Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::InvalidInput =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn run(&self, frame: Bytes<'_>, linear: Option<usize>) -> Result<u32> {
        let Bytes {
            link_header,
            bytes: frame,
        } = frame;
        let (_, program) = self
            .programs
            .iter()
            .find(|(found, _)| *found == link_header)
            .with_context(|| format!("no program for {link_header:?} is attached"))?;
        let context = linear.map(context);
        let result = program.test_run(match &context {
            Some(context) => options(frame, context),
            None => TestRunOptions {
                data_in: Some(frame),
                ..TestRunOptions::new()
            },
        });
        Ok(result
            .with_context(|| format!("run the program on a frame of {} bytes", frame.len()))?
            .return_value)
    }

    /// Every counter, summed over the CPUs.
    fn counted(&self) -> Result<Vec<Count>> {
        (0..COUNTERS_PER_INTERFACE)
            .map(|slot| {
                // Test runs come in on the loopback interface, which never has a counter row.
                let index = InterfaceRows::index(InterfaceRows::NO_ROW, slot);
                let of_cpus = self.counters.get(&index, 0)?;
                Ok(of_cpus
                    .iter()
                    .fold([0, 0], |sum, cpu| [sum[0] + cpu[0], sum[1] + cpu[1]]))
            })
            .collect()
    }
}

/// Adds [`INTERFACE`] to `namespace`.
pub fn add_interface(namespace: &Namespace) -> Result<()> {
    namespace
        .ip(&format!("link add {INTERFACE} type veth peer name peer"))
        .map(drop)
}

fn options<'a>(frame: &'a [u8], context: &'a [u8]) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    }
}

/// `struct xdp_md`: `data`, `data_end`, `data_meta`, and the interface of the frame.
fn context(linear: usize) -> Vec<u8> {
    let linear = u32::try_from(linear).expect("a frame is short");
    [0, linear, 0, 0, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}

/// Activates the other slot, which has been empty since the attach.
pub fn select_the_other_slot(apifence: &Apifence) -> Result<()> {
    let maps = apifence
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/maps"));
    let selector = MapData::from_pin(maps.join(SELECTOR)).context("open the pinned selector")?;
    let mut selector: Array<MapData, u32> = Map::Array(selector).try_into()?;
    let slot = selector.get(&0, 0)?;
    Ok(selector.set(0, slot ^ 1, 0)?)
}

/// Ends the pending provisional change: puts its deadline on the filter's clock into the past. So a
/// test can give it a time long enough for any machine, and need not wait.
pub fn lapse(apifence: &Apifence) -> Result<()> {
    let maps = apifence
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/maps"));
    let open = |name| -> Result<Map> { Ok(Map::Array(MapData::from_pin(maps.join(name))?)) };
    let selector: Array<MapData, u32> = open(SELECTOR)?.try_into()?;
    let word = selector.get(&0, 0)?;
    ensure!(word & PROVISIONAL != 0, "no change is on trial");
    let mut records: Array<MapData, [u8; size_of::<PolicyRecord>()]> = open(POLICY)?.try_into()?;
    let slot = word & !PROVISIONAL;
    let mut record = records.get(&slot, 0)?;
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?).as_nanos() as u64;
    let at = offset_of!(PolicyRecord, fallback_at);
    record[at..at + size_of::<u64>()].copy_from_slice(&now.to_ne_bytes());
    Ok(records.set(slot, record, 0)?)
}

/// Makes the active header say that this node decapsulates in every way; not every kernel can be
/// configured so.
pub fn decapsulate(apifence: &Apifence) -> Result<()> {
    let maps = apifence
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/maps"));
    let headers =
        MapData::from_pin(maps.join(POLICY_HEADERS)).context("open the pinned headers")?;
    let mut headers: Array<MapData, [u8; size_of::<PolicyHeader>()]> =
        Map::Array(headers).try_into()?;
    let write = move || -> Result<()> {
        for slot in 0..SLOTS {
            let mut bytes = headers.get(&slot, 0)?;
            bytes[offset_of!(PolicyHeader, decapsulates)] = u8::MAX;
            headers.set(slot, bytes, 0)?;
        }
        Ok(())
    };
    // Several copies of a header fill the stack of a test's thread.
    let writing = thread::Builder::new().stack_size(16 << 20).spawn(write)?;
    writing.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The program of a pinned link.
fn program(link: &Path) -> Result<(LinkHeader, Xdp)> {
    let pinned =
        PinnedLink::from_pin(link).with_context(|| format!("open link `{}`", link.display()))?;
    let id = FdLink::from(pinned).info()?.program_id();
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .with_context(|| format!("program {id} of the link is not loaded"))?;
    let link_header = LinkHeader::ALL
        .into_iter()
        .find(|link_header| info.name_as_str() == Some(link_header.program()))
        .with_context(|| format!("program {id} has another name than ours"))?;
    let name = link_header.program().into();
    let program = Xdp::from_program_info(info, name, XdpAttachType::Interface)?;
    Ok((link_header, program))
}

/// Requires that no line is there: each names a frame that was not treated as wanted.
pub fn none_wrong(wrong: &[String]) -> Result<()> {
    let shown: Vec<_> = wrong.iter().take(60).map(String::as_str).collect();
    ensure!(
        wrong.is_empty(),
        "{} wrong, first of them:\n{}",
        wrong.len(),
        shown.join("\n")
    );
    Ok(())
}
