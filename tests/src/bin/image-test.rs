//! The image on a node: run by runc in the network namespace of the node, with the bpffs of the
//! machine and with one of its own. Exit status 0 only if every step was observed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    mounts,
    net::Echo,
    site::{ADMIN_RANGES, Family, INTERFACE, Site},
    wait::until,
};

const PORT: u16 = 6443;

#[derive(Parser)]
struct Arguments {
    /// The image, unpacked into a bundle: `config.json` and `rootfs`
    #[arg(long)]
    bundle: PathBuf,
    /// The unit, whose capabilities the container gets
    #[arg(long)]
    unit: PathBuf,
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
            eprintln!("error: try the image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    mounts::enter_private()?;
    let site = Site::new()?;
    let _server = Echo::new(&site.node, PORT)?;
    let runc = Runc::new(arguments, &site)?;

    let private = runc.output(&["attach", "--interface", INTERFACE], Bpffs::Private)?;
    let said = String::from_utf8_lossy(&private.stderr).into_owned();
    ensure!(
        !private.status.success() && said.contains("bpffs"),
        "with a bpffs of its own: {}: {said}",
        private.status
    );
    site.unlisted_gets_in(Family::V4, PORT)?;
    println!("refused with a bpffs of its own: {}", said.trim());

    runc.ok(&["ranges", "set", ADMIN_RANGES])?;
    let mut service = runc.start(&["run", "--interface", INTERFACE])?;
    until("the node is guarded", || {
        if let Some(status) = service.try_wait()? {
            bail!("`run` ended: {status}");
        }
        Ok(runc
            .output(&["status", "--check"], Bpffs::Host)?
            .status
            .success())
    })?;
    site.is_guarded(PORT)?;
    println!("guarded by `run` in a container");
    runc.kill(&mut service)?;
    site.is_guarded(PORT)
        .context("after the container was killed")?;
    println!("still guarded after the container was killed");
    runc.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    Ok(())
}

/// The bpffs that a container sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bpffs {
    /// The machine's.
    Host,
    /// One that ends with the container.
    Private,
}

/// runc with a state directory of its own.
struct Runc {
    scratch: TempDir,
    rootfs: PathBuf,
    config: Value,
}

impl Runc {
    fn new(arguments: &Arguments, site: &Site) -> Result<Self> {
        let read = |file: &Path| {
            fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))
        };
        let mut config: Value =
            serde_json::from_str(&read(&arguments.bundle.join("config.json"))?)?;
        let unit = read(&arguments.unit)?;
        let capabilities: Vec<&str> = unit
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .context("find the capabilities in the unit")?
            .split_whitespace()
            .collect();
        let set = json!(capabilities);
        config["process"]["capabilities"] =
            json!({"bounding": set, "effective": set, "permitted": set});
        config["process"]["terminal"] = json!(false);
        config["process"]["noNewPrivileges"] = json!(true);
        config["root"]["readonly"] = json!(true);
        // As a pod of a DaemonSet with `hostPID` and `hostNetwork`.
        config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
            {"type": "network", "path": site.node.path()},
        ]);
        Ok(Self {
            scratch: TempDir::with_prefix("apf-runc-").context("make a directory")?,
            rootfs: arguments.bundle.join("rootfs"),
            config,
        })
    }

    fn command(&self, words: &[&str], bpffs: Bpffs) -> Result<Command> {
        let mut config = self.config.clone();
        let mut argv = vec!["/apifence"];
        argv.extend(words);
        config["process"]["args"] = json!(argv);
        config["root"]["path"] = json!(self.rootfs);
        let bind = |source: &Path, target: &str| {
            json!({
                "type": "bind", "source": source, "destination": target, "options": ["rbind", "rw"],
            })
        };
        let mut add = vec![match bpffs {
            Bpffs::Host => bind(Path::new(mounts::BPFFS), "/sys/fs/bpf"),
            Bpffs::Private => json!({
                "type": "bpf", "source": "bpf", "destination": "/sys/fs/bpf", "options": ["rw"],
            }),
        }];
        for (name, target) in [("etc", "/etc/apifence"), ("state", "/var/lib/apifence")] {
            let directory = self.scratch.path().join(name);
            fs::create_dir_all(&directory).context("make a volume")?;
            add.push(bind(&directory, target));
        }
        let mounts = config["mounts"].as_array_mut().context("find the mounts")?;
        // A cgroup file system is of no use to it, and this machine may have both versions.
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.extend(add);
        let bundle = TempDir::with_prefix_in("bundle-", self.scratch.path())?.keep();
        fs::write(bundle.join("config.json"), config.to_string()).context("write a bundle")?;
        let name = bundle.file_name().context("name a container")?;
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(&bundle).arg(name);
        Ok(command)
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.scratch.path().join("runc"));
        command
    }

    fn output(&self, words: &[&str], bpffs: Bpffs) -> Result<Output> {
        self.command(words, bpffs)?
            .stdin(Stdio::null())
            .output()
            .context("run `runc`")
    }

    fn ok(&self, words: &[&str]) -> Result<()> {
        let output = self.output(words, Bpffs::Host)?;
        ensure!(
            output.status.success(),
            "`apifence {}` in a container: {}\n{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn start(&self, words: &[&str]) -> Result<Child> {
        self.command(words, Bpffs::Host)?
            .stdin(Stdio::null())
            .spawn()
            .context("run `runc`")
    }

    /// Kills the container that `runc` waits for.
    fn kill(&self, runc: &mut Child) -> Result<()> {
        let list = self.runc().args(["list", "--quiet"]).output()?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        for name in list.split_whitespace() {
            let _ = self.runc().args(["kill", name, "KILL"]).status()?;
        }
        runc.wait().context("wait for `runc`")?;
        Ok(())
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        if let Ok(list) = self.runc().args(["list", "--quiet"]).output() {
            for name in String::from_utf8_lossy(&list.stdout).split_whitespace() {
                let _ = self.runc().args(["delete", "--force", name]).status();
            }
        }
    }
}
