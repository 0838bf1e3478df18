//! A connection to an API server that stays open, with requests in a row.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;

use crate::{net::connect, netns::Namespace, wait::PATIENCE};

/// A connection with the administrator's certificate.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    host: SocketAddr,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, like 200.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Requires a status that means success.
    pub fn succeeded(self) -> Result<Self> {
        let Self { status, body } = &self;
        ensure!((200..300).contains(status), "answer {status}: {body}");
        Ok(self)
    }

    /// The body as an object.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("read `{}`", self.body))
    }
}

impl Client {
    /// Connects and makes the TLS handshake; the server's certificate is verified.
    pub fn connect(
        config: &Arc<ClientConfig>,
        namespace: &Namespace,
        source: IpAddr,
        host: SocketAddr,
    ) -> Result<Self> {
        let stream = connect(namespace, source, host, PATIENCE)
            .with_context(|| format!("connect from {source} to {host}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(host.ip().into());
        let session = ClientConnection::new(config.clone(), name)?;
        let mut stream = StreamOwned::new(session, stream);
        stream
            .conn
            .complete_io(&mut stream.sock)
            .context("TLS handshake")?;
        let stream = BufReader::new(stream);
        Ok(Self { stream, host })
    }

    /// Answers from now on must come within this time.
    pub fn set_patience(&self, within: Duration) -> Result<()> {
        Ok(self.stream.get_ref().sock.set_read_timeout(Some(within))?)
    }

    /// The local address of the connection.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().sock.local_addr()?)
    }

    /// Requests `path`.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.request("GET", path, "")
    }

    /// Makes an object of the JSON `body` in the collection at `path`.
    pub fn create(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.request("POST", path, &body.to_string())?
            .succeeded()?
            .json()
    }

    /// Replaces the object at `path`.
    pub fn replace(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.request("PUT", path, &body.to_string())?
            .succeeded()?
            .json()
    }

    /// Deletes the object at `path`.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        self.request("DELETE", path, "")?.succeeded().map(drop)
    }

    /// Sends a request, and reads the whole answer.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let (host, length) = (self.host, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Accept: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let stream = self.stream.get_mut();
        write!(stream, "{head}{body}")?;
        stream.flush()?;
        self.answer().with_context(|| format!("{method} {path}"))
    }

    /// Reads the answer to a request that was sent before, and was not answered in time.
    pub fn answer(&mut self) -> Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("answer `{line}`"))?;
        let (mut length, mut in_parts) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", number)) => length = number.parse()?,
                Some(("transfer-encoding", "chunked")) => in_parts = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        match in_parts {
            false => self.read(length, &mut body)?,
            true => loop {
                let length = usize::from_str_radix(&self.line()?, 16)?;
                self.read(length, &mut body)?;
                ensure!(self.line()?.is_empty(), "a part without an end");
                if length == 0 {
                    break;
                }
            },
        }
        let body = String::from_utf8(body)?;
        Ok(Answer { status, body })
    }

    fn read(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let before = body.len();
        body.resize(before + length, 0);
        Ok(self.stream.read_exact(&mut body[before..])?)
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => bail!("the answer ends in `{line}`"),
        }
    }
}
