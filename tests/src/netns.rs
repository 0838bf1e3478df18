//! Network namespaces that live as long as their owner, and veth pairs between them.
//!
//! A namespace has no name under `/run/netns`. A file descriptor holds it, so it ends with the
//! test's process even if that is killed, and needs no clean-up.

use std::{
    fs::File,
    net::Ipv6Addr,
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Output, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::wait::until;

/// A network namespace with `lo` up.
#[derive(Debug)]
pub struct Namespace {
    label: String,
    file: File,
}

impl Namespace {
    /// Makes one; `label` names it in errors.
    pub fn new(label: &str) -> Result<Self> {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    current().context("open new namespace")
                })
                .join()
                .expect("the thread does not panic")
        })
        .with_context(|| format!("make network namespace `{label}`"))?;
        let namespace = Self {
            label: label.to_owned(),
            file,
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace of the calling thread; `label` names it in errors.
    pub fn own(label: &str) -> Result<Self> {
        Ok(Self {
            label: label.to_owned(),
            file: current()?,
        })
    }

    /// Another handle of the same namespace, which exists until the last handle is dropped.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            label: self.label.clone(),
            file: self.file.try_clone()?,
        })
    }

    /// Runs `work` on a thread inside the namespace. Sockets that it opens stay there.
    ///
    /// A panic of `work` becomes a panic of the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).expect("the namespace is open");
                work()
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `command` inside the namespace; its parent is the calling thread.
    pub fn spawn(&self, command: &mut Command) -> Result<std::process::Child> {
        let _inside = Inside::enter(self)?;
        command
            .spawn()
            .with_context(|| format!("start `{}`", command.get_program().to_string_lossy()))
    }

    /// Runs `command` inside the namespace to its end, and returns its output.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(self.spawn(command)?.wait_with_output()?)
    }

    /// Runs iproute2's `ip` with these words inside the namespace; fails if `ip` fails.
    pub fn ip(&self, words: &str) -> Result<String> {
        let output = self.output(Command::new("ip").args(words.split_whitespace()))?;
        ensure!(
            output.status.success(),
            "`ip {words}` in namespace `{}`: {}",
            self.label,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets a sysctl of the namespace, `name` in the form `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value))
            .with_context(|| format!("set `{name}` in namespace `{}`", self.label))
    }

    /// The index of the interface `name`.
    pub fn ifindex(&self, name: &str) -> Result<u32> {
        let text = self.ip(&format!("-o link show dev {name}"))?;
        let index = text.split(':').next().unwrap_or_default();
        index
            .parse()
            .with_context(|| format!("read ifindex of `{name}` from `{text}`"))
    }

    /// Moves an interface into another namespace.
    pub fn move_interface(&self, name: &str, to: &Self) -> Result<()> {
        self.ip(&format!("link set {name} netns {}", to.path()))
            .map(drop)
    }

    /// A path that `ip` accepts as a namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// One end of a veth pair: namespace, name and addresses.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it is in.
    pub namespace: &'a Namespace,
    /// The interface's name.
    pub interface: &'a str,
    /// Addresses with their prefix lengths, of either family.
    pub addresses: &'a [&'a str],
}

impl<'a> End<'a> {
    /// The end `interface` in `namespace`.
    pub const fn new(
        namespace: &'a Namespace,
        interface: &'a str,
        addresses: &'a [&'a str],
    ) -> Self {
        Self {
            namespace,
            interface,
            addresses,
        }
    }
}

/// Makes a veth pair with both ends up. It ends with either namespace.
pub fn veth(mtu: u32, a: End<'_>, b: End<'_>) -> Result<()> {
    a.namespace.ip(&format!(
        "link add {} mtu {mtu} type veth peer name {} mtu {mtu} netns {}",
        a.interface,
        b.interface,
        b.namespace.path()
    ))?;
    let ends = [a, b];
    for End {
        namespace,
        interface,
        addresses,
    } in ends
    {
        // No router solicitations, and no link-local address that is still tentative when a test
        // starts.
        namespace.ip(&format!("link set {interface} addrgenmode none"))?;
        for address in addresses {
            add_address(namespace, interface, address)?;
        }
        namespace.ip(&format!("link set {interface} up"))?;
    }
    ends.into_iter()
        .try_for_each(|end| await_addresses(end.namespace, end.addresses))
}

/// Waits until the kernel accepts packets to these addresses of an interface that is up. The kernel
/// adds IPv6 routes asynchronously: on a busy machine after some tenths of a second.
pub(crate) fn await_addresses(namespace: &Namespace, addresses: &[&str]) -> Result<()> {
    let addresses = addresses.iter().filter_map(|text| text.split('/').next());
    let addresses: Vec<Ipv6Addr> = addresses.filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    until("IPv6 addresses have routes", || {
        let routes = namespace.ip("-6 route show table local")?;
        let local = |address| {
            let start = format!("local {address} ");
            routes.lines().any(|route| route.starts_with(&start))
        };
        Ok(addresses.iter().all(local))
    })
}

/// Adds an address with its prefix length. An IPv6 one skips duplicate detection, see
/// [`await_addresses`].
pub fn add_address(namespace: &Namespace, interface: &str, address: &str) -> Result<()> {
    let nodad = if address.contains(':') { "nodad" } else { "" };
    namespace
        .ip(&format!("address add {address} dev {interface} {nodad}"))
        .map(drop)
}

/// Keeps the calling thread inside a namespace until dropped.
struct Inside {
    home: File,
}

impl Inside {
    fn enter(namespace: &Namespace) -> Result<Self> {
        let home = current()?;
        setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter namespace `{}`", namespace.label))?;
        Ok(Self { home })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET)
            .expect("the thread's own namespace is open");
    }
}

/// The network namespace of the calling thread.
fn current() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("open `/proc/thread-self/ns/net`")
}

/// A node with two interfaces, `n0` and `n1`, and a client on each.
pub fn two_interfaces() -> Result<[Namespace; 2]> {
    let node = Namespace::new("node")?;
    let client = Namespace::new("client")?;
    for number in [0, 1] {
        let name = format!("n{number}");
        veth(
            1500,
            End::new(&node, &name, &[&format!("192.0.{}.1/24", 2 + number)]),
            End::new(
                &client,
                &format!("c{number}"),
                &[&format!("192.0.{}.2/24", 2 + number)],
            ),
        )?;
    }
    Ok([node, client])
}
