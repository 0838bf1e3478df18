//! A run of a virtual machine, and the lines of its console.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    cards::{Emulator, QEMU_X86_64},
    case::Case,
};
use crate::target::Target;

/// The start of the line after the last case.
const END: &str = "vm-end ";

/// Lines of the console that a failure shows.
const LAST_LINES: usize = 20;

/// What to boot.
pub(super) struct Machine<'a> {
    pub(super) arch: Target,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    /// The file for the lines of the console.
    pub(super) log: &'a Path,
    /// The QEMU with the node's network cards; none for a machine without any.
    pub(super) emulator: Option<&'a Emulator>,
    /// The longest run.
    pub(super) limit: Duration,
}

/// The end of a run.
pub(super) struct Run {
    pub(super) cases: Vec<Case>,
    pub(super) seconds: u64,
    /// Why the run ended early, with the last lines of the console.
    pub(super) broken: Option<String>,
}

impl Machine<'_> {
    /// Boots the machine and waits for its end, or stops it at the limit.
    pub(super) fn run(&self) -> Result<Run> {
        let started = Instant::now();
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run QEMU")?;
        let console = child.stdout.take().context("read console of QEMU")?;
        let (sender, receiver) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let (mut lines, mut cases, mut ended) = (Vec::new(), Vec::new(), false);
        let cause = loop {
            let left = self.limit.saturating_sub(started.elapsed());
            match receiver.recv_timeout(left) {
                Ok(line) => {
                    cases.extend(Case::read(&line));
                    ended |= line.starts_with(END);
                    lines.push(line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break "the machine stopped",
                Err(mpsc::RecvTimeoutError::Timeout) => break "the time is over",
            }
        };
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().context("wait for QEMU")?;
        drop(receiver);
        let _ = reader.join();
        fs::write(self.log, lines.join("\n") + "\n").context("write lines of console")?;
        let seconds = started.elapsed().as_secs();
        let broken = (!ended).then(|| {
            let last = cases.last().map_or("none", |case| &case.name);
            let shown = &lines[lines.len().saturating_sub(LAST_LINES)..];
            format!(
                "{cause} after {seconds} s; last case: {last}; last lines of the console:\n{}",
                shown.join("\n")
            )
        });
        Ok(Run {
            cases,
            seconds,
            broken,
        })
    }

    fn command(&self) -> Command {
        let (program, machine, console) = match self.arch {
            Target::X86_64 => (QEMU_X86_64, &["-cpu", "max"][..], "ttyS0"),
            // Plain `max` emulates pointer authentication, which takes five times as long.
            Target::Aarch64 => (
                "qemu-system-aarch64",
                &[
                    "-machine",
                    "virt,gic-version=3",
                    "-cpu",
                    "max,pauth-impdef=on",
                ][..],
                "ttyAMA0",
            ),
        };
        let mut command = self
            .emulator
            .map_or_else(|| Command::new(program), Emulator::command);
        command
            .args(machine)
            .args(["-accel", "tcg,thread=multi", "-m", "1024", "-smp", "2"])
            .args([
                "-nographic",
                "-nodefaults",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .arg("-append")
            // Mitigations of the CPU's faults cost an emulated CPU most of its time.
            .arg(format!(
                "console={console} loglevel=3 panic=-1 mitigations=off"
            ));
        match self.emulator {
            Some(emulator) => emulator.connected(&command),
            None => command,
        }
    }
}
