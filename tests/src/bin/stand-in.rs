//! A program with sockets, run under the name of another program: `stand-in [--connect
//! ADDRESS:PORT]... [[ADDRESS:]PORT]...`. It listens on each port, of every address unless one is
//! named. It keeps the connections that it accepts and makes, and echoes their data. It prints
//! `ready` once all of them are open.

use std::{
    env, io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let mut connected = Vec::new();
    while let Some(word) = words.next() {
        if word == "--connect" {
            let to = words.next().context("no address to connect to")?;
            connected.push(TcpStream::connect(&to).with_context(|| format!("connect to {to}"))?);
            continue;
        }
        let of_all = || {
            let port = word.parse();
            port.map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        };
        let address = word.parse().or_else(|_| of_all());
        let address = address.with_context(|| format!("`{word}` is no port"))?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
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
