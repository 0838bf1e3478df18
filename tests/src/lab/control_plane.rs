//! A control plane: an API server, `apifence` and the agent on one machine, with files that a
//! reboot leaves.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    agent::{self, Agent, UID},
    api_server::{ApiServer, PORT},
    network::{INTERFACE, Machine},
};
use crate::{
    cli::{Apifence, Background},
    mounts::BPFFS,
    net::{connect, silent},
    site::{ADMIN_RANGES, at},
    wait::PATIENCE,
};

/// The config file at first.
const CONFIG: &str = "ports = [6443]\ncluster_cidrs = [\"@nodes\"]\n";

/// The control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// The machine.
    pub machine: Machine,
    /// `apifence` for commands on it.
    pub filter: Apifence,
    /// The API server.
    pub api: ApiServer,
    /// `apifence run`, while it runs.
    pub run: Option<Background>,
    /// The agent.
    pub agent: Agent,
    directory: PathBuf,
}

impl ControlPlane {
    /// Makes it on `machine`, with its files in `directory`; nothing runs yet.
    pub fn new(machine: Machine, api: ApiServer, directory: &Path) -> Result<Self> {
        let filter = Apifence::new(&machine.namespace)?;
        let filter = filter.with_bpffs(Path::new(BPFFS).join(machine.name));
        filter.write_config(CONFIG)?;
        filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
        let files = filter.config_file().parent().context("in a directory")?;
        // The agent's directory is below it.
        fs::set_permissions(files, fs::Permissions::from_mode(0o711))?;
        let lists = filter.list_file(agent::DIRECTORY);
        fs::create_dir_all(&lists)?;
        chown(&lists, Some(UID), Some(UID))?;
        let state = files.join("run/state.json");
        let agent = Agent::new(&machine, &lists, &state, directory)?;
        Ok(Self {
            machine,
            filter,
            api,
            run: None,
            agent,
            directory: directory.to_owned(),
        })
    }

    /// Starts `apifence run`, and does not wait until it guards the machine.
    pub fn start_guard(&mut self) -> Result<()> {
        ensure!(self.run.is_none(), "`apifence run` runs already");
        self.run = Some(self.filter.start(&["run", "--interface", INTERFACE])?);
        Ok(())
    }

    /// Waits until it guards the machine by what its files say. It is not ready by that: `@nodes`
    /// is a warning until the agent writes it.
    pub fn until_guarded(&mut self) -> Result<()> {
        let run = self.run.as_mut().context("`apifence run` does not run")?;
        run.line(|line| line.contains("guarding"))?;
        let followed = self.filter.until_status("policy_source", "files");
        followed.with_context(|| match self.filter.run(&["status"]) {
            Ok(ran) => ran.to_string(),
            Err(error) => format!("{error:#}"),
        })
    }

    /// The machine's power fails, and comes back: no process, no pin, no file in `/run`. Other
    /// files stay. Nothing is started.
    pub fn reboot(&mut self) -> Result<()> {
        self.api.process().kill()?;
        self.run = None;
        self.agent.kill();
        if self.filter.bpffs().exists() {
            self.filter.boot()?;
        }
        match fs::remove_file(self.agent.state_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!(error),
            _ => Ok(()),
        }
    }

    /// The directory for files that belong to it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The address in the family of `source`.
    fn address_for(&self, source: IpAddr) -> &'static str {
        self.machine.addresses[usize::from(source.is_ipv6())]
    }

    /// The API server, for programs on other machines.
    pub fn url(&self) -> String {
        format!("https://{}:{PORT}", self.machine.addresses[0])
    }

    /// `source` of `machine` opens a connection; the kernel answers, even while the server is
    /// paused.
    pub fn lets_in(&self, machine: &Machine, source: IpAddr) -> Result<()> {
        let target = at(self.address_for(source), PORT);
        connect(&machine.namespace, source, target, PATIENCE)
            .map(drop)
            .with_context(|| format!("connect from {source} to {target}"))
    }

    /// `source` of `machine` gets no answer. Needs no command of the filter's.
    pub fn keeps_out(&self, machine: &Machine, source: IpAddr) -> Result<()> {
        let target = at(self.address_for(source), PORT);
        silent(&machine.namespace, source, target)
    }

    /// The same, and it is dropped and counted, in both families.
    pub fn drops_all(&self, machine: &Machine) -> Result<()> {
        for source in machine.ips() {
            self.filter.drops(|| self.keeps_out(machine, source))?;
        }
        Ok(())
    }

    /// Both addresses of `machine` get in.
    pub fn lets_all_in(&self, machine: &Machine) -> Result<()> {
        let sources = machine.ips();
        let mut sources = sources.iter();
        sources.try_for_each(|&source| self.lets_in(machine, source))
    }
}
