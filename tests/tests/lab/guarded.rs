//! The filter in front of API servers, without an agent.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::lab::Lab;

#[test]
fn kubectl_works_from_the_listed_source_and_on_loopback_alone() -> Result<()> {
    let started = Instant::now();
    let lab = Lab::start()?;
    eprintln!("lab ready in {:?}", started.elapsed());
    for control_plane in &lab.control_planes {
        let url = control_plane.url();
        let get = ["get", "namespaces", "-o", "name", "--request-timeout=3s"];
        let ran = lab.kubectl_from(&lab.admin, &url, &get, "")?.succeeded()?;
        ensure!(ran.stdout.contains("namespace/kube-system"), "{ran}");
        control_plane.filter.drops(|| {
            let ran = lab.kubectl_from(&lab.unlisted, &url, &get, "")?;
            ensure!(ran.code == Some(1), "{ran}");
            Ok(())
        })?;
        control_plane.lets_all_in(&lab.admin)?;
        control_plane.drops_all(&lab.unlisted)?;
        control_plane.drops_all(&lab.workers[0])?;
    }
    ensure!(
        lab.kubectl(&["version"])?.contains("v1.20"),
        "another version"
    );
    Ok(())
}
