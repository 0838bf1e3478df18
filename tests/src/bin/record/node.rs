//! The node in the pictures.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use tests::{
    cli::{Background, binary},
    mounts,
    net::{Echo, exchange, open},
    netns::Namespace,
    scrape::ready,
    site::{INTERFACE, NODE, Site, at, ip},
};

/// The first of the unlisted sources that come.
pub(crate) const UNLISTED: &str = "203.0.113.9";
const OTHERS: [&str; 5] = [
    "203.0.113.77",
    "203.0.113.105",
    "192.0.2.200",
    "2001:db8:bb::2a",
    "2001:db8:bb::1f",
];
const PORT: u16 = 6443;
/// Where the state of a service lies.
const OWN: [&str; 2] = ["/var/lib", "/run"];

/// A guarded node, and clients that come until this is dropped.
pub(crate) struct Node {
    pub(crate) site: Site,
    _service: Background,
    _server: Echo,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts it with an installation's paths, in a mount namespace of its own.
    pub(crate) fn start() -> Result<Self> {
        mounts::enter_private()?;
        mounts::own_etc()?;
        for directory in OWN {
            mounts::own(directory)?;
        }
        let site = Site::new()?;
        for source in OTHERS {
            site.add_unlisted(source)?;
        }
        let server = Echo::new(&site.node, PORT)?;
        fs::create_dir_all("/etc/apifence/ranges.d")?;
        let soon = Timestamp::now() + SignedDuration::from_hours(29 * 24);
        let past = Timestamp::now() - SignedDuration::from_hours(3);
        fs::write(
            "/etc/apifence/ranges",
            format!(
                "198.51.100.0/24 # office Berlin\n2001:db8:aa::/48 # office Berlin\n\
                 203.0.113.64/28 expires={soon:.0} # contractor\n\
                 203.0.113.7 expires={past:.0} # home office, Kim\n10.20.0.0/16 # VPN\n"
            ),
        )?;
        fs::write("/etc/apifence/ranges.d/ci", "192.0.2.64/27 # runners\n")?;
        fs::write(
            "/etc/apifence/apifence.toml",
            format!("interfaces = [\"{INTERFACE}\"]\ncluster_cidrs = [\"192.0.2.16/28\"]\n"),
        )?;
        let mut run = Command::new(binary());
        run.arg("run").stdin(Stdio::null());
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut service = Background::from_child(site.node.spawn(&mut run)?)?;
        ready(&site.node, &mut service)?;
        let mut node = Self {
            site,
            _service: service,
            _server: server,
            stop: Arc::default(),
            clients: Vec::new(),
        };
        node.change(&["ranges", "add", "203.0.113.80", "--comment", "build server"])?;
        node.come()?;
        // Long enough for rates of a few seconds.
        thread::sleep(Duration::from_secs(6));
        Ok(node)
    }

    /// The program, with an installation's paths by default.
    pub(crate) fn program(&self) -> PathBuf {
        binary().into()
    }

    fn change(&self, words: &[&str]) -> Result<()> {
        let ran = self.site.node.output(
            Command::new(self.program())
                .args(words)
                .env("SUDO_USER", "alice"),
        )?;
        ensure!(ran.status.success(), "{ran:?}");
        Ok(())
    }

    /// Clients come: an administrator who works, and unlisted sources that try, each at its rate.
    fn come(&mut self) -> Result<()> {
        let sources = [UNLISTED].into_iter().chain(OTHERS);
        for (number, source) in sources.enumerate() {
            let pause = Duration::from_millis(40 * (1 << number));
            let inside = self.site.unlisted.try_clone()?;
            self.repeat(pause, move || knock(&inside, source));
        }
        for (source, pause) in [("198.51.100.7", 60), ("2001:db8:aa::7", 250)] {
            let inside = self.site.admin.try_clone()?;
            let to = at(NODE[usize::from(source.contains(':'))], PORT);
            let mut stream = open(&inside, ip(source), to)?;
            self.repeat(Duration::from_millis(pause), move || {
                // The picture shows whether it is answered.
                let _ = exchange(&mut stream, Duration::from_secs(1));
            });
        }
        Ok(())
    }

    fn repeat(&mut self, pause: Duration, mut act: impl FnMut() + Send + 'static) {
        let stop = self.stop.clone();
        self.clients.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                act();
                thread::sleep(pause);
            }
        }));
    }
}

/// One SYN, without a wait for its answer.
fn knock(inside: &Namespace, source: &str) {
    let to = at(NODE[usize::from(source.contains(':'))], PORT);
    let _ = tests::net::connect(inside, ip(source), to, Duration::from_millis(5));
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // A client that panicked has nothing left to end.
            let _ = client.join();
        }
    }
}
