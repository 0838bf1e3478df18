//! A change of the list is a transaction: whatever fails, and wherever the command dies, file and
//! kernel have the old list or the new one.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use filter_common::{DropReason, PassReason, Verdict};
use nix::sys::signal::Signal;
use tests::{
    cli::Apifence,
    loaded::{Filter, INTERFACE, add_interface, lapse},
    netns::Namespace,
    packets::V4,
    site::ip,
    strace::strace,
    table,
    wait::{until, while_it_lasts},
};

/// Addresses in both lists, in one, in the other, in neither.
const SHARED: &str = "198.51.100.1";
const OLD: &str = "198.51.100.2";
const NEW: &str = "198.51.100.3";
const NEITHER: &str = "198.51.100.4";

const OLD_LIST: &str = "198.51.100.1,198.51.100.2";
const NEW_LIST: &str = "198.51.100.1,198.51.100.3";

/// A writer that changes nothing itself.
const WRITER: [&str; 4] = ["ranges", "set", SHARED, "--dry-run"];

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Old,
    New,
}

/// A filter on an interface without traffic.
struct Guarded {
    apifence: Apifence,
    filter: Filter,
}

impl Guarded {
    /// Attached with the old list.
    fn new(namespace: &Namespace) -> Result<Self> {
        add_interface(namespace)?;
        let apifence = Apifence::new(namespace)?;
        let interface = format!("--interface={INTERFACE}");
        apifence.ok(&["attach", &interface, "--authorized-ip-ranges", OLD_LIST])?;
        let filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
        Ok(Self { apifence, filter })
    }

    /// The list that packets meet: exactly one of them, for every address.
    fn kernel(&mut self) -> Result<List> {
        let mut passes = |source: &str| -> Result<bool> {
            Ok(match self.filter.judge(&syn(source), None)? {
                Verdict::Pass(PassReason::Authorized) => true,
                Verdict::Drop(DropReason::Unauthorized) => false,
                other => bail!("{source}: {other:?}"),
            })
        };
        ensure!(
            passes(SHARED)?,
            "the source that both lists hold is dropped"
        );
        ensure!(!passes(NEITHER)?, "the source in neither list passes");
        match (passes(OLD)?, passes(NEW)?) {
            (true, false) => Ok(List::Old),
            (false, true) => Ok(List::New),
            (old, new) => bail!("a mixture: old passes: {old}, new passes: {new}"),
        }
    }

    /// The list in the file.
    fn file(&self) -> Result<List> {
        let text = self.apifence.list()?;
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        let list = |last| {
            [&format!("{SHARED}/32"), &format!("{last}/32")].map(String::as_str) == lines[..]
        };
        match (list(OLD), list(NEW)) {
            (true, _) => Ok(List::Old),
            (_, true) => Ok(List::New),
            _ => bail!("the file holds neither list: `{text}`"),
        }
    }

    /// The lists in the kernel and in the file by `status`, which must change neither.
    fn status_of_both(&mut self) -> Result<(List, List)> {
        let before = (self.kernel()?, self.file()?);
        let status = self.apifence.json(&["status"])?;
        let agree = status["drift"] == serde_json::json!([]);
        ensure!(
            status["state"] == "enforcing" && agree == (before.0 == before.1),
            "{before:?}, and status says {status:#}"
        );
        ensure!(
            (self.kernel()?, self.file()?) == before,
            "changed by status"
        );
        Ok(before)
    }

    /// Runs the next writer, which changes nothing itself; afterwards file and kernel agree.
    fn agree(&mut self) -> Result<List> {
        let before = self.status_of_both()?;
        self.apifence.ok(&WRITER)?;
        let after = self.status_of_both()?;
        ensure!(after.0 == after.1, "{after:?}; before: {before:?}");
        Ok(after.0)
    }

    /// Takes back a change that is on trial. Such a change is in force and not in
    /// the file. A change that is in the file was confirmed, and the next writer completes it.
    fn end_trial(&mut self) -> Result<()> {
        let provisional = self.apifence.status("provisional")?.is_object();
        let next = self.apifence.run(&WRITER)?;
        if next.stderr.contains("is on trial") {
            ensure!(provisional, "status shows no trial");
            ensure!((self.kernel()?, self.file()?) == (List::New, List::Old));
            self.apifence.ok(&["ranges", "rollback"])?;
        } else {
            ensure!(next.code == Some(0), "{next}");
            ensure!(!provisional || self.file()? == List::New, "a trial is over");
        }
        Ok(())
    }

    /// Restores the old list, without a trace of the change.
    fn reset(&mut self) -> Result<()> {
        if self.agree()? == List::New {
            self.apifence.ok(&["ranges", "set", OLD_LIST])?;
            // The previous command may have died while it filled the slot that this one uses.
            ensure!(
                (self.kernel()?, self.file()?) == (List::Old, List::Old),
                "a change after another one that died is not whole"
            );
        }
        let left: Vec<_> = fs::read_dir(self.folder())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        ensure!(
            !left.iter().any(|name| name.ends_with(".pending")),
            "left behind: {left:?}"
        );
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        let file = self.apifence.ranges_file();
        file.parent().expect("a file is in a folder").to_owned()
    }
}

fn syn(source: &str) -> Vec<u8> {
    let IpAddr::V4(source) = ip(source) else {
        unreachable!("the sources here are IPv4")
    };
    V4::new(source, table::NODE4).syn(40_000, 6443).frame()
}

#[test]
fn a_change_that_is_killed_is_made_or_not_made() -> Result<()> {
    const KILLS: usize = 240;
    let namespace = Namespace::new("node")?;
    let mut guarded = Guarded::new(&namespace)?;
    let mut rng = Rng::with_seed(table::seed());
    let started = Instant::now();
    guarded.apifence.ok(&["ranges", "set", NEW_LIST])?;
    let whole = started.elapsed();
    let (mut old, mut new) = (0, 0);
    for kill in 0..KILLS {
        guarded.reset()?;
        let change = match kill % 4 {
            0 => vec!["ranges", "set", NEW_LIST],
            1 => vec!["ranges", "rollback"],
            2 => vec!["ranges", "set", NEW_LIST, "--confirm-within", "1h"],
            _ => {
                guarded
                    .apifence
                    .ok(&["ranges", "set", NEW_LIST, "--confirm-within", "1h"])?;
                vec!["confirm"]
            }
        };
        let mut command = guarded.apifence.start(&change)?;
        // Not a wait: it kills the command at another line each time.
        thread::sleep(whole.mul_f64(rng.f64() * 1.2));
        command.signal(Signal::SIGKILL)?;
        command.wait()?;
        let step = || format!("kill {kill}: {}", change.join(" "));
        guarded.end_trial().with_context(step)?;
        match guarded.agree().with_context(step)? {
            List::Old => old += 1,
            List::New => new += 1,
        }
    }
    // Otherwise all kills came too early or too late.
    assert!(
        old > 10 && new > 10,
        "{old} times the old list, {new} times the new"
    );
    Ok(())
}

/// The system calls by which a change of the list can fail.
const CALLS: [&str; 12] = [
    "bpf",
    "openat",
    "write",
    "fsync",
    "renameat,rename",
    "linkat,link",
    "mkdir",
    "unlink",
    "flock",
    "sendto",
    "recvfrom",
    "clone3",
];

/// Makes the change with the `number`th of `calls` failing as in `how`; returns whether there was
/// such a call.
fn disturbed(
    guarded: &Guarded,
    change: &[&str],
    calls: &str,
    how: &str,
    number: usize,
) -> Result<Option<tests::cli::Ran>> {
    let log = guarded.folder().join("strace");
    let inject = format!("inject={calls}:{how}:when={number}");
    let strace = strace(&log, &[&format!("trace={calls}"), &inject]);
    let ran = guarded.apifence.run_by(strace, change)?;
    let text = fs::read_to_string(&log)?;
    fs::remove_file(&log)?;
    let struck = text.contains("(INJECTED)") || text.contains("killed by SIGKILL");
    Ok(struck.then_some(ran))
}

#[test]
fn a_change_with_a_failing_step_is_not_made() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let mut guarded = Guarded::new(&namespace)?;
    let (mut failed, mut made) = (0, 0);
    for calls in CALLS {
        for number in 1.. {
            let change = ["ranges", "set", NEW_LIST];
            let Some(ran) = disturbed(&guarded, &change, calls, "error=EIO", number)? else {
                break;
            };
            let step = || format!("{calls} {number} failed: {ran}");
            let (kernel, file) = (
                guarded.kernel().with_context(step)?,
                guarded.file().with_context(step)?,
            );
            ensure!(!ran.stderr.contains("panicked"), "{}", step());
            match ran.code {
                // An optional call may fail.
                Some(0) => {
                    made += 1;
                    ensure!(
                        (kernel, file) == (List::New, List::New),
                        "{}: {kernel:?}, {file:?}",
                        step()
                    );
                }
                code => {
                    failed += 1;
                    ensure!(
                        (kernel, file) == (List::Old, List::Old),
                        "{}: {kernel:?}, {file:?}",
                        step()
                    );
                    // The error of a process that did not start has no hint.
                    ensure!(
                        code != Some(3) || ran.stderr.contains("hint: "),
                        "{}",
                        step()
                    );
                }
            }
            guarded.reset().with_context(step)?;
        }
        guarded.reset()?;
    }
    assert!(failed > 40, "{failed} failures, {made} changes");
    Ok(())
}

#[test]
fn every_call_of_a_change_may_be_its_last() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let mut guarded = Guarded::new(&namespace)?;
    let changing = "bpf,fsync,renameat,rename,linkat,link,unlink,write";
    let (mut old, mut new) = (0, 0);
    for change in [&["ranges", "set", NEW_LIST][..], &["confirm"]] {
        for number in 1.. {
            if change == ["confirm"] {
                guarded
                    .apifence
                    .ok(&["ranges", "set", NEW_LIST, "--confirm-within", "1h"])?;
            }
            let Some(ran) = disturbed(&guarded, change, changing, "signal=SIGKILL", number)? else {
                break;
            };
            let step = || format!("killed at call {number}: {ran}");
            guarded.end_trial().with_context(step)?;
            match guarded.agree().with_context(step)? {
                List::Old => old += 1,
                List::New => new += 1,
            }
            guarded.reset().with_context(step)?;
        }
        guarded.reset()?;
    }
    assert!(
        old > 30 && new > 10,
        "{old} times the old list, {new} times the new"
    );
    Ok(())
}

#[test]
fn no_packet_meets_a_mixture() -> Result<()> {
    const SECONDS: u64 = 4;
    let namespace = Namespace::new("node")?;
    let mut guarded = Guarded::new(&namespace)?;
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let Guarded { apifence, filter } = &mut guarded;
    thread::scope(|scope| {
        let judge = scope.spawn(|| -> Result<()> {
            let (shared, neither) = (syn(SHARED), syn(NEITHER));
            while !done.load(Ordering::Relaxed) {
                let rounds = judged.fetch_add(1, Ordering::Relaxed);
                for (what, syn, want) in [
                    ("shared", &shared, Verdict::Pass(PassReason::Authorized)),
                    ("other", &neither, Verdict::Drop(DropReason::Unauthorized)),
                ] {
                    let have = filter.judge(syn, None)?;
                    ensure!(
                        have == want,
                        "the {what} source in round {rounds}: {have:?}"
                    );
                }
            }
            Ok(())
        });
        let started = Instant::now();
        let mut swap = |swaps: u64| -> Result<()> {
            apifence.ok(&["ranges", "set", [NEW_LIST, OLD_LIST][swaps as usize % 2]])?;
            // However little CPU time the judge gets.
            until("packets are judged", || {
                Ok(judge.is_finished() || judged.load(Ordering::Relaxed) > 100 * swaps)
            })
        };
        let swapped = (0..)
            .take_while(|swaps| *swaps <= 10 || started.elapsed().as_secs() < SECONDS)
            .try_for_each(&mut swap);
        done.store(true, Ordering::Relaxed);
        judge.join().expect("the judge does not panic")?;
        swapped
    })?;
    guarded.agree().map(drop)
}

#[test]
fn an_unconfirmed_change_rolls_back() -> Result<()> {
    fn provisional(time: &str) -> [&str; 5] {
        ["ranges", "set", NEW_LIST, "--confirm-within", time]
    }
    let namespace = Namespace::new("node")?;
    let mut guarded = Guarded::new(&namespace)?;
    while_it_lasts(|time| {
        guarded.apifence.ok(&provisional(time))?;
        ensure!(guarded.kernel()? == List::New && guarded.file()? == List::Old);
        Ok(())
    })?;
    // No process of apifence runs; the program rolls back by itself.
    until(
        "the old list returns",
        || Ok(guarded.kernel()? == List::Old),
    )?;
    let ran = guarded.apifence.run(&["confirm"])?;
    tests::cli::refused(&ran, tests::cli::FAILED, &["confirm change", "none waits"])?;
    assert_eq!(guarded.agree()?, List::Old);

    // While a change waits, no other change is possible, and the file holds the old list.
    guarded.apifence.ok(&provisional("1h"))?;
    for change in [
        &["ranges", "add", NEITHER][..],
        &["ranges", "set", OLD_LIST],
        &["ranges", "clear"],
        &["attach", "--interface", INTERFACE],
        &provisional("2h"),
    ] {
        let ran = guarded.apifence.run(change)?;
        tests::cli::refused(&ran, tests::cli::FAILED, &["is on trial"])?;
    }
    assert_eq!((guarded.kernel()?, guarded.file()?), (List::New, List::Old));
    let left = guarded.apifence.status("provisional")?["seconds_left"].clone();
    ensure!(matches!(left.as_u64(), Some(3_000..=3_600)), "{left}");
    guarded.apifence.ok(&["confirm"])?;
    assert_eq!(guarded.agree()?, List::New);

    // Rolled back by hand.
    guarded
        .apifence
        .ok(&["ranges", "set", OLD_LIST, "--confirm-within", "1h"])?;
    assert_eq!(guarded.kernel()?, List::Old);
    guarded.apifence.ok(&["ranges", "rollback"])?;
    assert_eq!(guarded.agree()?, List::New);

    // After a reboot there are no maps, and the file has the old list.
    guarded
        .apifence
        .ok(&["ranges", "set", OLD_LIST, "--confirm-within", "1h"])?;
    fs::remove_dir_all(guarded.apifence.bpffs())?;
    until("the interface is free", || {
        Ok(!namespace
            .ip(&format!("link show {INTERFACE}"))?
            .contains("xdp"))
    })?;
    let interface = format!("--interface={INTERFACE}");
    guarded.apifence.ok(&["attach", &interface])?;
    guarded.filter = Filter::open(&guarded.apifence, namespace.ifindex(INTERFACE)?)?;
    assert_eq!(guarded.agree()?, List::New);
    guarded.reset()
}

#[test]
fn a_first_attach_on_trial_leaves_the_port_as_it_was() -> Result<()> {
    let namespace = Namespace::new("node")?;
    add_interface(&namespace)?;
    let apifence = Apifence::new(&namespace)?;
    let interface = format!("--interface={INTERFACE}");
    let attach = [
        "attach",
        &interface,
        "--authorized-ip-ranges",
        OLD_LIST,
        "--confirm-within",
        "1h",
    ];
    apifence.ok(&attach)?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let mut unlisted = || filter.judge(&syn(NEITHER), None);
    assert_eq!(unlisted()?, Verdict::Drop(DropReason::Unauthorized));
    assert!(!apifence.ranges_file().exists());
    lapse(&apifence)?;
    assert_eq!(unlisted()?, Verdict::Pass(PassReason::EnforcementOff));
    apifence.ok(&attach)?;
    apifence.ok(&["confirm"])?;
    assert_eq!(unlisted()?, Verdict::Drop(DropReason::Unauthorized));
    ensure!(apifence.list()?.contains(OLD));
    ensure!(apifence.status("drift")? == serde_json::json!([]));
    Ok(())
}
