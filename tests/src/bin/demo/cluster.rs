//! The first day of a filter on a control-plane node: nothing of the cluster is cut.

use std::{env, path::Path};

use anyhow::{Context as _, Result, ensure};
use tests::{
    machines::{ADMIN, Distribution, Machines, STRANGER},
    net::Transfer,
};

use crate::show::{note, run, seen, step};

/// Needs the binary `stand-in` in the folder of this program.
pub(crate) fn demo() -> Result<()> {
    let distribution = Distribution::Kubeadm;
    let [api, proxy] = distribution.ports();
    step(
        "A control plane of kubeadm: API server on 6443, haproxy on 8443; two workers, a pod, a balancer's probe",
    );
    let stand_in = env::current_exe()?.with_file_name("stand-in");
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let machines = Machines::new(distribution, &stand_in.display().to_string(), &trees)?;
    let filter = machines.apifence()?;
    let cluster = machines.cluster().into_iter();
    let transfers: Vec<Transfer> = cluster
        .map(|(source, port)| {
            note(&format!("{source} uses a connection to {port}"));
            machines.transfer(source, port)
        })
        .collect::<Result<_>>()?;
    let goes_on = || -> Result<()> {
        transfers.iter().try_for_each(Transfer::flows)?;
        for (source, port) in machines.cluster() {
            machines.connect(source, port)?;
        }
        seen("every connection of the cluster goes on, and each can connect again");
        Ok(())
    };

    step("apifence looks at the node, writes what it found, and drops nothing");
    let root = machines.root().display().to_string();
    run(&filter, &["init", "--yes", "--from-root", &root])?;
    goes_on()?;
    machines.connect(ADMIN, proxy)?;
    machines.connect(STRANGER, api)?;
    seen("administrator and stranger get in, and are remembered");

    step(
        "Who is missing in the list? The administrator is let in, and the filter enforces, on trial",
    );
    run(&filter, &["suggest"])?;
    run(
        &filter,
        &["ranges", "add", ADMIN, "--comment", "administrator"],
    )?;
    run(&filter, &["enforce", "--confirm-within", "60s"])?;
    goes_on()?;
    for port in [api, proxy] {
        machines.is_dropped(STRANGER, port)?;
        seen(&format!("the stranger gets no answer on {port}"));
        machines.connect(ADMIN, port).context("the administrator")?;
        seen(&format!("the administrator gets in on {port}"));
    }
    run(&filter, &["confirm"])?;
    goes_on()?;
    let state = filter.status("state")?;
    ensure!(state == "enforcing", "the state is {state}");
    run(&filter, &["detach"])
}
