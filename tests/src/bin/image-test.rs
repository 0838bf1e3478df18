//! The images on a node, run by runc as the pods of `deploy/kubernetes` are: the filter in the
//! network namespace of the node, with the bpffs of the machine and with one of its own; the agent
//! without any capability. Exit status 0 only if every step was observed.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
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
    /// The image of the agent, unpacked in the same way
    #[arg(long)]
    agent_bundle: PathBuf,
    /// The patch of the DaemonSet with all in it, whose capabilities the container gets
    #[arg(long)]
    manifest: PathBuf,
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
    let runc = Runc::filter(arguments, &site)?;

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
    agent(arguments, &site)
}

/// The agent: it has a version, gets its directory from root, and may do nothing else.
fn agent(arguments: &Arguments, site: &Site) -> Result<()> {
    let root = Runc::agent(arguments, site, As::Root)?;
    let agent = Runc::agent(arguments, site, As::Agent)?;
    let user = &agent.config["process"]["user"];
    ensure!(
        (&user["uid"], &user["gid"]) == (&json!(AGENT), &json!(AGENT)),
        "the image of the agent has the user {user}"
    );
    let version = agent.output(&["--version"], Bpffs::None)?;
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    let wanted = format!("apifence-kube {}", env!("CARGO_PKG_VERSION"));
    ensure!(
        version.status.success() && said.trim() == wanted,
        "`apifence-kube --version` in a container: {}: `{said}`",
        version.status
    );
    println!("{} as user {AGENT}, without a capability", said.trim());

    let lists = root.volume("lists");
    fs::create_dir(&lists).context("make the directory of lists")?;
    // As the kubelet makes it.
    fs::set_permissions(&lists, fs::Permissions::from_mode(0o755))?;
    root.ok(&["prepare"])?;
    let made = fs::metadata(&lists)?;
    ensure!(
        (made.uid(), made.gid(), made.mode() & 0o7777) == (AGENT, AGENT, 0o755),
        "`apifence-kube prepare` leaves the directory to {}:{} with the mode {:o}",
        made.uid(),
        made.gid(),
        made.mode() & 0o7777
    );
    println!("the directory of lists is the agent's");
    Ok(())
}

/// The user and group of the agent.
const AGENT: u32 = 60843;

/// What runs the agent's image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    /// The image's own user, without a capability.
    Agent,
    /// Root, who may give files to others.
    Root,
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))
}

/// The bpffs that a container sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bpffs {
    /// The machine's.
    Host,
    /// One that ends with the container.
    Private,
    /// None at all.
    None,
}

/// runc with a state directory of its own.
struct Runc {
    scratch: TempDir,
    rootfs: PathBuf,
    config: Value,
    /// The program in the image.
    program: &'static str,
    /// The volumes, by their names, and where the program has them.
    volumes: &'static [(&'static str, &'static str)],
}

impl Runc {
    fn filter(arguments: &Arguments, site: &Site) -> Result<Self> {
        let manifest = read(&arguments.manifest)?;
        let capabilities: Vec<String> = manifest
            .lines()
            .filter_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']'))
            .find(|set| set.contains("BPF"))
            .context("find the capabilities in the manifest")?
            .split(", ")
            .map(|name| format!("CAP_{name}"))
            .collect();
        let variables: Vec<String> = ["APIFENCE_BPFFS", "APIFENCE_METRICS_LISTEN"]
            .iter()
            .map(|name| {
                let (_, after) = manifest
                    .split_once(&format!("- name: {name}\n"))
                    .with_context(|| format!("find `{name}` in the manifest"))?;
                let value = after.lines().next().unwrap_or_default().trim();
                Ok(format!("{name}={}", value.trim_start_matches("value: ")))
            })
            .collect::<Result<_>>()?;
        let mut this = Self::new(&arguments.bundle, site, "/apifence", &capabilities)?;
        this.config["process"]["env"] = json!(variables);
        this.volumes = &[
            ("etc", "/etc/apifence"),
            ("state", "/var/lib/apifence"),
            ("run", "/run/apifence"),
        ];
        Ok(this)
    }

    fn agent(arguments: &Arguments, site: &Site, user: As) -> Result<Self> {
        let bundle = &arguments.agent_bundle;
        let program = "/apifence-kube";
        let mut this = match user {
            As::Agent => Self::new(bundle, site, program, &[])?,
            As::Root => Self::new(bundle, site, program, &["CAP_CHOWN".to_owned()])?,
        };
        if user == As::Root {
            this.config["process"]["user"] = json!({"uid": 0, "gid": 0});
            this.volumes = &[("lists", "/etc/apifence/ranges.d/kubernetes")];
        }
        Ok(this)
    }

    fn new(
        bundle: &Path,
        site: &Site,
        program: &'static str,
        capabilities: &[String],
    ) -> Result<Self> {
        let mut config: Value = serde_json::from_str(&read(&bundle.join("config.json"))?)?;
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
            rootfs: bundle.join("rootfs"),
            config,
            program,
            volumes: &[],
        })
    }

    /// Where the machine has the volume `name`.
    fn volume(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn command(&self, words: &[&str], bpffs: Bpffs) -> Result<Command> {
        let mut config = self.config.clone();
        let mut argv = vec![self.program];
        argv.extend(words);
        config["process"]["args"] = json!(argv);
        config["root"]["path"] = json!(self.rootfs);
        let bind = |source: &Path, target: &str| {
            json!({
                "type": "bind", "source": source, "destination": target, "options": ["rbind", "rw"],
            })
        };
        let mut add = Vec::new();
        match bpffs {
            Bpffs::Host => add.push(bind(Path::new(mounts::BPFFS), "/bpf")),
            Bpffs::Private => add.push(json!({
                "type": "bpf", "source": "bpf", "destination": "/bpf", "options": ["rw"],
            })),
            Bpffs::None => {}
        }
        for (name, target) in self.volumes {
            let directory = self.volume(name);
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
            "`{} {}` in a container: {}\n{}",
            self.program,
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
