//! An HTTPS server and client with real certificates: a small stand-in for an API server and
//! `kubectl`.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, ServerName},
};

use crate::{net::connect, netns::Namespace, wait::PATIENCE};

/// The server's answer to every request.
const BODY: &str = r#"{"major":"1","minor":"34","platform":"linux/demo"}"#;

/// Certificates of a server, and the authority that its clients trust.
#[derive(Clone, Debug)]
pub struct Identity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    authority: String,
}

/// The page of a server, which changes while it serves.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status line after the version, like `200 OK`.
    pub status: &'static str,
    /// The body.
    pub body: String,
    /// Whether the connection ends in the middle of the body.
    pub cut: bool,
}

impl Identity {
    /// Makes a certificate authority and a certificate for a server at `addresses`.
    pub fn new(addresses: &[IpAddr]) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name of the server's certificate, that one would look as if it signed itself.
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "test authority");
        let authority_key = KeyPair::generate()?;
        let root = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;

        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone())?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .ok()
            .context("the key is no PKCS #8")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            authority: root.pem(),
        })
    }

    /// The certificate of the authority, as programs read it from a file.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Answers HTTPS on `port` of every address of `namespace`, until the process ends.
    pub fn serve(&self, namespace: &Namespace, port: u16) -> Result<()> {
        self.listen(namespace, port, answer)
    }

    /// Answers requests for any path with `page`, with its tag, until the process ends.
    pub fn serve_page(
        &self,
        namespace: &Namespace,
        port: u16,
        page: Arc<Mutex<Page>>,
    ) -> Result<()> {
        self.listen(namespace, port, move |config, stream| {
            answer_with(config, stream, &page)
        })
    }

    fn listen(
        &self,
        namespace: &Namespace,
        port: u16,
        answer: impl Fn(Arc<ServerConfig>, TcpStream) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        let listener = namespace
            .run(|| TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)))
            .with_context(|| format!("listen on port {port}"))?;
        let config = self.server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                let (config, answer) = (config.clone(), answer.clone());
                // A client that disconnects is not an error of the server.
                thread::spawn(move || answer(config, stream).ok());
            }
        });
        Ok(())
    }

    /// Connects from `source` and makes the TLS handshake; the server's certificate is verified.
    pub fn connect(
        &self,
        namespace: &Namespace,
        source: IpAddr,
        target: SocketAddr,
    ) -> Result<Client> {
        let stream = connect(namespace, source, target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(target.ip().into());
        let mut client = Client {
            stream: BufReader::new(StreamOwned::new(
                ClientConnection::new(self.client.clone(), name)?,
                stream,
            )),
            host: target,
        };
        let session = client.stream.get_mut();
        session
            .conn
            .complete_io(&mut session.sock)
            .context("TLS handshake")?;
        Ok(client)
    }
}

fn answer(config: Arc<ServerConfig>, stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let length = BODY.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        write!(stream.get_mut(), "{head}{BODY}")?;
        stream.get_mut().flush()?;
    }
}

/// Answers one request with the page as it is now.
fn answer_with(config: Arc<ServerConfig>, stream: TcpStream, page: &Mutex<Page>) -> Result<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let page = page.lock().expect("no holder panics").clone();
    let tag = format!("\"{:x}\"", page.body.len());
    let (mut line, mut is_known) = (String::new(), false);
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let header = line.split_once(':');
        is_known |= header.is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("if-none-match") && value.trim() == tag
        });
    }
    let (status, body) = match is_known {
        true => ("304 Not Modified", ""),
        false => (page.status, &*page.body),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: {tag}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    let sent = if page.cut { &body[..length / 2] } else { body };
    write!(stream.get_mut(), "{head}{sent}")?;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()?;
    Ok(())
}

/// An open HTTPS connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    host: SocketAddr,
}

impl Client {
    /// Requests `/version` and requires [`BODY`] within the time.
    pub fn get(&mut self, within: Duration) -> Result<()> {
        self.stream.get_mut().sock.set_read_timeout(Some(within))?;
        write!(
            self.stream.get_mut(),
            "GET /version HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.host
        )?;
        self.stream.get_mut().flush()?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        ensure!(status == "HTTP/1.1 200 OK\r\n", "answer `{status}`");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            ensure!(
                self.stream.read_line(&mut line)? > 0,
                "the answer ends in its headers"
            );
        }
        let mut body = [0; BODY.len()];
        self.stream.read_exact(&mut body)?;
        ensure!(body == BODY.as_bytes(), "another body than the server's");
        Ok(())
    }

    /// The local address of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().sock.local_addr()
    }
}
