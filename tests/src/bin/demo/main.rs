//! The main job of apifence on real connections, in network namespaces that end with this program:
//! first with two machines, then with a cluster.
//!
//! Exit status 0 only if every step was observed.

mod cluster;
mod show;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use show::{good, note, paint, run, seen, step};
use tests::{
    cli::Apifence,
    mounts,
    net::silent,
    netns::{End, Namespace, veth},
    tls::{Client, Identity},
    wait::PATIENCE,
};

/// Addresses from the blocks for documentation (RFC 5737, RFC 3849).
const NODE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const ADMIN: [&str; 2] = ["198.51.100.7", "2001:db8:aa::7"];
const UNLISTED: [&str; 2] = ["203.0.113.9", "2001:db8:bb::9"];
const ADMIN_RANGES: &str = "198.51.100.0/24,2001:db8:aa::/48";
const PORT: u16 = 6443;

/// How long an open connection is observed that must have stopped.
const STOPPED_FOR: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let started = Instant::now();
    match demo() {
        Ok(()) => {
            println!(
                "\n{} in {:.1} s.",
                good("Every step was observed"),
                started.elapsed().as_secs_f32()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\n{} {error:#}", paint("31;1", "unexpected:"));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for network namespaces and BPF: run it with sudo"
    );
    // Before any thread starts, so that all of them see the same mounts.
    mounts::enter_private()?;

    step(
        "A node with a TLS server on port 6443, and a client machine with the addresses of two clients",
    );
    let node = Namespace::new("node")?;
    let client = Namespace::new("client")?;
    connect_machines(&node, &client)?;
    let identity = Identity::new(&NODE.map(ip))?;
    identity.serve(&node, PORT)?;
    let world = World {
        client: &client,
        identity,
        apifence: Apifence::new(&node)?,
    };
    note(&format!("node           {}", NODE.join("  ")));
    note(&format!("administrator  {}", ADMIN.join("  ")));
    note(&format!("visitor        {}", UNLISTED.join("  ")));

    step("No filter: every source connects");
    world.gets_in("administrator", ADMIN)?;
    world.gets_in("visitor", UNLISTED)?;

    step("Attach the filter: only the administrator's ranges are allowed");
    run(
        &world.apifence,
        &[
            "attach",
            "--interface",
            "eth0",
            "--authorized-ip-ranges",
            ADMIN_RANGES,
        ],
    )?;
    let mut administrators = world.gets_in("administrator", ADMIN)?;
    let before = world.drops()?;
    world.is_shut_out("visitor", UNLISTED)?;
    let after = world.drops()?;
    ensure!(
        after >= before + 2,
        "the visitor's SYNs were not counted: {before} drops before, {after} after"
    );
    seen(&format!("{} SYNs dropped and counted", after - before));
    run(&world.apifence, &["stats"])?;

    step("Add the visitor to the list");
    run(
        &world.apifence,
        &[
            "ranges",
            "add",
            UNLISTED[0],
            UNLISTED[1],
            "--comment",
            "visitor, for today",
        ],
    )?;
    let mut unlisted_sources = world.gets_in("visitor", UNLISTED)?;

    step("Remove the visitor: their open connections stop, the administrator's continue");
    run(
        &world.apifence,
        &["ranges", "remove", UNLISTED[0], UNLISTED[1]],
    )?;
    for connection in &mut unlisted_sources {
        let from = connection.local_address()?;
        ensure!(
            connection.get(STOPPED_FOR).is_err(),
            "the visitor's open connection from {from} is still answered"
        );
        seen(&format!(
            "no more answers on the visitor's open connection from {from}"
        ));
    }
    for connection in &mut administrators {
        connection
            .get(PATIENCE)
            .context("use the administrator's open connection")?;
        seen(&format!(
            "200 on the administrator's open connection from {}",
            connection.local_address()?
        ));
    }
    world.is_shut_out("visitor", UNLISTED)?;

    step("Detach the filter");
    run(&world.apifence, &["detach"])?;
    world.gets_in("visitor", UNLISTED)?;
    cluster::demo()
}

struct World<'a> {
    client: &'a Namespace,
    identity: Identity,
    apifence: Apifence,
}

impl World<'_> {
    /// Opens an HTTPS connection from each address and has a request answered on it.
    fn gets_in(&self, role: &str, addresses: [&str; 2]) -> Result<Vec<Client>> {
        addresses
            .iter()
            .zip(NODE)
            .map(|(address, node)| {
                let target = SocketAddr::new(ip(node), PORT);
                let mut connection = self
                    .identity
                    .connect(self.client, ip(address), target)
                    .with_context(|| format!("connect the {role} from {address} to {target}"))?;
                connection
                    .get(PATIENCE)
                    .with_context(|| format!("answer the {role} at {address}"))?;
                seen(&format!(
                    "GET https://{target}/version from {address} ({role}): 200"
                ));
                Ok(connection)
            })
            .collect()
    }

    /// Tries to connect from each address, and requires silence.
    fn is_shut_out(&self, role: &str, addresses: [&str; 2]) -> Result<()> {
        for (address, node) in addresses.iter().zip(NODE) {
            let target = SocketAddr::new(ip(node), PORT);
            silent(self.client, ip(address), target)?;
            seen(&format!(
                "connect to {target} from {address} ({role}): no answer"
            ));
        }
        Ok(())
    }

    fn drops(&self) -> Result<u64> {
        self.apifence.packets("drop", "unauthorized")
    }
}

/// One veth pair; either side reaches all addresses of the other.
fn connect_machines(node: &Namespace, client: &Namespace) -> Result<()> {
    let with_length =
        |address: &&str| format!("{address}/{}", if address.contains(':') { 128 } else { 32 });
    let node_addresses = NODE.each_ref().map(with_length);
    let client_addresses = [ADMIN, UNLISTED]
        .concat()
        .iter()
        .map(with_length)
        .collect::<Vec<_>>();
    veth(
        1500,
        End {
            namespace: node,
            interface: "eth0",
            addresses: &node_addresses.each_ref().map(String::as_str),
        },
        End {
            namespace: client,
            interface: "eth0",
            addresses: &client_addresses
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        },
    )?;
    for namespace in [node, client] {
        namespace.ip("-4 route add default dev eth0")?;
        namespace.ip("-6 route add default dev eth0")?;
    }
    Ok(())
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("the demo writes addresses right")
}
