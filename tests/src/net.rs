//! Connections with a chosen source address, and servers that answer them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{netns::Namespace, wait::PATIENCE};

/// Time in which an attempt must get no answer. Over veth an answer takes microseconds, and tests
/// also read the drop counter.
pub const SILENCE: Duration = Duration::from_millis(400);

/// Opens a TCP connection from `source` inside `namespace`.
pub fn connect(
    namespace: &Namespace,
    source: IpAddr,
    target: SocketAddr,
    within: Duration,
) -> io::Result<TcpStream> {
    connect_from(namespace, SocketAddr::new(source, 0), target, within)
}

/// The same, from a port of choice.
pub fn connect_from(
    namespace: &Namespace,
    source: SocketAddr,
    target: SocketAddr,
    within: Duration,
) -> io::Result<TcpStream> {
    namespace.run(|| {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&target.into(), within)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Opens a connection to an [`Echo`] and exchanges a few bytes over it.
pub fn open(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect(namespace, source, target, PATIENCE)
        .with_context(|| format!("connect from {source} to {target}"))?;
    exchange(&mut stream, PATIENCE)
        .with_context(|| format!("use the connection from {source} to {target}"))?;
    Ok(stream)
}

/// Tries to open a connection and requires silence: no connection, no reset.
pub fn silent(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<()> {
    match connect(namespace, source, target, SILENCE) {
        Ok(_) => bail!("{source} reached {target}"),
        Err(error) => {
            ensure!(
                error.kind() == io::ErrorKind::TimedOut,
                "{source} to {target}: {error}, not silence"
            );
            Ok(())
        }
    }
}

/// Sends a few bytes to an [`Echo`] and requires them back.
pub fn exchange(stream: &mut TcpStream, within: Duration) -> io::Result<()> {
    const WORDS: &[u8] = b"are you there";
    stream.set_read_timeout(Some(within))?;
    stream.write_all(WORDS)?;
    let mut answer = [0; WORDS.len()];
    stream.read_exact(&mut answer)?;
    if answer != WORDS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "another answer than the question",
        ));
    }
    Ok(())
}

/// A TCP server of both families that echoes. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Echo {
    listener: Arc<Socket>,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
    worker: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on `port` of every address of `namespace`.
    pub fn new(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace
            .run(|| {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_only_v6(false)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
                socket.listen(1024)?;
                io::Result::Ok(Arc::new(socket))
            })
            .with_context(|| format!("listen on port {port}"))?;
        let accepted = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (socket, streams) = (listener.clone(), accepted.clone());
        let worker = thread::spawn(move || {
            while let Ok((stream, _)) = socket.accept() {
                let stream = TcpStream::from(stream);
                let Ok(copy) = stream.try_clone() else { break };
                streams.lock().expect("no holder panics").push(copy);
                thread::spawn(move || {
                    let _ = io::copy(&mut &stream, &mut &stream);
                    // As for a server whose client has gone; the copy keeps the descriptor open.
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Ok(Self {
            listener,
            accepted,
            worker: Some(worker),
        })
    }

    /// Number of accepted connections.
    pub fn accepted(&self) -> usize {
        self.accepted.lock().expect("no holder panics").len()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Wakes the workers; a socket that is closed already needs no wake-up.
        let _ = self.listener.shutdown(std::net::Shutdown::Both);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        for stream in self.accepted.lock().expect("no holder panics").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Sends a UDP datagram between the namespaces, and an answer back, through sockets of its own.
pub fn udp(from: (&Namespace, IpAddr), to: (&Namespace, SocketAddr)) -> Result<()> {
    let server =
        to.0.run(|| UdpSocket::bind(to.1))
            .with_context(|| format!("bind UDP {}", to.1))?;
    let client = from.0.run(|| UdpSocket::bind(SocketAddr::new(from.1, 0)))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let mut buffer = [0; 16];
    client.send_to(b"question", to.1)?;
    let (_, peer) = server
        .recv_from(&mut buffer)
        .with_context(|| format!("UDP from {} to {}", from.1, to.1))?;
    server.send_to(b"answer", peer)?;
    client
        .recv_from(&mut buffer)
        .with_context(|| format!("UDP answer from {} to {}", to.1, from.1))?;
    Ok(())
}

/// Sends an ICMP or ICMPv6 echo request and waits for the reply.
pub fn ping(namespace: &Namespace, source: IpAddr, target: IpAddr) -> Result<()> {
    let target_address = SockAddr::from(SocketAddr::new(target, 0));
    let (protocol, request, reply) = match target {
        IpAddr::V4(_) => (Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Protocol::ICMPV6, 128, 129),
    };
    let mut socket =
        namespace.run(|| Socket::new(target_address.domain(), Type::RAW, Some(protocol)))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Type, code, checksum (the kernel writes ICMPv6's), identifier, sequence number: RFC 792, RFC
    // 4443 section 4.1.
    let mut message = [request, 0, 0, 0, 0xaf, 0x1f, 0, 1];
    if target.is_ipv4() {
        let sum = (u32::from(request) << 8) + 0xaf1f + 1;
        let folded = (sum & 0xffff) + (sum >> 16);
        message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    socket.send_to(&message, &target_address)?;
    let mut packet = [0; 128];
    loop {
        let length = socket
            .read(&mut packet)
            .with_context(|| format!("ping {target} from {source}"))?;
        // A raw IPv4 socket receives the IP header too; an IPv6 one does not.
        let header = if target.is_ipv4() {
            usize::from(packet[0] & 15) * 4
        } else {
            0
        };
        if length >= header + 8
            && packet[header] == reply
            && packet[header + 4..header + 8] == message[4..8]
        {
            return Ok(());
        }
    }
}

/// A connection to an [`Echo`] with constant traffic, on a thread of its own.
#[derive(Debug)]
pub struct Transfer {
    stream: TcpStream,
    rounds: Arc<AtomicU64>,
    worker: Option<JoinHandle<io::Error>>,
}

impl Transfer {
    /// Bytes sent and awaited in one round: many segments.
    const ROUND: usize = 64 * 1024;

    /// Opens it.
    pub fn new(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<Self> {
        let stream = open(namespace, source, target)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let rounds = Arc::<AtomicU64>::default();
        let (mut reader, mut writer, done) =
            (stream.try_clone()?, stream.try_clone()?, rounds.clone());
        let worker = thread::spawn(move || {
            let mut sent = vec![0x5a; Self::ROUND];
            let mut received = vec![0; Self::ROUND];
            loop {
                let round = done.load(Ordering::Acquire) as u8;
                sent.fill(round);
                let result = thread::scope(|scope| {
                    let sending = scope.spawn(|| writer.write_all(&sent));
                    reader.read_exact(&mut received)?;
                    sending.join().expect("the thread does not panic")
                });
                match result {
                    Err(error) => return error,
                    Ok(()) if sent != received => return io::ErrorKind::InvalidData.into(),
                    Ok(()) => done.fetch_add(1, Ordering::Release),
                };
                // Forty segments a millisecond show any gap, and leave CPU time to the tested
                // programs.
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Self {
            stream,
            rounds,
            worker: Some(worker),
        })
    }

    /// Waits until data that was sent after this call has come back completely.
    pub fn flows(&self) -> Result<()> {
        let before = self.rounds.load(Ordering::Acquire);
        crate::wait::until("bytes flow on an authorized connection", || {
            let worker = self.worker.as_ref().expect("there until dropped");
            ensure!(
                !worker.is_finished(),
                "the authorized connection broke after {before} rounds"
            );
            Ok(self.rounds.load(Ordering::Acquire) >= before + 2)
        })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// A TCP counter of the namespace, by its name in `/proc/net/snmp`: `InSegs`, `OutSegs`,
/// `RetransSegs`.
pub fn tcp_counter(namespace: &Namespace, counter: &str) -> Result<u64> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no TCP counters")?;
    let place = names.split(' ').position(|name| name == counter);
    let place = place.with_context(|| format!("no TCP counter `{counter}`"))?;
    let value = values
        .split(' ')
        .nth(place)
        .context("too few TCP counters")?;
    Ok(value.parse()?)
}

/// Sends SYNs to a port some thousand times a second, each for a new connection, until dropped. It
/// never waits for an answer: `InSegs` of its namespace counts those.
#[derive(Debug)]
pub struct SynSender {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<io::Result<()>>>,
}

impl SynSender {
    /// Starts to send.
    pub fn new(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        // Sockets belong to the namespace of the thread that makes them.
        let (stopped, inside) = (stop.clone(), namespace.try_clone()?);
        let worker = thread::spawn(move || {
            inside.run(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let socket = Socket::new(
                        Domain::for_address(target),
                        Type::STREAM,
                        Some(Protocol::TCP),
                    )?;
                    socket.set_nonblocking(true)?;
                    socket.bind(&SocketAddr::new(source, 0).into())?;
                    match socket.connect(&target.into()) {
                        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
                        result => result?,
                    }
                    // No gap is as short, and without the pause two of these would keep the machine
                    // busy.
                    thread::sleep(Duration::from_micros(50));
                }
                Ok(())
            })
        });
        Ok(Self {
            stop,
            worker: Some(worker),
        })
    }

    /// Stops, and fails if it could not send throughout.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().expect("there until stopped");
        worker
            .join()
            .expect("the thread does not panic")
            .context("send SYNs")
    }
}

impl Drop for SynSender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Tries to connect without a pause, and counts the successes.
#[derive(Debug)]
pub struct Intruder {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

impl Intruder {
    /// Starts the attempts.
    pub fn new(namespace: &Namespace, source: IpAddr, target: SocketAddr) -> Result<Self> {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut workers = Vec::new();
        // A single attempt would wait for the answer to a dropped packet while the port is open.
        for _ in 0..8 {
            let (stop, count, inside) = (stop.clone(), count.clone(), namespace.try_clone()?);
            workers.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let within = Duration::from_millis(20);
                    match connect(&inside, source, target, within) {
                        Ok(stream) => {
                            count.fetch_add(1, Ordering::Relaxed);
                            drop::<TcpStream>(stream);
                        }
                        // The address does not exist now, or there is no answer.
                        Err(_) => thread::sleep(Duration::from_micros(200)),
                    }
                }
            }));
        }
        Ok(Self {
            stop,
            count,
            workers,
        })
    }

    /// Number of successful connections.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
