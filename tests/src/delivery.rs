//! A node that answers, and a wire that carries any frame. The node's answers show which packets
//! Linux delivers.

use std::{
    io::{self, ErrorKind, Read as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket},
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    netns::{End, Namespace, veth},
    packets::{
        V4,
        ethernet::{CLIENT_MAC, HEADER_LEN, IPV4, IPV6, NODE_MAC, frame},
    },
    table::{NODE4, NODE6, OTHER4, OTHER6, SID4, SID6, SID6_NEXT_HOP, Source},
    tun::Tun,
    wait::PATIENCE,
};

/// The node's interface, and the client's.
pub const INTERFACE: &str = "eth0";

/// Protected ports, their neighbours, and another port; each has a listener.
const PORTS: [u16; 6] = [443, 6443, 442, 444, 6444, 80];
/// The port that echoes datagrams in order.
const ECHO: u16 = 6443;
/// Source ports of markers start here; those of cases are lower.
const MARKERS: u16 = 60_000;

/// An answer of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A SYN with ACK from `from` to the port `to`.
    Accepted {
        /// The port that answers.
        from: u16,
        /// The port that asked.
        to: u16,
    },
    /// A datagram back to this port.
    Datagram(u16),
    /// An echo reply with this identifier.
    Echo(u16),
}

/// The device on which frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet, from another namespace.
    Ethernet,
    /// A tun device: it carries only the IP packet of each frame.
    Tun,
}

/// The sender's end.
#[derive(Debug)]
enum Wire {
    /// In a namespace that lives as long as the wire.
    Ethernet(Socket, #[expect(dead_code, reason = "held")] Namespace),
    Tun(Tun),
}

impl Wire {
    fn send(&self, frame: &[u8]) -> Result<()> {
        match self {
            Self::Ethernet(socket, _) => {
                let sent = socket
                    .send(frame)
                    .with_context(|| format!("send {} bytes", frame.len()))?;
                ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
                Ok(())
            }
            Self::Tun(tun) => tun.send(&frame[HEADER_LEN..]),
        }
    }

    /// The next frame; an Ethernet header is added to packets without one.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Ethernet(socket, _) => (&*socket).read(buffer),
            Self::Tun(tun) => {
                let len = tun.receive(&mut buffer[HEADER_LEN..])?;
                let (header, packet) = buffer.split_at_mut(HEADER_LEN);
                header.copy_from_slice(&frame(&packet[..len])[..HEADER_LEN]);
                Ok(HEADER_LEN + len)
            }
        }
    }
}

/// A node and a client at the two ends of a wire.
#[derive(Debug)]
pub struct Testbed {
    /// The namespace of the listeners.
    pub node: Namespace,
    wire: Wire,
    _listeners: Vec<Socket>,
    echo: UdpSocket,
    markers: u16,
}

impl Testbed {
    /// Makes a node. The calling thread, and the threads that answer it, stay on one CPU from now
    /// on, so that answers come in the order of the frames.
    pub fn new(medium: Medium, mtu: u32) -> Result<Self> {
        one_cpu()?;
        let node = Namespace::new("node")?;
        let [to4, to6, other4, other6] = [
            NODE4.to_string() + "/32",
            format!("{NODE6}/128"),
            format!("{OTHER4}/32"),
            format!("{OTHER6}/128"),
        ];
        let addresses = [&*to4, &to6, &other4, &other6];
        let wire = match medium {
            Medium::Ethernet => ethernet(&node, mtu, &addresses)?,
            Medium::Tun => {
                let tun = Tun::new(&node, INTERFACE, &addresses)?;
                node.ip(&format!("link set {INTERFACE} mtu {mtu}"))?;
                node.ip(&format!("route add default dev {INTERFACE}"))?;
                node.ip(&format!("-6 route add default dev {INTERFACE}"))?;
                Wire::Tun(tun)
            }
        };
        for (name, value) in [
            // Accept any source address, and answer each SYN once.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/eth0/rp_filter", "0"),
            ("net/ipv4/tcp_synack_retries", "0"),
            ("net/ipv4/tcp_max_syn_backlog", "65536"),
            ("net/core/somaxconn", "65536"),
            // Enable every routing header and segment that Linux can process.
            ("net/ipv4/conf/all/accept_source_route", "1"),
            ("net/ipv4/conf/eth0/accept_source_route", "1"),
            ("net/ipv6/conf/all/accept_source_route", "1"),
            ("net/ipv6/conf/eth0/accept_source_route", "1"),
            ("net/ipv6/conf/all/seg6_enabled", "1"),
            ("net/ipv6/conf/eth0/seg6_enabled", "1"),
        ] {
            node.sysctl(name, value)?;
        }
        // The other actions of this kernel need a VRF.
        for (sid, action) in [
            (SID4, format!("End.DX4 nh4 {NODE4}")),
            (SID6, "End.DT6 table 255".to_owned()),
            (SID6_NEXT_HOP, format!("End.DX6 nh6 {NODE6}")),
        ] {
            node.ip(&format!(
                "-6 route add {sid}/128 encap seg6local action {action} dev {INTERFACE}"
            ))?;
        }
        let listeners = PORTS
            .map(|port| node.run(|| listen(port)))
            .into_iter()
            .collect::<Result<_>>()?;
        let echo = node.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO)))?;
        let answering = echo.try_clone()?;
        thread::spawn(move || answer(&answering));
        let mut testbed = Self {
            node,
            wire,
            _listeners: listeners,
            echo,
            markers: MARKERS,
        };
        testbed.send(&[])?;
        Ok(testbed)
    }

    /// Loads conntrack and its defragmentation in front of the routing decision, as kube-proxy
    /// does.
    pub fn track_connections(&self) -> Result<()> {
        let rules = "add table inet track; \
                     add chain inet track input { type filter hook input priority 0; }; \
                     add rule inet track input ct state established counter";
        let output = self.node.output(Command::new("nft").arg(rules))?;
        ensure!(
            output.status.success(),
            "nft: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Sends frames, then a marker, and returns the answers that come before that to the marker.
    pub fn send(&mut self, frames: &[Vec<u8>]) -> Result<Vec<Answer>> {
        self.markers = self.markers.checked_add(1).unwrap_or(MARKERS);
        let marker = V4::new(Source::Listed.v4(), NODE4)
            .datagram(self.markers, ECHO, b"marker")
            .frame();
        for frame in frames.iter().chain([&marker]) {
            self.wire.send(frame)?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 70_000];
        loop {
            let len = match self.wire.receive(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("the marker was not answered")
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            match parse(&buffer[..len]) {
                Some(Answer::Datagram(port)) if port == self.markers => return Ok(answers),
                Some(Answer::Datagram(port)) if port >= MARKERS => {}
                Some(answer) => answers.push(answer),
                None => {}
            }
            ensure!(Instant::now() < deadline, "the marker was not answered");
        }
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // Wakes the thread that waits for a datagram, although the call reports that the socket is
        // not connected.
        let _ = socket2::SockRef::from(&self.echo).shutdown(Shutdown::Read);
    }
}

/// A node's interface with these addresses, and the wire to it.
fn ethernet(node: &Namespace, mtu: u32, addresses: &[&str]) -> Result<Wire> {
    let client = Namespace::new("client")?;
    veth(
        mtu,
        End {
            namespace: node,
            interface: INTERFACE,
            addresses,
        },
        End {
            namespace: &client,
            interface: INTERFACE,
            addresses: &[],
        },
    )?;
    node.ip(&format!("link set {INTERFACE} address {}", mac(NODE_MAC)))?;
    client.ip(&format!("link set {INTERFACE} address {}", mac(CLIENT_MAC)))?;
    for gateway in ["169.254.0.1", "fe80::1"] {
        node.ip(&format!(
            "route add default via {gateway} dev {INTERFACE} onlink"
        ))?;
        node.ip(&format!(
            "neigh replace {gateway} lladdr {} dev {INTERFACE} nud permanent",
            mac(CLIENT_MAC)
        ))?;
    }
    Ok(Wire::Ethernet(client.run(open_wire)?, client))
}

/// Pins the calling thread, and those that it starts, to one of its allowed CPUs: the next one each
/// time.
fn one_cpu() -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let cpus: Vec<_> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let mut one = CpuSet::new();
    one.set(cpus[NEXT.fetch_add(1, Ordering::Relaxed) % cpus.len()])?;
    Ok(sched_setaffinity(this, &one)?)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn listen(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(65_535)?;
    Ok(socket)
}

/// Echoes the start of every datagram until the socket is shut down.
fn answer(echo: &UdpSocket) {
    let mut data = vec![0; 65_536];
    while let Ok((len, from)) = echo.recv_from(&mut data) {
        // If the sender is unreachable, no test waits for the answer.
        let _ = echo.send_to(&data[..len.min(8)], from);
    }
}

/// A raw socket on the client's end.
fn open_wire() -> Result<Socket> {
    let socket: OwnedFd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    let link = getifaddrs()?
        .filter(|entry| entry.interface_name == INTERFACE)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("`{INTERFACE}` has no link address"))?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &link)?;
    let socket = Socket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}

/// The answer in a frame, if it holds one.
fn parse(frame: &[u8]) -> Option<Answer> {
    let ether_type = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let (protocol, at) = match ether_type {
        IPV4 => (*frame.get(23)?, 14 + usize::from(frame.get(14)? & 15) * 4),
        IPV6 => (*frame.get(20)?, 54),
        _ => return None,
    };
    let word = |offset: usize| {
        Some(u16::from_be_bytes([
            *frame.get(at + offset)?,
            *frame.get(at + offset + 1)?,
        ]))
    };
    match protocol {
        6 if frame.get(at + 13)? & 0x12 == 0x12 => Some(Answer::Accepted {
            from: word(0)?,
            to: word(2)?,
        }),
        17 => Some(Answer::Datagram(word(2)?)),
        1 if *frame.get(at)? == 0 => Some(Answer::Echo(word(4)?)),
        58 if *frame.get(at)? == 129 => Some(Answer::Echo(word(4)?)),
        _ => None,
    }
}
