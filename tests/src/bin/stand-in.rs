//! A program with sockets, run under the name of another program: `stand-in [--name NAME]
//! [--connect ADDRESS:PORT]... [[ADDRESS:]PORT]... [--worker WORD...]`. It listens on each port, of
//! every address unless one is named. It keeps the connections that it accepts and makes, and
//! echoes their data. It prints `ready` once all of them are open. The words behind `--worker` are
//! those of a worker, which has the listeners, too.

use std::{
    env, fs, io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The name of this process.
const NAME: &str = "/proc/self/comm";

fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let mut connected = Vec::new();
    let mut listeners = Vec::new();
    while let Some(word) = words.next() {
        if word == "--connect" {
            let to = words.next().context("no address to connect to")?;
            connected.push(TcpStream::connect(&to).with_context(|| format!("connect to {to}"))?);
            continue;
        }
        if word == "--name" {
            let name = words.next().context("no name")?;
            fs::write(NAME, name).context("set name")?;
            continue;
        }
        if word == "--worker" {
            return worker(&listeners, words);
        }
        let of_all = || {
            let port = word.parse();
            port.map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        };
        let address = word.parse().or_else(|_| of_all());
        let address = address.with_context(|| format!("`{word}` is no port"))?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        listeners.push(listener.try_clone()?);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
    }
    println!("ready");
    loop {
        thread::park();
    }
}

/// Runs a worker with the same name and `listeners`, which says `ready` in its turn.
fn worker(listeners: &[TcpListener], words: impl Iterator<Item = String>) -> Result<()> {
    for listener in listeners {
        fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).context("keep listener")?;
    }
    let name = fs::read_to_string(NAME)?;
    let mut worker = Command::new("setpriv");
    worker
        .args(["--pdeathsig", "KILL"])
        .arg(env::current_exe()?);
    worker.args(["--name", name.trim_end()]).args(words);
    worker.status().context("run worker").map(drop)
}
