//! What happens to API servers and to control planes, without an agent.

use anyhow::{Result, ensure};
use tests::{lab::Lab, net::SILENCE};

#[test]
fn a_paused_api_server_answers_again_on_the_same_connection() -> Result<()> {
    let mut lab = Lab::with_control_planes(1)?;
    let [source, _] = lab.admin.ips();
    let mut client = lab.client(&lab.admin, source, &lab.control_planes[0])?;
    client.get("/version")?.succeeded()?;
    let server = lab.control_planes[0].api.process();
    server.pause()?;
    client.set_patience(SILENCE)?;
    ensure!(client.get("/version").is_err(), "it answered");
    lab.control_planes[0].lets_in(&lab.admin, source)?;
    lab.control_planes[0].drops_all(&lab.unlisted)?;
    lab.control_planes[0].api.process().proceed()?;
    lab.control_planes[0].api.until_ready()?;
    // The answer to the first question comes late.
    let mut client = lab.client(&lab.admin, source, &lab.control_planes[0])?;
    client.get("/version")?.succeeded().map(drop)
}
