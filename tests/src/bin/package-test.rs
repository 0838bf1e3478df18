//! The life of the package on a node: a Debian root with systemd, booted in a container in a
//! network namespace of the harness.
//!
//! Installs, lists, starts, reloads, kills, upgrades and downgrades under a flood and a listed
//! transfer, removes and purges. Exit status 0 only if every step was observed. Without the package
//! of the version before, it neither upgrades nor downgrades.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    net::{Echo, SILENCE, exchange, silent},
    site::{ADMIN_RANGES, Family, NODE, Site, UNLISTED, at, ip},
    wait::{PATIENCE, until},
};

const PORT: u16 = 6443;
/// The exposure that `systemd-analyze security` may see in the unit at most.
const EXPOSURE: f32 = 2.2;
/// How long the flood may go on at most.
const LONGEST_FLOOD: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// A Debian root with systemd, which is changed
    #[arg(long)]
    root: PathBuf,
    /// The package of the version before
    #[arg(long)]
    previous: Option<PathBuf>,
    /// The package to try
    #[arg(long)]
    package: PathBuf,
}

fn main() -> ExitCode {
    let started = Instant::now();
    match run(&Arguments::parse()) {
        Ok(()) => {
            println!(
                "every step was observed in {:.1} s",
                started.elapsed().as_secs_f32()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: try the package: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the container has the package to try.
const PACKAGE: &str = "/packages/package.deb";
/// Where it has the package of the version before.
const PREVIOUS: &str = "/packages/previous.deb";

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments {
        root,
        previous,
        package,
    } = arguments;
    fs::create_dir_all(root.join("packages")).context("make a directory for the packages")?;
    let with_previous = previous.iter().map(|file| (file, PREVIOUS));
    for (file, place) in with_previous.chain([(package, PACKAGE)]) {
        let place = place.trim_start_matches('/');
        fs::copy(file, root.join(place)).with_context(|| format!("copy `{}`", file.display()))?;
    }
    let site = Site::new()?;
    let _server = Echo::new(&site.node, PORT)?;
    let node = step("boot", || Container::boot(root, &site))?;
    match previous {
        Some(_) => {
            install(&node, &site, "the version before", PREVIOUS)?;
            serve(&node, &site)?;
            let old = node.run("apifence --version")?;
            upgrade(&node, &site, &old)?;
            inspect_unit(&node)?;
            downgrade_and_upgrade(&node, &site, &old)?;
        }
        None => {
            install(&node, &site, "the package", PACKAGE)?;
            serve(&node, &site)?;
            inspect_unit(&node)?;
        }
    }
    feed(&node, &site)?;
    remove_and_purge(&node, &site)?;
    step("power off", || node.power_off())
}

/// Installs the package `name`, which attaches nothing.
fn install(node: &Container, site: &Site, name: &str, package: &str) -> Result<()> {
    let said = step(&format!("install {name}"), || {
        node.run(&format!("dpkg -i {package} 2>&1"))
    })?;
    ensure!(
        said.contains("systemctl enable --now apifence"),
        "installing does not say the next command: {said}"
    );
    unlisted_gets_in(site).context("installing attaches nothing")?;
    ensure!(
        node.run("systemctl is-enabled apifence || true")?.trim() == "disabled",
        "installing enabled the unit"
    );
    let lists = node.run("stat -c '%u:%g %a' /etc/apifence/ranges.d/kubernetes")?;
    ensure!(
        lists.trim() == "60843:60843 755",
        "the agent's directory has the owner and mode {lists}"
    );
    Ok(())
}

/// Lists, starts, reloads, kills.
fn serve(node: &Container, site: &Site) -> Result<()> {
    step("list the administrators", || {
        node.run(&format!("apifence ranges set {ADMIN_RANGES}"))
    })?;
    step("start", || node.run("systemctl start apifence"))?;
    site.is_guarded(PORT)?;
    step("reload", || node.run("systemctl reload apifence"))?;
    site.is_guarded(PORT)?;
    step("SIGKILL, and the service is back", || {
        let killed = node.main_pid()?;
        node.run(&format!("kill -KILL {killed}"))?;
        site.is_guarded(PORT).context("while `run` is dead")?;
        until("the service is back", || {
            let pid = node.main_pid()?;
            Ok(pid != "0"
                && pid != killed
                && node.run("systemctl is-active apifence || true")?.trim() == "active")
        })
    })?;
    site.is_guarded(PORT)
}

/// Upgrades from the version that says it is `old`.
fn upgrade(node: &Container, site: &Site, old: &str) -> Result<()> {
    step("upgrade under a flood and a listed transfer", || {
        under_load(site, || node.run(&format!("dpkg -i {PACKAGE} 2>&1")))
    })?;
    let new = node.run("apifence --version")?;
    ensure!(old != new, "both packages have the same program: {new}");
    node.is_ready(&new)?;
    site.is_guarded(PORT)
}

/// Downgrades to the version that says it is `old`, and upgrades from it again.
fn downgrade_and_upgrade(node: &Container, site: &Site, old: &str) -> Result<()> {
    let new = node.run("apifence --version")?;
    step("downgrade under a flood and a listed transfer", || {
        under_load(site, || {
            node.run(&format!("dpkg -i --force-downgrade {PREVIOUS} 2>&1"))
        })
    })?;
    node.is_ready(old)?;
    site.is_guarded(PORT)?;
    step("upgrade again", || {
        node.run(&format!("dpkg -i {PACKAGE} 2>&1"))
    })?;
    node.is_ready(&new)
}

/// A feed of a host name fills its list, as a user of its own.
fn feed(node: &Container, site: &Site) -> Result<()> {
    const LIST: &str = "/etc/apifence/ranges.d/office";
    let unlisted = UNLISTED[0];
    node.run(&format!(
        "mkdir -p /etc/apifence/feeds /etc/apifence/ranges.d
         echo '{unlisted} office.example.org' >>/etc/hosts
         echo 'HOST=office.example.org' >/etc/apifence/feeds/office.conf
         ln -s /var/lib/apifence-feeds/office/list {LIST}"
    ))?;
    step("feed", || node.run("systemctl start apifence-feed@office"))?;
    until("the source of the feed is let in", || {
        Ok(site.unlisted_gets_in(Family::V4, PORT).is_ok())
    })?;
    let owner = node.run(&format!("stat -L -c %U {LIST}"))?;
    ensure!(owner.trim() != "root", "the list of the feed is root's");
    node.run("apifence ranges delete --list office --force; rm -r /etc/apifence/feeds")?;
    until("the source of the feed is out", || {
        Ok(silent(&site.unlisted, ip(unlisted), at(NODE[0], PORT)).is_ok())
    })
}

/// The unit of the package: its exposure, and the limits that it sets.
fn inspect_unit(node: &Container) -> Result<()> {
    let exposure =
        node.run("systemd-analyze security --offline=true --no-pager apifence.service | tail -1")?;
    let score = exposure
        .split_whitespace()
        .find_map(|word| word.parse::<f32>().ok());
    ensure!(
        score.is_some_and(|score| score <= EXPOSURE),
        "the unit is more exposed than {EXPOSURE}: {exposure}"
    );
    println!("      {}", exposure.trim());
    if !may_raise_limits()? {
        println!("      not checked: OOMScoreAdjust and LimitNOFILE: no CAP_SYS_RESOURCE here");
        return Ok(());
    }
    let pid = node.main_pid()?;
    let limits = node.run(&format!(
        "cat /proc/{pid}/oom_score_adj; grep '^Max open files' /proc/{pid}/limits"
    ))?;
    ensure!(
        limits.starts_with("-900\n") && limits.contains(" 65536 "),
        "the service does not have the limits of its unit: {limits}"
    );
    Ok(())
}

/// Removing the package leaves the filter on; purging takes it off, and every file away.
fn remove_and_purge(node: &Container, site: &Site) -> Result<()> {
    let said = step("remove", || node.run("dpkg -r apifence 2>&1"))?;
    ensure!(
        said.contains("the filter stays on"),
        "removing does not say so: {said}"
    );
    site.is_guarded(PORT)
        .context("after the package was removed")?;
    let said = step("purge", || node.run("dpkg -P apifence 2>&1"))?;
    ensure!(
        said.contains("the filter is off"),
        "purging does not say so: {said}"
    );
    unlisted_gets_in(site).context("purging detaches")?;
    let left =
        node.run("find /etc/apifence /var/lib/apifence /sys/fs/bpf/apifence 2>/dev/null || true")?;
    ensure!(left.is_empty(), "purging left {left}");
    Ok(())
}

/// Whether this machine lets its root raise limits: some take CAP_SYS_RESOURCE away.
fn may_raise_limits() -> Result<bool> {
    /// The number of CAP_SYS_RESOURCE (include/uapi/linux/capability.h).
    const SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.context("find CapEff in `/proc/self/status`")?;
    Ok(u64::from_str_radix(effective.trim(), 16)? >> SYS_RESOURCE & 1 == 1)
}

/// Runs `work`, and prints its name and duration.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = work().with_context(|| name.to_owned())?;
    println!("{:>7.2} s  {name}", started.elapsed().as_secs_f32());
    Ok(result)
}

fn unlisted_gets_in(site: &Site) -> Result<()> {
    for family in Family::BOTH {
        site.unlisted_gets_in(family, PORT)?;
    }
    Ok(())
}

/// Runs `work` while the unlisted client floods the port and tries to connect, and the
/// administrator uses a connection. No unlisted source may get in, and the connection may not stop.
fn under_load<T>(site: &Site, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let ended = AtomicBool::new(false);
    let (sent, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    let target = at(NODE[0], PORT);
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood(site, target, &ended, &sent));
        let attempts = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                silent(&site.unlisted, ip(UNLISTED[0]), target)?;
                tried.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let transfer = scope.spawn(|| transfer(site, &ended));
        let result = work();
        // The attempt that is on its way ends by itself.
        thread::sleep(SILENCE);
        ended.store(true, Ordering::Relaxed);
        let join = |end: thread::Result<Result<()>>| match end {
            Ok(end) => end,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        join(flood.join()).context("flood")?;
        join(attempts.join()).context("an unlisted client during the change")?;
        let (exchanges, longest) = match transfer.join() {
            Ok(end) => end.context("a listed transfer during the change")?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        println!(
            "      flood: {} SYNs; unlisted: {} attempts, none answered; listed: {exchanges} \
             exchanges, the slowest {} ms",
            sent.load(Ordering::Relaxed),
            tried.load(Ordering::Relaxed),
            longest.as_millis()
        );
        result
    })
}

/// Sends SYNs of the unlisted client from one source port after the other, until `ended`.
fn flood(site: &Site, target: SocketAddr, ended: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let source: IpAddr = ip(UNLISTED[0]);
    let started = Instant::now();
    site.unlisted.run(|| {
        while !ended.load(Ordering::Relaxed) && started.elapsed() < LONGEST_FLOOD {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            // The SYN is on its way when this returns; closing the socket sends nothing.
            match socket.connect(&target.into()) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error).context("send a SYN"),
                Ok(()) => bail!("an unlisted client connected"),
            }
        }
        Ok(())
    })
}

/// Uses one connection of the administrator until `ended`. Returns the number of exchanges, and the
/// time that the slowest took.
fn transfer(site: &Site, ended: &AtomicBool) -> Result<(u64, Duration)> {
    let mut stream: TcpStream = site.admin_gets_in(Family::V4, PORT)?;
    let (mut exchanges, mut longest) = (0, Duration::ZERO);
    while !ended.load(Ordering::Relaxed) {
        let started = Instant::now();
        exchange(&mut stream, PATIENCE)?;
        longest = longest.max(started.elapsed());
        exchanges += 1;
    }
    Ok((exchanges, longest))
}

/// A booted Debian root. Dropping it ends it.
struct Container {
    nspawn: Child,
    /// Process id of its systemd, as this machine numbers processes; `None` before it runs.
    leader: Option<Pid>,
}

impl Container {
    /// Boots `root` in the namespace of the node.
    fn boot(root: &Path, site: &Site) -> Result<Self> {
        let nspawn = Command::new("systemd-nspawn")
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")
            .args(["--quiet", "--register=no", "--keep-unit", "--boot"])
            .args([
                "--capability=all",
                "--system-call-filter=bpf perf_event_open",
            ])
            .arg("--directory")
            .arg(root)
            .arg(format!("--network-namespace-path={}", site.node.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .context("start `systemd-nspawn`")?;
        let mut container = Self {
            leader: None,
            nspawn,
        };
        until("the container has a first process", || {
            if let Some(status) = container.nspawn.try_wait()? {
                bail!("`systemd-nspawn` ended: {status}");
            }
            let id = container.nspawn.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
            // A helper that sets the container up is a child for a moment, too.
            let first = children.split_whitespace().find(|child| {
                fs::read_to_string(format!("/proc/{child}/comm"))
                    .is_ok_and(|name| name.trim() == "systemd")
            });
            container.leader = first.map(str::parse).transpose()?.map(Pid::from_raw);
            Ok(container.leader.is_some())
        })?;
        until("systemd is up", || {
            let state = container.output("systemctl is-system-running")?;
            Ok(["running", "degraded"].contains(&String::from_utf8_lossy(&state.stdout).trim()))
        })?;
        // In a container systemd leaves file systems of the kernel alone.
        container.run("mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf")?;
        Ok(container)
    }

    fn output(&self, script: &str) -> Result<std::process::Output> {
        let leader = self
            .leader
            .context("find the first process of the container")?;
        Command::new("nsenter")
            .args(["--target", &leader.to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
            ])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C",
            ])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", script])
            .stdin(Stdio::null())
            .output()
            .context("run `nsenter`")
    }

    /// Runs `script` inside, and returns what it wrote to stdout; fails if it fails.
    fn run(&self, script: &str) -> Result<String> {
        let output = self.output(script)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "`{script}` in the container: {}\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }

    /// The process id of the service inside; 0 if it has none.
    fn main_pid(&self) -> Result<String> {
        let pid = self.run("systemctl show --property=MainPID --value apifence")?;
        Ok(pid.trim().to_owned())
    }

    /// Waits until the service runs the program of `version`, and the node is guarded by its files.
    fn is_ready(&self, version: &str) -> Result<()> {
        ensure!(self.run("apifence --version")? == version, "not {version}");
        until("the service is up again", || {
            let active = self.run("systemctl is-active apifence || true")?;
            Ok(active.trim() == "active"
                && self.output("apifence status --check")?.status.success())
        })
    }

    fn power_off(mut self) -> Result<()> {
        self.run("systemctl poweroff")?;
        until("the container is off", || {
            Ok(self.nspawn.try_wait()?.is_some())
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Ok(None) = self.nspawn.try_wait() {
            if let Ok(log) = self.output("journalctl --no-pager --lines=40 --unit=apifence") {
                let _ = std::io::stderr().write_all(&log.stdout);
            }
            // All processes of a PID namespace end with its first.
            match self.leader {
                Some(leader) => drop(kill(leader, Signal::SIGKILL)),
                None => drop(self.nspawn.kill()),
            }
            let _ = self.nspawn.wait();
        }
    }
}
