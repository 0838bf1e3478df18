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
        "A kubeadm control plane: API server on 6443, haproxy on 8443; two workers, a pod, a health probe",
    );
    let stand_in = env::current_exe()?.with_file_name("stand-in");
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let machines = Machines::new(distribution, &stand_in.display().to_string(), &trees)?;
    let filter = machines.apifence()?;
    let cluster = machines.cluster().into_iter();
    let transfers: Vec<Transfer> = cluster
        .map(|(source, port)| {
            note(&format!("{source} has a connection to {port}"));
            machines.transfer(source, port)
        })
        .collect::<Result<_>>()?;
    let goes_on = || -> Result<()> {
        transfers.iter().try_for_each(Transfer::flows)?;
        for (source, port) in machines.cluster() {
            machines.connect(source, port)?;
        }
        seen("all connections of the cluster continue, and new ones work");
        Ok(())
    };

    step("apifence init: examine the node, write the files, start in monitor mode");
    let root = machines.root().display().to_string();
    run(&filter, &["init", "--yes", "--from-root", &root])?;
    goes_on()?;
    machines.connect(ADMIN, proxy)?;
    machines.connect(STRANGER, api)?;
    seen("administrator and visitor connect; monitor mode remembers them");

    step("Which clients are not listed yet? Add the administrator, then enforce on trial");
    run(&filter, &["suggest"])?;
    run(
        &filter,
        &["ranges", "add", ADMIN, "--comment", "administrator"],
    )?;
    run(&filter, &["enforce", "--confirm-within", "60s"])?;
    goes_on()?;
    for port in [api, proxy] {
        machines.is_dropped(STRANGER, port)?;
        seen(&format!("the visitor gets no answer on {port}"));
        machines.connect(ADMIN, port).context("the administrator")?;
        seen(&format!("the administrator connects to {port}"));
    }
    run(&filter, &["confirm"])?;
    goes_on()?;
    let state = filter.status("state")?;
    ensure!(state == "enforcing", "the state is {state}");
    run(&filter, &["detach"])
}
