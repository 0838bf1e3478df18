//! A node on which the commands of a page run: network namespaces around it, and its own `/etc`,
//! `/usr`, `/run`, `/var/lib` and bpffs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tests::{
    cli,
    machines::{Distribution, Machines},
    mounts,
    net::connect,
    netns::Namespace,
    site::{NODE, Site, UNLISTED, at, ip},
    stand_in::StandIn,
};

use crate::page::root;

/// The binary that stands in for programs of the node.
const STAND_IN: &str = env!("CARGO_BIN_EXE_stand-in");
/// The list of a node that has one.
const LIST: &str = "198.51.100.0/24 # office Berlin\n2001:db8:aa::/48 # office Berlin\n";

/// How long an unlisted client waits for an answer.
const ATTEMPT: Duration = Duration::from_millis(100);

/// The programs that a page may run: those that touch the node's own files alone. A program that is
/// not here, such as `kubectl` or `dpkg`, could change the machine of the tests.
const PROGRAMS: [&str; 40] = [
    "apifence",
    "awk",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "curl",
    "cut",
    "date",
    "diff",
    "env",
    "getent",
    "grep",
    "head",
    "id",
    "install",
    "ip",
    "jq",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "readlink",
    "rm",
    "sed",
    "setpriv",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "ss",
    "tail",
    "tee",
    "timeout",
    "useradd",
    "wc",
];

/// The machines around the node.
enum World {
    /// A node with an API server, an administrator and an unlisted client.
    Site(Site),
    /// The same in a cluster of kubeadm.
    Cluster(Machines),
}

/// A node. The calling thread is moved to its files: one node for each thread.
pub(crate) struct Node {
    world: World,
    _programs: Vec<StandIn>,
    scratch: TempDir,
}

/// What a command printed, and its exit status.
pub(crate) struct Said {
    pub(crate) lines: Vec<String>,
    pub(crate) status: i32,
}

impl Node {
    /// Makes the node `name`, as a comment `<!-- node: NAME -->` of a page does.
    pub(crate) fn new(name: &str) -> Result<Self> {
        mounts::enter_private()?;
        mounts::own_etc()?;
        for directory in ["/usr", "/run", "/var/lib"] {
            mounts::own(directory)?;
        }
        let (world, programs) = match name {
            "kubeadm" => {
                let trees = root().join("tests/tests/trees");
                let machines = Machines::new(Distribution::Kubeadm, STAND_IN, &trees)?;
                copy(&machines.root().join("etc/."), Path::new("/etc"))?;
                copy(&machines.root().join("var/lib/."), Path::new("/var/lib"))?;
                (World::Cluster(machines), Vec::new())
            }
            _ => {
                let site = Site::new()?;
                let server = StandIn::new(&site.node, STAND_IN, "kube-apiserver", &["6443"])?;
                (World::Site(site), vec![server])
            }
        };
        let node = Self {
            world,
            _programs: programs,
            scratch: TempDir::with_prefix("apf-docs-").context("make a directory")?,
        };
        // Users that a page makes run its programs as well.
        fs::set_permissions(node.scratch.path(), fs::Permissions::from_mode(0o755))?;
        node.install()?;
        node.prepare(name)?;
        Ok(node)
    }

    /// Puts the files of the package in their places, and programs that stand in for `sudo` and
    /// `systemctl` before others.
    fn install(&self) -> Result<()> {
        for old in [
            "/etc/apifence",
            "/var/lib/apifence",
            "/run/apifence",
            "/usr/lib/apifence",
        ] {
            if Path::new(old).exists() {
                fs::remove_dir_all(old).with_context(|| format!("remove {old}"))?;
            }
        }
        let deploy = root().join("deploy");
        let documents = Path::new("/usr/share/doc/apifence");
        fs::create_dir_all(documents.join("feeds"))?;
        copy(&deploy.join("kubelet.service.d"), documents)?;
        for recipe in fs::read_dir(deploy.join("feeds/recipes"))? {
            copy(&recipe?.path(), &documents.join("feeds"))?;
        }
        fs::create_dir_all("/usr/lib/apifence")?;
        copy(
            &deploy.join("feeds/apifence-feed"),
            Path::new("/usr/lib/apifence"),
        )?;
        fs::create_dir_all("/etc/apifence")?;
        // The user before `sudo`.
        let users = fs::read_to_string("/etc/passwd")?;
        let others = users
            .lines()
            .filter(|line| line.split(':').nth(2) != Some("1000"));
        let users: String = others.map(|line| format!("{line}\n")).collect();
        fs::write("/etc/passwd", users + "kim:x:1000:1000::/nowhere:/bin/sh\n")?;
        copy(&deploy.join("apifence.toml"), Path::new("/etc/apifence"))?;
        let program = Path::new("/usr/bin/apifence");
        if program.exists() {
            fs::remove_file(program)?;
        }
        symlink(cli::binary(), program).context("link to the program")?;
        fs::create_dir_all(self.programs())?;
        for name in PROGRAMS {
            let mut places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].into_iter();
            let mut places = places.by_ref().map(|place| Path::new(place).join(name));
            if let Some(path) = places.find(|path| path.exists()) {
                symlink(path, self.programs().join(name))?;
            }
        }
        // A file that this process wrote could be busy: a child that another test starts meanwhile
        // holds it open until it is another program.
        for name in ["sudo", "systemctl"] {
            let script = root().join(format!("tests/tests/docs/{name}.sh"));
            symlink(script, self.programs().join(name))?;
        }
        Ok(())
    }

    /// Brings it into the state that its name says.
    fn prepare(&self, name: &str) -> Result<()> {
        let list = || fs::write("/etc/apifence/ranges", LIST);
        match name {
            // The package is installed; there is no list.
            "new" | "kubeadm" => {}
            // There is a list, and no filter.
            "detached" => list()?,
            // Monitor mode, and an unlisted client that tried.
            "monitoring" => {
                list()?;
                self.ok("apifence attach --mode monitor && systemctl start apifence")?;
                self.attempt()?;
            }
            // The filter enforces, and an unlisted client tried.
            "enforcing" => {
                list()?;
                self.ok("systemctl start apifence")?;
                self.ok("apifence ranges add 203.0.113.7 --comment 'home office'")?;
                self.attempt()?;
            }
            // The same without the service.
            "attached" => {
                list()?;
                self.ok("apifence attach")?;
                self.attempt()?;
            }
            _ => bail!(
                "there is no node `{name}`: `new`, `detached`, `monitoring`, `enforcing`, `attached` or `kubeadm`"
            ),
        }
        Ok(())
    }

    /// An unlisted client tries to connect.
    fn attempt(&self) -> Result<()> {
        let World::Site(site) = &self.world else {
            return Ok(());
        };
        for (source, node) in UNLISTED.into_iter().zip(NODE) {
            // Only monitor mode lets it in.
            let _ = connect(&site.unlisted, ip(source), at(node, 6443), ATTEMPT);
        }
        Ok(())
    }

    fn namespace(&self) -> &Namespace {
        match &self.world {
            World::Site(site) => &site.node,
            World::Cluster(machines) => &machines.node,
        }
    }

    fn programs(&self) -> PathBuf {
        self.scratch.path().join("bin")
    }

    fn ok(&self, command: &str) -> Result<()> {
        let said = self.run(command, false)?;
        ensure!(
            said.status == 0,
            "`{command}` said:\n{}",
            said.lines.join("\n")
        );
        Ok(())
    }

    /// Runs `command` in a shell. One that is endless is interrupted after a second.
    pub(crate) fn run(&self, command: &str, endless: bool) -> Result<Said> {
        let mut shell = Command::new("setpriv");
        shell.args(["--pdeathsig", "KILL", "timeout"]);
        shell.args(if endless {
            ["--signal=INT", "1"]
        } else {
            ["--kill-after=5", "60"]
        });
        // One stream, so that the lines of both are in order.
        shell.args([
            "bash",
            "-o",
            "pipefail",
            "-c",
            "exec 2>&1\neval \"$1\"",
            "bash",
        ]);
        shell.arg(command);
        shell
            .env_clear()
            .env("PATH", self.programs())
            .env("HOME", self.scratch.path())
            .env("EDITOR", "true")
            .env("TERM", "dumb")
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1")
            .env("SUDO_USER", "kim")
            .env("SUDO_UID", "1000")
            .env("SSH_CONNECTION", "198.51.100.7 52144 192.0.2.10 22")
            .env("SERVICE", self.scratch.path().join("service"))
            .env("HARNESS", std::process::id().to_string())
            .current_dir(self.scratch.path());
        let answers = self.scratch.path().join("answers");
        fs::write(&answers, "\n".repeat(20))?;
        shell
            .stdin(fs::File::open(&answers)?)
            .stdout(Stdio::piped());
        let child = self.namespace().spawn(&mut shell)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        let status = output.status.code().unwrap_or(-1);
        // `timeout` says 124 when it has interrupted the command.
        let status = if endless && [124, 130].contains(&status) {
            0
        } else {
            status
        };
        Ok(Said { lines, status })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What was started as a service ends with the node; what fails ends with the test.
        let _ = self.run("systemctl stop apifence", false);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").args([from, to]).status()?;
    ensure!(copied.success(), "copy `{}`", from.display());
    Ok(())
}
