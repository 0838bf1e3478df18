//! The HTTP endpoint: four paths, small answers, and limits that no client can exceed.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Result;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{Exporter, Health, Heartbeats};
use crate::{
    config::MetricsListen,
    kernel::pins::Pins,
    ui::{error::errno, output::eprint, visible::visible},
};

/// The limit of open connections. The next one closes the oldest, so a hanging client blocks none.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to send its request's header.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may take for its request and answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The pause before an address that cannot be listened on is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The pause after the kernel refused an accept, as it does when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The page at `/`. Its links are relative, so that they work behind a proxy that adds a prefix.
const LANDING: &str = concat!(
    "<!DOCTYPE html>\n\
     <html lang=\"en\">\n\
     <head><meta charset=\"utf-8\"><title>apifence</title></head>\n\
     <body>\n\
     <h1>apifence ",
    env!("CARGO_PKG_VERSION"),
    "</h1>\n\
     <ul>\n\
     <li><a href=\"metrics\">/metrics</a>: metrics for Prometheus</li>\n\
     <li><a href=\"readyz\">/readyz</a>: whether the node is guarded as its files say</li>\n\
     <li><a href=\"healthz\">/healthz</a>: whether the process works</li>\n\
     </ul>\n\
     <p>On the node: <code>apifence status</code>, <code>apifence top</code></p>\n\
     </body>\n\
     </html>\n"
);

/// The endpoint of a process with other tasks.
pub struct Endpoint {
    serving: JoinHandle<()>,
    leave: oneshot::Sender<()>,
}

impl Endpoint {
    /// Serves the pins under `pins` and the state in `health`; `None` if `listen` is off. An
    /// address that cannot be listened on is not an error: it is reported once and tried again.
    ///
    /// # Errors
    /// If the kernel refuses the socket for interface queries.
    pub fn open(
        listen: MetricsListen,
        pins: Pins,
        health: watch::Receiver<Health>,
        heartbeats: Arc<Heartbeats>,
    ) -> Result<Option<Self>> {
        let MetricsListen::At(address) = listen else {
            return Ok(None);
        };
        let exporter = Exporter::new(pins, health, heartbeats)?;
        let (leave, left) = oneshot::channel();
        let serving = tokio::spawn(serve_at(address, exporter, async {
            // A dropped sender means the same.
            let _ = left.await;
        }));
        Ok(Some(Self { serving, leave }))
    }

    /// Ends it and all connections.
    pub async fn close(self) {
        drop(self.leave);
        // Ended, even if by a panic.
        let _ = self.serving.await;
    }
}

/// Serves at `address` until `shutdown`. While the address cannot be listened on, it reports that
/// once and tries again: the filter must not depend on monitoring.
async fn serve_at(address: SocketAddr, exporter: Exporter, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut warned = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !warned => {
                eprint(format_args!(
                    "warning: listen on `{address}` for metrics: {}\n\
                     hint: retried every {} s; the filter works without metrics; `--metrics-listen` sets another address, or `off`",
                    errno(&error),
                    RETRY.as_secs()
                ));
                warned = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = &mut shutdown => return,
            () = sleep(RETRY) => {}
        }
    };
    // With port 0 the kernel chose the port.
    let address = listener.local_addr().unwrap_or(address);
    eprint(format_args!("metrics at `http://{address}/metrics`"));
    serve(listener, exporter, shutdown).await;
}

/// Answers the clients of `listener` until `shutdown`, which also closes the connections.
pub(super) async fn serve(
    listener: TcpListener,
    exporter: Exporter,
    shutdown: impl Future<Output = ()>,
) {
    let exporter = Arc::new(exporter);
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let mut oldest_first: Vec<AbortHandle> = Vec::new();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    oldest_first.retain(|connection| !connection.is_finished());
                    if oldest_first.len() >= MAX_CONNECTIONS {
                        oldest_first.remove(0).abort();
                    }
                    oldest_first.push(connections.spawn(connection(stream, Arc::clone(&exporter))));
                }
                Err(error) => {
                    log::debug!("accept connection for metrics: {}", errno(&error));
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request and its answer. A failed connection is not logged; the client sees it.
async fn connection(stream: TcpStream, exporter: Arc<Exporter>) {
    let service = service_fn(|request| {
        let exporter = Arc::clone(&exporter);
        async move { Ok::<_, Infallible>(answer(&request, &exporter).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("answer request for metrics: {error}"),
        Err(_) => log::debug!("answer request for metrics: it took too long"),
    }
}

async fn answer(request: &Request<Incoming>, exporter: &Exporter) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !["/", "/metrics", "/healthz", "/readyz"].contains(&path) {
        return page(
            StatusCode::NOT_FOUND,
            TEXT,
            "no such page; use `/metrics`, `/healthz` or `/readyz`\n",
        );
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/" => page(StatusCode::OK, HTML, LANDING),
        "/metrics" => match exporter.metrics().await {
            Ok(text) => page(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(error) => page(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("{error:#}\n"),
            ),
        },
        "/readyz" => match exporter.problems().await {
            none if none.is_empty() => page(StatusCode::OK, TEXT, "ready\n"),
            problems => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                visible(&problems.join("\n")).into_owned() + "\n",
            ),
        },
        _ => match exporter.failure() {
            None => page(StatusCode::OK, TEXT, "alive\n"),
            Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        },
    }
}

fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        path::PathBuf,
    };

    use anyhow::{Context as _, Result, ensure};
    use tokio::task::{JoinHandle, spawn_blocking};

    use super::*;

    /// Status and body of the answer to GET `path`.
    async fn get(address: SocketAddr, path: &'static str) -> Result<(u16, String)> {
        let client = spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (header, body) = answer.split_once("\r\n\r\n").context("no header")?;
            let status = header.split(' ').nth(1).context("no status")?;
            Ok((status.parse()?, body.to_owned()))
        });
        client.await?
    }

    /// A running exporter.
    struct Served {
        address: SocketAddr,
        health: watch::Sender<Health>,
        /// Ends it when dropped.
        stop: oneshot::Sender<()>,
        serving: JoinHandle<()>,
    }

    impl Served {
        async fn start() -> Result<Self> {
            let (health, watched) = watch::channel(Health::default());
            // Nothing is pinned there, so the test needs no root.
            let exporter = Exporter::new(
                Pins::new(PathBuf::from("/nowhere")),
                watched,
                Arc::default(),
            )?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let (stop, stopped) = oneshot::channel::<()>();
            let serving = tokio::spawn(serve(listener, exporter, async {
                let _ = stopped.await;
            }));
            Ok(Self {
                address,
                health,
                stop,
                serving,
            })
        }
    }

    #[tokio::test]
    async fn readiness_follows_the_state_of_the_process() -> Result<()> {
        let served = Served::start().await?;
        let (address, health) = (served.address, &served.health);
        let expect = async |status: u16, words: &str, metrics: [&str; 4]| {
            let (have, body) = get(address, "/readyz").await?;
            ensure!(have == status && body.contains(words), "{have}: {body}");
            let (_, page) = get(address, "/metrics").await?;
            for line in metrics {
                ensure!(page.contains(&format!("{line}\n")), "no `{line}` in {page}");
            }
            ensure!(get(address, "/healthz").await?.0 == 200);
            Ok(())
        };
        let fine = [
            "apifence_ready 1",
            "apifence_drift 0",
            "apifence_last_reload_successful 1",
            "apifence_reload_failures_total 0",
        ];

        let [_, no_drift, reloaded, no_failures] = fine;
        let starting = ["apifence_ready 0", no_drift, reloaded, no_failures];
        expect(503, "starting", starting).await?;
        health.send_modify(|health| health.started = true);
        expect(200, "ready", fine).await?;

        let failing = [
            "apifence_ready 0",
            no_drift,
            "apifence_last_reload_successful 0",
            "apifence_reload_failures_total 1",
        ];
        health.send_modify(|health| health.reloaded(Some("ranges:7: nonsense".to_owned())));
        expect(503, "ranges:7: nonsense", failing).await?;
        health.send_modify(|health| {
            health.reloaded(None);
            health.drift = Some("another list".to_owned());
        });
        let drifted = [
            "apifence_ready 0",
            "apifence_drift 1",
            reloaded,
            "apifence_reload_failures_total 1",
        ];
        expect(503, "another list", drifted).await?;
        health.send_modify(|health| {
            health.drift = None;
            health.interfaces = vec!["eth7".to_owned()];
        });
        let unguarded = [
            "apifence_ready 0",
            "apifence_attached{interface=\"eth7\",xdp_mode=\"none\"} 0",
            "apifence_enforcing 0",
            no_drift,
        ];
        expect(503, "`eth7` is not guarded", unguarded).await
    }

    #[tokio::test]
    async fn it_ends_on_shutdown_even_if_a_client_is_connected() -> Result<()> {
        let served = Served::start().await?;
        let mut idle = TcpStream::connect(served.address)?;
        drop(served.stop);
        served.serving.await?;
        ensure!(idle.read(&mut [0]).unwrap_or(0) == 0);
        ensure!(TcpStream::connect(served.address).is_err());
        Ok(())
    }
}
