//! A node for `init` and `doctor`: files of a distribution, programs, another machine in its
//! network.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    cli::{Apifence, Ran},
    netns::{End, Namespace, veth},
    stand_in::StandIn,
};

/// The node.
pub const NODE: &str = "192.0.2.10";
/// A machine in the network of the node.
pub const NEIGHBOUR: &str = "192.0.2.21";
/// An unlisted source.
pub const STRANGER: &str = "203.0.113.9";
/// A health probe of a balancer of Google Cloud.
pub const PROBE: &str = "35.191.0.5";

/// The copy of the files of a node in `tests/trees`.
pub fn tree(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = directory.join("tests/trees").join(name);
    tree.display().to_string()
}

/// A node, and another machine in its network, with addresses elsewhere, too.
pub struct Plant {
    /// The node.
    pub node: Namespace,
    /// The other machine.
    pub other: Namespace,
    /// Commands on the node.
    pub filter: Apifence,
    program: &'static str,
}

impl Plant {
    /// Nothing is attached, and the config file is empty. `program` is the path of the binary
    /// `stand-in`.
    pub fn new(program: &'static str) -> Result<Self> {
        let (node, other) = (Namespace::new("node")?, Namespace::new("other")?);
        let own = [&*format!("{NODE}/24"), "2001:db8:7::10/64"];
        let others = [NEIGHBOUR, STRANGER, PROBE].map(|address| format!("{address}/32"));
        let others = others.each_ref().map(String::as_str);
        veth(
            1500,
            End::new(&node, "eth0", &own),
            End::new(&other, "eth0", &others),
        )?;
        for namespace in [&node, &other] {
            namespace.ip("route add default dev eth0")?;
        }
        let filter = Apifence::new(&node)?;
        Ok(Self {
            node,
            other,
            filter,
            program,
        })
    }

    /// A program of the node, called `name`.
    pub fn stand_in(&self, name: &str, words: &[&str]) -> Result<StandIn> {
        StandIn::new(&self.node, self.program, name, words)
    }

    /// `init` with these answers on standard input.
    pub fn init(&self, more: &[&str], answers: &str) -> Result<Ran> {
        let tree = tree("kubeadm");
        let arguments = [&["init", "--from-root", &tree], more].concat();
        let mut command = self.filter.command(&arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.node.spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // It may end without reading all of them.
        let _ = stdin.write_all(answers.as_bytes());
        drop(stdin);
        Ran::new(&arguments, &child.wait_with_output()?)
    }

    /// The text of the config file.
    pub fn config(&self) -> Result<String> {
        Ok(fs::read_to_string(self.filter.config_file())?)
    }

    /// Nothing was written, and nothing is attached.
    pub fn is_untouched(&self) -> Result<()> {
        ensure!(self.config()?.is_empty(), "a config file");
        ensure!(!self.filter.ranges_file().exists(), "a list");
        ensure!(self.filter.status("state")? == "detached", "attached");
        Ok(())
    }

    /// What `init` proposes: the lines of its two files.
    pub fn proposal(&self, tree: &str) -> Result<Vec<String>> {
        let print = ["init", "--print", "--from-root", tree];
        let shown = self.filter.json(&print)?;
        let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
        let text = text("config") + &text("ranges");
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// The checks of `doctor`, whose exit status fits.
    pub fn doctor(&self, tree: &str) -> Result<Vec<Value>> {
        let ran = self
            .filter
            .run(&["-o", "json", "doctor", "--from-root", tree])?;
        let found: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.to_string())?;
        let failed = found["failed"].as_u64() != Some(0);
        ensure!(ran.code == Some(i32::from(failed)), "{ran}");
        found["checks"].as_array().cloned().context("no checks")
    }
}

/// Whether there is a line that starts and goes on like this.
pub fn has(lines: &[String], start: &str, words: &str) -> Result<()> {
    let mut found = lines.iter();
    let found = found.any(|line| line.starts_with(start) && line.contains(words));
    ensure!(
        found,
        "no line `{start} ... {words}` in:\n{}",
        lines.join("\n")
    );
    Ok(())
}

/// Whether there is a check with this result, about this.
pub fn says(checks: &[Value], result: &str, check: &str, words: &str) -> Result<()> {
    let found = checks.iter().any(|one| {
        let message = one["message"].as_str().unwrap_or_default();
        one["result"] == result && one["check"] == check && message.contains(words)
    });
    ensure!(
        found,
        "no `{result}` of `{check}` with `{words}` in {checks:#?}"
    );
    let without_fix = |one: &&Value| one["result"] != "ok" && one["fix"].as_str().is_none();
    ensure!(checks.iter().find(without_fix).is_none(), "{checks:#?}");
    Ok(())
}
