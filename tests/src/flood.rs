//! A flood of SYNs from random sources, as fast as the kernel makes frames, over a link with no
//! other exit.
//!
//! The generator is an XDP program run by `BPF_PROG_TEST_RUN` on live frames (Linux 5.18, commit
//! b530e9e1063ed2b817eae7eec6ed2daa8be11608). It writes a random source into each frame and
//! redirects it to the interface at the near end of a veth pair. The frames cannot leave: both
//! namespaces are made here, and the near one has no other interface. The kernel looks up the
//! interface in the namespace of the thread that enters it into the program's map.

use std::{
    cell::Cell,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::DevMap,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader};

use crate::{
    assembly::{Code, Do, MapShape, Size, When, r},
    foreign::Foreign,
    mounts,
    netns::{Namespace, add_address},
    packets::ethernet::{CLIENT_MAC, NODE_MAC, frame},
    site::Family,
};

/// The node's addresses on the link.
pub const NODE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The addresses of the client, in the generator's namespace.
pub const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// One more address there, outside every list.
pub const UNLISTED: &str = "192.0.2.99";
/// The destination of the flood.
pub const PORT: u16 = 6443;
/// The near end.
const NEAR: &str = "near";
/// Maximum number of frames of one flood.
const MOST: u64 = 500_000_000;
/// Maximum duration of one flood.
const LONGEST: Duration = Duration::from_secs(60);
/// Frames that the kernel makes before it sends them.
const BATCH: u32 = 64;
/// The same for a paced flood: other threads may use the CPU between two batches.
const PACED_BATCH: u32 = 16;
/// Nanoseconds from one frame of a paced flood to the next, and the delay after which frames are
/// skipped.
const PACE: i32 = 1_000;
const LATE: i32 = 64_000;

/// A veth pair between two namespaces of its own: the generator and a client at one end, the node
/// at the other.
#[derive(Debug)]
pub struct VethPair {
    near: Namespace,
    node: Namespace,
    interface: String,
}

impl VethPair {
    /// Makes the link; `interface` names the node's end.
    ///
    /// If `threaded`, a kernel thread (`napi/INTERFACE-...`) serves its receive queue; otherwise
    /// the sender does. Both ends have each other's address, so that no contender has to authorize
    /// ARP.
    pub fn new(interface: &str, threaded: bool) -> Result<Self> {
        let pair = Self {
            near: Namespace::new("near")?,
            node: Namespace::new("node")?,
            interface: interface.to_owned(),
        };
        let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let (near_mac, node_mac) = (text(CLIENT_MAC), text(NODE_MAC));
        // One queue, because the sender's CPU chooses among several.
        pair.near.ip(&format!(
            "link add {NEAR} address {near_mac} numrxqueues 1 numtxqueues 1 type veth \
             peer name {interface} address {node_mac} numrxqueues 1 numtxqueues 1 netns {}",
            pair.node.path()
        ))?;
        let ends = [
            (&pair.near, NEAR, CLIENT, NODE, node_mac),
            (&pair.node, interface, NODE, CLIENT, near_mac),
        ];
        for (namespace, name, own, others, mac) in ends {
            namespace.ip(&format!("link set {name} addrgenmode none"))?;
            for (address, bits) in own.into_iter().zip([24, 64]) {
                add_address(namespace, name, &format!("{address}/{bits}"))?;
            }
            namespace.ip(&format!("link set {name} up"))?;
            for other in others {
                namespace.ip(&format!(
                    "neighbour replace {other} lladdr {mac} dev {name} nud permanent"
                ))?;
            }
        }
        add_address(&pair.near, NEAR, &format!("{UNLISTED}/24"))?;
        // A node without a filter sends its answers here.
        for gateway in CLIENT {
            pair.node.ip(&format!("route add default via {gateway}"))?;
        }
        // A device takes a redirected frame only if it has a NAPI instance. An skb of a device with
        // TSO bypasses it.
        pair.ethtool(&pair.node, interface, ["gro", "on"])?;
        pair.ethtool(&pair.near, NEAR, ["tso", "off"])?;
        if threaded {
            pair.node.run(|| pair.serve_by_a_thread())?;
        }
        Ok(pair)
    }

    fn ethtool(&self, namespace: &Namespace, name: &str, feature: [&str; 2]) -> Result<()> {
        let mut command = std::process::Command::new("ethtool");
        let output = namespace.output(command.args(["-K", name]).args(feature))?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Runs `work` on a thread inside the node.
    fn serve_by_a_thread(&self) -> Result<()> {
        let switch = mounts::sysfs()?.join(format!("class/net/{}/threaded", self.interface));
        fs::write(&switch, "1").with_context(|| format!("write `{}`", switch.display()))
    }

    /// The namespace of the filter.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The namespace of the client.
    pub fn client(&self) -> &Namespace {
        &self.near
    }

    /// The node's end.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Frames that the node has received so far, in total.
    pub fn taken(&self) -> Result<u64> {
        self.node.run(|| taken(&self.interface))
    }

    /// Runs `work` on a thread of its own at the near end, with a flood to send.
    pub fn flood<T: Send>(
        &self,
        family: Family,
        pace: Pace,
        work: impl FnOnce(&Flood<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let ifindex = self.near.ifindex(NEAR)?;
        let (code, maps, batch) = match pace {
            Pace::Full => (Code::new().set(9, r(1)), &[AWAY_MAP][..], BATCH),
            Pace::Mpps => (
                paced(Code::new().set(9, r(1))),
                &[AWAY_MAP, DUE_MAP][..],
                PACED_BATCH,
            ),
        };
        let mut generator = Foreign::with_code(generator(code, family), maps)?;
        let frame = syn(family)?;
        self.near.run(|| {
            // An attached program is in the kernel's XDP dispatcher already. For any other, each
            // test run adds and removes it, with a wait of some 20 ms for RCU. `lo` receives no
            // other packets.
            let _link = generator.attach("lo")?;
            DevMap::try_from(generator.map(AWAY)?)?.set(0, ifindex, None, 0)?;
            let program: &Xdp = generator.program()?;
            work(&Flood {
                program,
                frame,
                batch,
                sent: Cell::new(0),
                until: Instant::now() + LONGEST,
            })
        })
    }
}

/// The rate of a flood.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as possible.
    Full,
    /// A million frames a second, between which the generator waits.
    ///
    /// Many small floods with pauses would not do. If the node still holds a frame of a flood at
    /// its end, the kernel frees that flood's pages a second later; a thousand of those slow it
    /// down.
    Mpps,
}

/// A flood under construction; bounded in frames and time.
pub struct Flood<'a> {
    program: &'a Xdp,
    frame: Vec<u8>,
    batch: u32,
    sent: Cell<u64>,
    until: Instant,
}

impl Flood<'_> {
    /// Sends that many frames. Frames are lost when the node's ring, of 256, is full.
    pub fn send(&self, count: u32) -> Result<()> {
        let sent = self.sent.get() + u64::from(count);
        ensure!(
            sent <= MOST && Instant::now() < self.until,
            "send flood: more than {MOST} frames, or longer than {LONGEST:?}"
        );
        self.program.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(self.batch),
            ..TestRunOptions::new()
        })?;
        self.sent.set(sent);
        Ok(())
    }
}

/// Frames received on an interface of the calling thread's namespace.
fn taken(interface: &str) -> Result<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    // `NAME: bytes packets ...`
    let counters = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
        .with_context(|| format!("no `{interface}` among the interfaces"))?;
    let packets = counters.split_whitespace().nth(1).unwrap_or_default();
    packets
        .parse()
        .with_context(|| format!("read packets from `{counters}`"))
}

/// A SYN from address 0 with sequence number and identification 0, and correct checksums.
fn syn(family: Family) -> Result<Vec<u8>> {
    let mut tcp = TcpHeader::new(40_000, PORT, 0, 64_240);
    tcp.syn = true;
    let mut packet = Vec::new();
    match family {
        Family::V4 => {
            let to: std::net::Ipv4Addr = NODE[0].parse()?;
            let mut ip = Ipv4Header::new(20, 64, IpNumber::TCP, [0; 4], to.octets())?;
            ip.header_checksum = ip.calc_header_checksum();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[])?;
            ip.write(&mut packet)?;
        }
        Family::V6 => {
            let to: std::net::Ipv6Addr = NODE[1].parse()?;
            let ip = Ipv6Header {
                payload_length: 20,
                next_header: IpNumber::TCP,
                hop_limit: 64,
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[])?;
            ip.write(&mut packet)?;
        }
    }
    tcp.write(&mut packet)?;
    // 46 bytes are the shortest payload of Ethernet.
    packet.resize(packet.len().max(46), 0);
    Ok(frame(&packet))
}

/// The near end: `BPF_MAP_TYPE_DEVMAP` of one interface.
const AWAY: &str = "away";
const AWAY_MAP: MapShape = MapShape {
    name: AWAY,
    kind: 14,
    value: 4,
    ..DUE_MAP
};

/// Due time of the next frame of a paced flood: `BPF_MAP_TYPE_ARRAY` of one number.
const DUE: &str = "due";
const DUE_MAP: MapShape = MapShape {
    name: DUE,
    kind: 2,
    key: 4,
    value: 8,
    capacity: 1,
    flags: 0,
};

/// `bpf_ktime_get_ns`, `bpf_get_prandom_u32` and `bpf_redirect_map`.
const NOW: i32 = 5;
const RANDOM: i32 = 7;
const REDIRECT: i32 = 51;

/// The program: writes a random source and redirects the frame.
///
/// A field that was zero compensates for the source in the checksum: the lower half of TCP's
/// sequence number, and IPv4's identification. So a node without a filter accepts the segment.
///
/// IPv4 sources are in `64.0.0.0` to `191.255.255.255`, with an odd third byte; IPv6 sources in
/// `2000::/3`, with an odd third group. Ranges whose third byte or group is even hold none of them,
/// even if they are adjacent.
///
/// `code` runs before and leaves the context in register 9.
fn generator(code: Code, family: Family) -> Code {
    // Up to the end of the sequence number, the last field written below.
    let length = match family {
        Family::V4 => 42,
        Family::V6 => 62,
    };
    let code = code
        .call(RANDOM)
        .load(Size::Word, 2, 9, 0)
        .load(Size::Word, 3, 9, 4)
        .set(4, r(2))
        .alu(Do::Add, 4, length)
        .jump(When::Greater, 4, r(3), "away");
    let code = match family {
        Family::V4 => fold(
            code.set(7, r(0))
                .alu(Do::And, 7, 0x7f)
                .alu(Do::Add, 7, 64)
                .alu(Do::And, 0, !0xff)
                .alu(Do::Or, 0, r(7))
                .alu(Do::Or, 0, 1 << 16)
                .store(Size::Word, 2, 26, r(0))
                .set(5, r(0))
                .alu(Do::And, 5, 0xffff)
                .alu(Do::Right, 0, 16)
                .alu(Do::Add, 5, r(0)),
        )
        .store(Size::Half, 2, 18, r(5))
        .store(Size::Half, 2, 40, r(5)),
        Family::V6 => {
            let mut code = code
                // Spreads 32 random bits over 64 (Fibonacci hashing).
                .set_wide(7, 0x9e37_79b9_7f4a_7c15)
                .alu(Do::Multiply, 7, r(0))
                .alu(Do::And, 7, !0xe0)
                .alu(Do::Or, 7, 0x20)
                .set_wide(5, 1 << 40)
                .alu(Do::Or, 7, r(5))
                .store(Size::Double, 2, 22, r(7))
                .store(Size::Double, 2, 30, r(7))
                .set(5, 0);
            for _ in 0..4 {
                code = code
                    .set(8, r(7))
                    .alu(Do::And, 8, 0xffff)
                    .alu(Do::Add, 5, r(8))
                    .alu(Do::Right, 7, 16);
            }
            // The address has the same half twice.
            fold(code.alu(Do::Left, 5, 1)).store(Size::Half, 2, 60, r(5))
        }
    };
    code.label("away")
        .set_map(1, AWAY)
        .set(2, 0)
        .set(3, 0)
        .call(REDIRECT)
        .exit()
}

/// Waits until the frame is due, and stores the time of the next one.
fn paced(code: Code) -> Code {
    let mut code = code
        .store(Size::Word, 10, -4, 0)
        .look_up(DUE, 4)
        .jump(When::Equal, 0, 0, "away")
        .set(8, r(0))
        .load(Size::Double, 7, 8, 0)
        .call(NOW)
        .alu(Do::Add, 0, -LATE)
        .jump(When::Greater, 7, r(0), "not late")
        .set(7, r(0))
        .label("not late");
    // Each reading takes some 20 ns; a loop would have to jump backwards.
    for _ in 0..PACE / 10 {
        code = code.call(NOW).jump(When::Greater, 0, r(7), "due");
    }
    code.label("due")
        .alu(Do::Add, 7, PACE)
        .store(Size::Double, 8, 0, r(7))
}

/// Folds register 5 into a sum of 16 bits in ones' complement, and negates it.
fn fold(mut code: Code) -> Code {
    for _ in 0..2 {
        code = code
            .set(8, r(5))
            .alu(Do::Right, 8, 16)
            .alu(Do::And, 5, 0xffff)
            .alu(Do::Add, 5, r(8));
    }
    code.alu(Do::Xor, 5, 0xffff)
}
