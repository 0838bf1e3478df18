//! A kubelet that the program may not look into, as in a container of the node.
//!
//! A suite of its own: every other test with few capabilities would meet this kubelet, too.

use std::process::Command;

use anyhow::Result;
use tests::{
    cli::{Apifence, INPUT, refused},
    net::Echo,
    site::{ATTACH, Family, Site},
    stand_in::StandIn,
};

const PORT: u16 = 6443;
const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");

#[test]
fn the_first_enforcement_next_to_a_hidden_kubelet_needs_the_cluster_cidrs() -> Result<()> {
    let site = Site::new()?;
    let filter = Apifence::new(&site.node)?;
    let _server = Echo::new(&site.node, PORT)?;
    let kubelet = StandIn::new(&site.node, PROGRAM, "kubelet", &["10250"])?;
    let bounded = || {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--bounding-set", "-all,+bpf,+net_admin,+perfmon"]);
        setpriv.args(["--inh-caps", "-all", "--no-new-privs"]);
        setpriv
    };
    let ran = filter.run_by(bounded(), &ATTACH)?;
    let process = format!("`kubelet` (pid {}) runs", kubelet.pid());
    refused(&ran, INPUT, &["cluster node", &process])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    let all = [&ATTACH[..], &["--cluster-cidrs", "10.244.0.0/16"]].concat();
    let ran = filter.run_by(bounded(), &all)?;
    assert_eq!(ran.code, Some(0), "{ran}");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}
