//! What `attach` would find, where no filter is attached.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;

use crate::{
    cluster::Root,
    context::Context,
    ranges::distinct,
    survey::{Hook, Survey},
    warnings::node,
};

/// What a filter would guard, and what is open without it.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Prospect {
    /// The ports that would be protected.
    pub(crate) ports: BTreeSet<u16>,
    /// The interfaces that would be guarded.
    pub(crate) interfaces: Vec<OpenInterface>,
    /// Programs that listen on those ports, and API servers at other ports.
    pub(crate) listeners: Vec<Listener>,
    /// The ranges in the files; none without a file.
    pub(crate) ranges: Option<usize>,
    /// The next command.
    pub(crate) next: &'static str,
}

/// An interface that would be guarded.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OpenInterface {
    /// Its name.
    pub(crate) name: String,
    /// The driver, or the kind of a virtual device; none if the interface is not known.
    pub(crate) driver: Option<String>,
    /// Where the program would run: `native`, `generic`, or `unknown` until it is tried.
    pub(crate) hook: Option<&'static str>,
}

/// A program that listens on such a port.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Listener {
    /// The port.
    pub(crate) port: u16,
    /// The name of the program.
    pub(crate) program: String,
    /// Its process id.
    pub(crate) pid: i32,
}

impl Prospect {
    /// Looks at the node.
    pub(super) fn read(context: &Context) -> Result<Self> {
        let survey = Survey::new(context, &Root::new("/".into()))?;
        let ports = context.settings(None).protected();
        let known = |name: &String| survey.interfaces.iter().find(|one| one.name == *name);
        let wanted = node::wanted(context, &[])?.into_iter();
        let interfaces = wanted.map(|name| OpenInterface {
            driver: known(&name).map(|one| one.driver.clone()),
            hook: known(&name).and_then(|one| hook(&one.hook)),
            name,
        });
        let interfaces = interfaces.collect();
        let servers = &survey.servers;
        let here = servers.listening.values();
        let listening = here.filter(|server| ports.contains(&server.port));
        let elsewhere = servers
            .api
            .iter()
            .filter(|server| !ports.contains(&server.port));
        let listeners = listening.chain(elsewhere).map(|server| Listener {
            port: server.port,
            program: server.program.clone(),
            pid: server.pid,
        });
        let listeners = listeners.collect();
        let ranges = ranges(context);
        Ok(Self {
            ports,
            interfaces,
            listeners,
            ranges,
            next: match ranges {
                None => "apifence init",
                Some(_) => "apifence attach --mode monitor",
            },
        })
    }
}

const fn hook(hook: &Hook) -> Option<&'static str> {
    match hook {
        Hook::Native => Some("native"),
        Hook::Generic(_) => Some("generic"),
        Hook::Unclear(_) => Some("unknown"),
        Hook::Foreign(..) | Hook::Refused(..) => None,
    }
}

/// The number of ranges in the files of all lists.
fn ranges(context: &Context) -> Option<usize> {
    if context.is_list_unknown() {
        return None;
    }
    let lists = context.read_lists().ok()?.lists;
    (!lists.is_empty()).then(|| distinct(lists.union().entries()))
}
