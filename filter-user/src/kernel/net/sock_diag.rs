//! Connections to the protected ports, and the address of the operator's SSH client.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, anyhow};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_FIN_WAIT2, TCP_SYN_RECV},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use procfs::process::Process;
use serde::Serialize;

use super::netlink;

/// An established TCP connection to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connection {
    /// The client's end, address and port.
    pub remote: SocketAddr,
    /// This node's end, address and port.
    pub local: SocketAddr,
}

/// Text about a client that has closed its end.
pub const CLOSED: &str = "half-closed";

/// A TCP socket of this network namespace; IPv4 on an IPv6 socket counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpSocket {
    /// The two ends.
    pub connection: Connection,
    /// The inode of the socket; 0 if no process has it, because it is not accepted yet or already
    /// closed.
    pub inode: u32,
    /// The ifindex that the socket is bound to, as with link-local addresses; 0 for none.
    pub interface: u32,
    /// `TCP_*`.
    state: u8,
}

impl TcpSocket {
    /// Whether the client has answered: before, its address may be forged.
    pub const fn has_answered(&self) -> bool {
        self.state != TCP_SYN_RECV
    }

    /// Why the client may be gone, in words. It has closed its end, though it may still read; or it
    /// never answered, and its packets may be forged.
    pub const fn doubt(&self) -> Option<&'static str> {
        match self.state {
            TCP_CLOSE_WAIT => Some(CLOSED),
            TCP_SYN_RECV => Some("not answered yet"),
            _ => None,
        }
    }
}

/// The established connections of this network namespace whose local port is one of `ports`, in
/// order. IPv4 on an IPv6 socket counts as IPv4. Connections that are not accepted yet are
/// included.
///
/// # Errors
/// If the kernel has no `tcp_diag`, or refuses.
pub fn established(ports: &BTreeSet<u16>) -> Result<Vec<Connection>> {
    let found = sockets(&StateFlags::ESTABLISHED)?.into_iter();
    let mut found: Vec<Connection> = found
        .map(|socket| socket.connection)
        .filter(|connection| ports.contains(&connection.local.port()))
        .collect();
    found.dedup();
    Ok(found)
}

/// The connections of this network namespace that may still receive packets: established, or closed
/// at one end.
///
/// # Errors
/// As [`established`].
pub fn open() -> Result<Vec<TcpSocket>> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT;
    let mut found = sockets(&states)?;
    // The kernel answers packets to an orphaned socket with a reset.
    found.retain(|socket| socket.state != TCP_FIN_WAIT2 || socket.inode != 0);
    Ok(found)
}

/// The listeners of this network namespace; an unspecified address stands for all.
///
/// # Errors
/// As [`established`].
pub fn listeners() -> Result<Vec<TcpSocket>> {
    sockets(&StateFlags::LISTEN)
}

/// The ports of `listeners`.
pub fn listening_ports(listeners: &[TcpSocket]) -> BTreeSet<u16> {
    let ports = listeners.iter();
    ports.map(|socket| socket.connection.local.port()).collect()
}

/// The addresses of the listeners on `ports` in this network namespace; an unspecified address
/// stands for all.
///
/// # Errors
/// As [`established`].
pub fn listening(ports: &BTreeSet<u16>) -> Result<Vec<SocketAddr>> {
    let found = listeners()?.into_iter();
    let mut found: Vec<SocketAddr> = found
        .map(|socket| socket.connection.local)
        .filter(|local| ports.contains(&local.port()))
        .collect();
    found.dedup();
    Ok(found)
}

/// All TCP sockets of this network namespace in `states`, in order.
fn sockets(states: &StateFlags) -> Result<Vec<TcpSocket>> {
    let mut found = BTreeSet::new();
    for (family, id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        dump(family, id, states, &mut |socket| {
            found.insert(socket);
        })
        .context("read connections")?;
    }
    Ok(found.into_iter().collect())
}

/// Dumps all TCP sockets of a family in `states` (`sock_diag(7)`).
fn dump(
    family: u8,
    id: SocketId,
    states: &StateFlags,
    each: &mut impl FnMut(TcpSocket),
) -> Result<()> {
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: states.clone(),
        socket_id: id,
    });
    let asked = netlink::dump_messages(NETLINK_SOCK_DIAG, &request, |answer| {
        if let SockDiagMessage::InetResponse(response) = answer? {
            let id = response.header.socket_id;
            each(TcpSocket {
                connection: Connection {
                    remote: address(id.destination_address, id.destination_port),
                    local: address(id.source_address, id.source_port),
                },
                inode: response.header.inode,
                interface: id.interface_id,
                state: response.header.state,
            });
        }
        Ok(())
    });
    asked.map_err(|error| match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::NotFound => {
            anyhow!("the kernel module `tcp_diag` is missing: `modprobe tcp_diag`")
        }
        _ => error,
    })
}

fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// The client address of the SSH session: `SSH_CONNECTION` in the environment of this process, or
/// of its nearest ancestor. `sudo` does not pass the variable on, but still has it itself. A `tmux`
/// server may have the one of an earlier login.
pub fn ssh_client_address() -> Option<IpAddr> {
    origin_of(Process::myself().ok()?)
}

fn origin_of(mut process: Process) -> Option<IpAddr> {
    loop {
        let environment = process.environ().ok();
        let value = environment
            .as_ref()
            .and_then(|variables| variables.get("SSH_CONNECTION".as_ref() as &std::ffi::OsStr));
        if let Some(value) = value {
            return client(&value.to_string_lossy());
        }
        let parent = process.stat().ok()?.ppid;
        if parent <= 0 {
            return None;
        }
        process = Process::new(parent).ok()?;
    }
}

/// The first word of `SSH_CONNECTION` (`ssh(1)`): client's address and port, server's address and
/// port.
fn client(value: &str) -> Option<IpAddr> {
    let word = value.split_whitespace().next()?;
    let address = word.split_once('%').map_or(word, |(address, _)| address);
    address.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_first_word_is_the_client() {
        for (value, want) in [
            ("198.51.100.7 50000 192.0.2.10 22", Some("198.51.100.7")),
            ("fe80::1%eth0 50000 fe80::2%eth0 22", Some("fe80::1")),
            (
                "::ffff:198.51.100.7 1 ::ffff:192.0.2.10 22",
                Some("198.51.100.7"),
            ),
            ("", None),
            ("UNKNOWN 65535 UNKNOWN 65535", None),
        ] {
            let want = want.map(|text| text.parse().expect("an address"));
            assert_eq!(client(value), want, "{value}");
        }
    }

    /// As with `sudo`: the process lacks the variable, and its parent has it.
    #[test]
    fn the_nearest_process_with_the_variable_tells() {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "env -u SSH_CONNECTION sh -c 'echo $$; read line' ; true",
            ])
            .env("SSH_CONNECTION", "198.51.100.7 50000 192.0.2.10 22")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let mut stdout = io::BufReader::new(shell.stdout.take().expect("a pipe"));
        io::BufRead::read_line(&mut stdout, &mut line).expect("its number");
        let inner = Process::new(line.trim().parse().expect("a number")).expect("a process");
        let found = origin_of(inner);
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert_eq!(found, Some("198.51.100.7".parse().expect("an address")));
    }
}
